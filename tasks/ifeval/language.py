"""What some instructions need of the language of a text: which one it is, its sentences and its words."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec

from harness.errors import ConfigError
from tasks.sentences import sentences

_SEED = 0
"""Seed of langdetect, which draws at random and which the official code leaves unseeded."""
PACKAGES = ("langdetect", "nltk")


def check_installed(task: str) -> None:
    """Refuse to score without langdetect and nltk.

    Args:
        task: name of the task, for the error.

    Raises:
        ConfigError: one is not installed.
    """
    if lacking := [package for package in PACKAGES if find_spec(package) is None]:
        raise ConfigError(
            f"task={task} looks at languages, sentences and words by {lacking[0]}, which is not installed: "
            "pip install 'kvgauge[ifeval]'"
        )


@lru_cache(maxsize=64)  # the same forms of a text are asked about again and again
def is_language(text: str, code: str) -> bool:
    """Whether langdetect finds this language; True if it finds none at all, as in the official code.

    Args:
        text: the text.
        code: a language by langdetect's code: ``en``.
    """
    from langdetect import DetectorFactory, LangDetectException, detect

    DetectorFactory.seed = _SEED
    try:
        return bool(detect(text) == code)
    except LangDetectException:
        return True


def sentence_count(text: str) -> int:
    """Number of sentences."""
    return len(sentences(text))


def words_and_signs(text: str) -> list[str]:
    """Words and signs as NLTK's ``word_tokenize`` cuts them, sentence by sentence."""
    from nltk.tokenize import NLTKWordTokenizer

    cut = NLTKWordTokenizer()
    return [word for sentence in sentences(text) for word in cut.tokenize(sentence)]
