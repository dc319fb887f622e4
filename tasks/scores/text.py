"""LongBench's scores other than ROUGE-L, each of one prediction against one reference, 0-1.

They equal the official code on every input. Facts from ``metrics.py`` of https://github.com/THUDM/LongBench at f6227eb
(MIT); the code is our own. Its oddities are kept on purpose, and pointed out below.
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

# Removed from Chinese answers, as is ASCII punctuation. Protocol string, metrics.py of THUDM/LongBench at f6227eb
# (MIT); it contains "》" but not "《".
_PUNCTUATION_ZH = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》"
    "「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_PUNCTUATION_ZH = str.maketrans("", "", string.punctuation + _PUNCTUATION_ZH)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBERS = re.compile(r"\d+")
PARAGRAPH = {"passage_retrieval_en": r"Paragraph (\d+)", "passage_retrieval_zh": r"段落(\d+)"}
"""What names the paragraph in an answer of the retrieval datasets."""


def qa_f1(prediction: str, reference: str) -> float:
    """F1 over words, counting repeats; 0 if no word is in common.

    Texts are lower-cased, and ASCII punctuation and the words a, an, the are removed.
    """
    return _f1(words(prediction), words(reference))


def qa_f1_zh(prediction: str, reference: str) -> float:
    """F1 over jieba's words, counting repeats.

    Words are lower-cased, and ASCII and Chinese punctuation and white space are removed from them.
    """
    return _f1(_words_zh(prediction), _words_zh(reference))


def rouge_l_zh(prediction: str, reference: str, official_zero: bool = False) -> float:
    """``rouge_l`` of both texts after jieba has split them into words.

    "。" does not end a sentence here, so a text is often one long sentence.
    """
    cut = segmenter().cut
    return rouge_l(" ".join(cut(prediction)), " ".join(cut(reference)), official_zero, OFFICIAL_CALLS - 1)


def classification(prediction: str, reference: str, classes: Sequence[str]) -> float:
    """1 / number of classes named in the prediction if the right one is among them, else 0.

    Classes whose name is part of the right one's do not count. The official code removes these from the list while
    iterating over it, so the class after a removed one is skipped and stays; the same happens here.
    """
    named = [label for label in classes if label in prediction]
    index = 0
    while index < len(named):
        if named[index] in reference and named[index] != reference:
            named.remove(named[index])  # removes the first of that name, as in the official code
        index += 1
    return 1.0 / len(named) if reference in named else 0.0


def count(prediction: str, reference: str) -> float:
    """The share of the numbers in the prediction that equal the reference; 0 if there is no number.

    Numbers are compared as text: "07" is not "7".
    """
    numbers = _NUMBERS.findall(prediction)
    return numbers.count(reference) / len(numbers) if numbers else 0.0


def retrieval(prediction: str, reference: str) -> float:
    """``count`` of the number after "Paragraph " in the reference.

    Raises:
        DataError: the reference contains no such number.
    """
    return count(prediction, _paragraph(reference, PARAGRAPH["passage_retrieval_en"], "Paragraph 7"))


def retrieval_zh(prediction: str, reference: str) -> float:
    """``count`` of the number after "段落" in the reference.

    Raises:
        DataError: the reference contains no such number.
    """
    return count(prediction, _paragraph(reference, PARAGRAPH["passage_retrieval_zh"], "段落7"))


def code_similarity(prediction: str, reference: str, backend: CodeBackend) -> float:
    """Similarity of the reference and one line of the prediction, 0-1, in whole percents.

    The line is the first one without "`", "#" or "//". The similarity is ``fuzzywuzzy.fuzz.ratio``, as in the official
    code. On import, fuzzywuzzy silently chooses python-Levenshtein if that happens to be installed, and ``difflib``
    otherwise; the two differ by one to three points. Here the measure is chosen by name: ``difflib`` is what
    LongBench's requirements install, ``levenshtein`` what KVCache-Factory's install. The latter is computed by
    rapidfuzz, which ``ratio`` of python-Levenshtein 0.27 itself calls.

    Args:
        prediction: the generated text.
        reference: the expected line, unchanged; leading white space counts.
        backend: the measure.

    Raises:
        ConfigError: the backend is neither of the two, or is not installed.
    """
    lines = prediction.lstrip("\n").split("\n")
    line = next((line for line in lines if "`" not in line and "#" not in line and "//" not in line), "")
    return int(_fuzzywuzzy(check_backend(backend, "code_similarity")).ratio(line, reference)) / 100


@lru_cache(maxsize=1)
def segmenter() -> jieba.Tokenizer:
    """A tokenizer of jieba's that uses jieba's own dictionary and nothing else.

    It ignores the dictionary cache in the shared temporary folder, which another version of jieba may have written, and
    words that other code adds.
    """
    import jieba

    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer


def check_backend(backend: object, setting: str) -> CodeBackend:
    """``backend``, checked to be known and installed.

    Args:
        backend: the value of a setting.
        setting: name of the setting, for the error.

    Raises:
        ConfigError: the backend is unknown or not installed.
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
    """A copy of the module ``fuzzywuzzy.fuzz`` that uses one measure; the module that others import stays unchanged."""
    spec = find_spec("fuzzywuzzy.fuzz")
    assert spec is not None and spec.loader is not None
    fuzz = module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that python-Levenshtein would be faster
        spec.loader.exec_module(fuzz)
    fuzz.SequenceMatcher = difflib.SequenceMatcher if backend == "difflib" else _Levenshtein  # type: ignore[attr-defined]
    return fuzz


class _Levenshtein:
    """The part of ``difflib.SequenceMatcher`` that fuzzywuzzy uses, with python-Levenshtein's ratio."""

    def __init__(self, _: None, first: str, second: str) -> None:
        self._texts = first, second

    def ratio(self) -> float:
        from rapidfuzz.distance import Indel

        return Indel.normalized_similarity(*self._texts)


def words(text: str) -> list[str]:
    """The words of a lower-cased text without ASCII punctuation and without a, an, the."""
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
    match = re.search(pattern, reference)
    if not match:
        raise DataError(
            f"the answer {short(reference)} names no paragraph: use the official data, whose answers read like "
            f"{example!r}"
        )
    return match[1]
