"""ROUGE-L as LongBench scores it: the summary-level rouge-l of the PyPI package ``rouge`` 1.0.1, without its recursion and its cost.

What that package computes (facts from https://github.com/pltrdy/rouge, Apache-2.0; the code here is our own): both
texts are cut at every ".", empty pieces dropped, words split at white space, case and punctuation kept; a piece of
nothing but white space is one empty word. Each reference sentence is aligned with each predicted sentence by one
longest common subsequence, and the *different* words of all alignments are counted once: recall = words / different
words of the reference, precision = words / those of the prediction, F = 2pr / (p + r + 1e-8). So identical texts score
0.999999995, order of sentences is free and repeats are ignored.

Among equally long subsequences the package takes one by a fixed rule: from the ends of both sentences, equal words are
matched; otherwise the reference steps back if that keeps a longer subsequence, else the prediction does. Which words
count depends on it, so the same choice is made here.

How: one row of the LCS table is one integer, bit j set where the row grows at word j (Hyyrö 2004, "Bit-parallel
LCS-length computation revisited"). The rule above reads off these bits: on unequal words, the reference steps back
exactly where the bit is set. A row costs a few integer operations however long the prediction is, and a pair of
sentences that can add no new word is not aligned at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rouge_score import rouge_scorer


OFFICIAL_CALLS = 991
"""How many calls deep the recursion of ``rouge`` 1.0.1 gets at the default limit of 1000 when LongBench's ``eval.py`` calls it.

Measured with its frames (module, scorer, metric): 991 under Python 3.11 to 3.13, 990 under 3.7 to 3.10; one less for
the Chinese metric, whose call is one frame deeper.
"""


@dataclass(frozen=True)
class _Sentence:
    words: Sequence[str]
    types: frozenset[str]
    places: dict[str, int]  # of each word: bit j for each place j


def rouge_l(prediction: str, reference: str, official_zero: bool = False, calls: int = OFFICIAL_CALLS) -> float:
    """F of ``rouge`` 1.0.1's rouge-l, 0-1; 0 where that package raises because a text is empty or holds nothing but dots.

    Args:
        prediction: the generated text.
        reference: one reference.
        official_zero: give 0 where the package's recursion is deeper than Python allows, which LongBench scores 0:
            sentences of about
            1000 words and more, both together. False: what it would have given without that limit.
        calls: the depth it reaches, of ``official_zero``.
    """
    predicted, wanted = _sentences(prediction), _sentences(reference)
    if not predicted or not wanted:
        return 0.0
    matched: set[str] = set()
    for sentence in wanted:
        missing = sentence.types - matched
        for other in predicted:
            # A back-trace is at most one call per word of both sentences, and the first.
            deep = official_zero and len(sentence.words) + len(other.words) + 1 > calls
            if missing.isdisjoint(other.types) and not deep:
                continue
            words, depth = _align(sentence, other)
            if deep and depth > calls:
                return 0.0
            matched |= words
            missing -= words
    recall = len(matched) / _count_types(wanted)
    precision = len(matched) / _count_types(predicted)
    return 2.0 * ((precision * recall) / (precision + recall + 1e-8))


def rouge_score_f(prediction: str, reference: str) -> dict[str, float]:
    """F of ``rougeL`` and ``rougeLsum`` of Google's rouge-score, 0-1, no stemming: other measures than LongBench's, in other words
    than a-z and 0-9 always 0. ``rougeLsum`` takes each line as a sentence.
    """
    scores = _scorer().score(reference, prediction)
    return {name: float(scores[name].fmeasure) for name in ("rougeL", "rougeLsum")}


@lru_cache(maxsize=1)
def _scorer() -> rouge_scorer.RougeScorer:
    from rouge_score import rouge_scorer  # brings nltk: not where nothing is scored with it

    return rouge_scorer.RougeScorer(["rougeL", "rougeLsum"], use_stemmer=False)


def _sentences(text: str) -> list[_Sentence]:
    return [_sentence(piece.split() or [""]) for piece in text.split(".") if piece]


def _sentence(words: Sequence[str]) -> _Sentence:
    places: dict[str, int] = {}
    for place, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << place
    return _Sentence(words, frozenset(places), places)


def _count_types(sentences: Sequence[_Sentence]) -> int:
    return len(frozenset().union(*(sentence.types for sentence in sentences)))


def _align(reference: _Sentence, prediction: _Sentence) -> tuple[set[str], int]:
    """The words of the subsequence that the package's rule finds, and how many calls its recursion takes."""
    width = len(prediction.words)
    full = (1 << width) - 1
    flat = full  # bits where the row does not grow
    grows = []
    for word in reference.words:
        if places := prediction.places.get(word, 0):
            common = flat & places
            flat = (flat + common | flat ^ common) & full
        grows.append(full ^ flat)
    matched: set[str] = set()
    left = width  # words of the prediction still ahead
    calls = 1
    for word, growing in zip(reversed(reference.words), reversed(grows), strict=True):
        places = prediction.places.get(word, 0)
        # The prediction steps back to the next place where the words are equal or the row grows.
        place = ((places | growing) & ((1 << left) - 1)).bit_length()
        calls += left - place
        if not place:
            break
        calls += 1
        if places >> (place - 1) & 1:
            matched.add(word)
            place -= 1
        left = place
        if not left:
            break
    return matched, calls
