"""The other scores of LongBench, each for one prediction against one reference, 0-1: equal to the official code on every input.

Facts from ``metrics.py`` of https://github.com/THUDM/LongBench at f6227eb (MIT); the code is our own, its oddities are
kept on purpose and named where they are.
"""

from __future__ import annotations

import difflib
import re
import string
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from harness.errors import ConfigError, DataError
from tasks.checks import short
from tasks.scores.rouge_l import OFFICIAL_CALLS, rouge_l

if TYPE_CHECKING:
    import jieba

CodeBackend = Literal["difflib", "levenshtein"]
CODE_BACKENDS: tuple[CodeBackend, ...] = ("difflib", "levenshtein")

# Removed from Chinese answers beside ASCII punctuation. Protocol string, metrics.py of THUDM/LongBench at f6227eb
# (MIT); it has "》" and no "《".
_PUNCTUATION_ZH = "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_PUNCTUATION_ZH = str.maketrans("", "", string.punctuation + _PUNCTUATION_ZH)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBERS = re.compile(r"\d+")


def qa_f1(prediction: str, reference: str) -> float:
    """F1 over words, repeats counted; lower case, without ASCII punctuation and the words a, an, the. 0 where no word is left."""
    return _f1(_words(prediction), _words(reference))


def qa_f1_zh(prediction: str, reference: str) -> float:
    """F1 over jieba's words, repeats counted; lower case, without ASCII and Chinese punctuation and white space."""
    return _f1(_words_zh(prediction), _words_zh(reference))


def rouge_l_zh(prediction: str, reference: str, official_zero: bool = False) -> float:
    """``rouge_l`` of both texts cut into words by jieba. "。" ends no sentence here, so a text is often one long sentence."""
    cut = segmenter().cut
    return rouge_l(" ".join(cut(prediction)), " ".join(cut(reference)), official_zero, OFFICIAL_CALLS - 1)


def classification(prediction: str, reference: str, classes: Sequence[str]) -> float:
    """1 / number of classes named in the prediction, if the right one is among them; classes that are part of the right one's name
    do not count.

    The official code takes those away from the list it walks through, so the class behind one taken away is not looked
    at and stays: the same here.
    """
    named = [label for label in classes if label in prediction]
    place = 0
    while place < len(named):
        if named[place] in reference and named[place] != reference:
            named.remove(named[place])  # the first of that name, as the official code has it
        place += 1
    return 1.0 / len(named) if reference in named else 0.0


def count(prediction: str, reference: str) -> float:
    """Share of the numbers in the prediction that equal the reference, digit by digit ("07" is not "7"); 0 without a number."""
    numbers = _NUMBERS.findall(prediction)
    return numbers.count(reference) / len(numbers) if numbers else 0.0


def retrieval(prediction: str, reference: str) -> float:
    """``count`` of the number behind "Paragraph " in the reference.

    Raises:
        DataError: there is none.
    """
    return count(prediction, _paragraph(reference, r"Paragraph (\d+)", "Paragraph 7"))


def retrieval_zh(prediction: str, reference: str) -> float:
    """``count`` of the number behind "段落" in the reference.

    Raises:
        DataError: there is none.
    """
    return count(prediction, _paragraph(reference, r"段落(\d+)", "段落7"))


def code_similarity(prediction: str, reference: str, backend: CodeBackend) -> float:
    """Likeness of the reference and the first line of the prediction that holds no "`", "#" or "//"; whole percents / 100.

    The likeness is ``fuzzywuzzy.fuzz.ratio``, as in the official code. When it is imported, fuzzywuzzy chooses
    python-Levenshtein where that happens to be installed, or else ``difflib``, and tells nobody; one to three points
    lie between them. Here it is given the measure by name: ``difflib`` is what LongBench's requirements install,
    ``levenshtein`` what KVCache-Factory's do. For the latter rapidfuzz is asked, which ``ratio`` of python-Levenshtein
    0.27 itself calls.

    Args:
        prediction: the generated text.
        reference: the line as it is; leading white space counts.
        backend: the measure.

    Raises:
        ConfigError: the backend is none of the two, or is not installed.
    """
    lines = prediction.lstrip("\n").split("\n")
    line = next((line for line in lines if "`" not in line and "#" not in line and "//" not in line), "")
    return int(_fuzzywuzzy(check_backend(backend, "code_similarity")).ratio(line, reference)) / 100


@lru_cache(maxsize=1)
def segmenter() -> jieba.Tokenizer:
    """Jieba with its own dictionary and nothing else: not the dictionary cache it keeps in the shared folder for temporary files, which
    another version may have written, and not words that other code adds.
    """
    import jieba

    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer


def check_backend(backend: object, setting: str) -> CodeBackend:
    """``backend``, if it is one and installed.

    Raises:
        ConfigError: it is not.
    """
    if backend not in CODE_BACKENDS:
        raise ConfigError(f"{setting}={short(backend)} is not a measure of likeness: use {' or '.join(CODE_BACKENDS)}")
    if backend == "levenshtein":
        try:
            import rapidfuzz  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                f"{setting}=levenshtein needs the package rapidfuzz: pip install rapidfuzz, or use difflib"
            ) from error
    return "levenshtein" if backend == "levenshtein" else "difflib"


@lru_cache(maxsize=2)
def _fuzzywuzzy(backend: CodeBackend) -> ModuleType:
    """``fuzzywuzzy.fuzz`` with a measure of our choice: a copy for each, so that the one that others import stays what it is."""
    spec = find_spec("fuzzywuzzy.fuzz")
    assert spec is not None and spec.loader is not None
    fuzz = module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that python-Levenshtein would be faster
        spec.loader.exec_module(fuzz)
    fuzz.SequenceMatcher = difflib.SequenceMatcher if backend == "difflib" else _Levenshtein  # type: ignore[attr-defined]
    return fuzz


class _Levenshtein:
    """What fuzzywuzzy asks of a measure, with python-Levenshtein's number."""

    def __init__(self, _: None, first: str, second: str) -> None:
        self._texts = first, second

    def ratio(self) -> float:
        from rapidfuzz.distance import Indel

        return Indel.normalized_similarity(*self._texts)


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def _words_zh(text: str) -> list[str]:
    words = ("".join(word.lower().translate(_NO_PUNCTUATION_ZH).split()) for word in segmenter().cut(text))
    return [word for word in words if word]


def _f1(prediction: Sequence[str], reference: Sequence[str]) -> float:
    same = sum((Counter(prediction) & Counter(reference)).values())
    if not same:
        return 0.0
    precision, recall = same / len(prediction), same / len(reference)
    return (2 * precision * recall) / (precision + recall)


def _paragraph(reference: str, pattern: str, example: str) -> str:
    found = re.search(pattern, reference)
    if not found:
        raise DataError(
            f"the answer {short(reference)} names no paragraph: use the official data, whose answers read like "
            f"{example!r}"
        )
    return found[1]
