"""ROUGE-L as LongBench scores it: rouge-l of the PyPI package ``rouge`` 1.0.1, without its recursion and its cost.

What that package computes (facts from https://github.com/pltrdy/rouge, Apache-2.0; the code here is our own): both
texts are split at every ".", empty pieces are dropped, and words are split at white space, with case and punctuation
kept; a piece of nothing but white space is one empty word. Each reference sentence is aligned with each predicted
sentence by one longest common subsequence, and the *different* words of all alignments are counted once: recall =
words / different words of the reference, precision = words / different words of the prediction, F = 2pr / (p + r +
1e-8). So identical texts score 0.999999995, the order of sentences does not matter, and repeats are ignored.

Among equally long subsequences the package chooses one by a fixed rule: starting at the ends of both sentences, equal
words are matched; otherwise the reference steps back if that keeps a longer subsequence, else the prediction does.
Which words count depends on this choice, so it is made in the same way here.

How: one row of the LCS table is one integer, whose bit j is set if the row grows at word j (Hyyrö 2004, "Bit-parallel
LCS-length computation revisited"). The rule above can be read off these bits: on unequal words, the reference steps
back exactly if the bit is set. A row costs a few integer operations however long the prediction is, and a pair of
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
"""How deep the recursion of ``rouge`` 1.0.1 can get within LongBench's ``eval.py`` at the default limit of 1000.

Measured with the frames of ``eval.py`` (module, scorer, metric): 991 calls under Python 3.11 to 3.13, 990 under 3.7 to
3.10; one less for the Chinese metric, whose call is one frame deeper.
"""


@dataclass(frozen=True)
class _Sentence:
    words: Sequence[str]
    types: frozenset[str]
    positions: dict[str, int]  # by word: bit j is set if the word is at position j


def rouge_l(prediction: str, reference: str, official_zero: bool = False, calls: int = OFFICIAL_CALLS) -> float:
    """F of rouge-l in ``rouge`` 1.0.1, 0-1; 0 if a text is empty or nothing but dots, where that package raises.

    Args:
        prediction: the generated text.
        reference: one reference.
        official_zero: whether to give 0 if the package's recursion would be deeper than Python allows, as LongBench
            does; this takes two sentences of about 1000 words together. False: the score without that limit.
        calls: the depth at which ``official_zero`` gives 0.
    """
    predicted, wanted = _sentences(prediction), _sentences(reference)
    if not predicted or not wanted:
        return 0.0
    matched: set[str] = set()
    for sentence in wanted:
        missing = sentence.types - matched
        for other in predicted:
            # A back-trace takes at most one call per word of both sentences, plus the first one.
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


ROUGE_SCORES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
"""The measures of Google's rouge-score."""


def rouge_score_f(
    prediction: str, reference: str, measures: Sequence[str] = ("rougeL", "rougeLsum")
) -> dict[str, float]:
    """F of measures of Google's rouge-score, 0-1, without stemming.

    These are other measures than LongBench's. They only know words of a-z and 0-9, so other scripts always score 0.
    ``rougeLsum`` takes each line as a sentence.

    Args:
        prediction: the generated text.
        reference: one reference.
        measures: some of ``ROUGE_SCORES``.
    """
    scores = _scorer(tuple(measures)).score(reference, prediction)
    return {name: float(scores[name].fmeasure) for name in measures}


@lru_cache(maxsize=4)
def _scorer(measures: tuple[str, ...]) -> rouge_scorer.RougeScorer:
    from rouge_score import rouge_scorer  # here, because it imports nltk, which is only needed for this score

    return rouge_scorer.RougeScorer(list(measures), use_stemmer=False)


def _sentences(text: str) -> list[_Sentence]:
    return [_sentence(piece.split() or [""]) for piece in text.split(".") if piece]


def _sentence(words: Sequence[str]) -> _Sentence:
    positions: dict[str, int] = {}
    for index, word in enumerate(words):
        positions[word] = positions.get(word, 0) | 1 << index
    return _Sentence(words, frozenset(positions), positions)


def _count_types(sentences: Sequence[_Sentence]) -> int:
    return len(frozenset().union(*(sentence.types for sentence in sentences)))


def _align(reference: _Sentence, prediction: _Sentence) -> tuple[set[str], int]:
    """The words of the subsequence that the package's rule finds, and the number of calls that its recursion takes."""
    width = len(prediction.words)
    full = (1 << width) - 1
    flat = full  # bits where the row does not grow
    grows = []
    for word in reference.words:
        if positions := prediction.positions.get(word, 0):
            common = flat & positions
            flat = (flat + common | flat ^ common) & full
        grows.append(full ^ flat)
    matched: set[str] = set()
    left = width  # words of the prediction still ahead
    calls = 1
    for word, growing in zip(reversed(reference.words), reversed(grows), strict=True):
        positions = prediction.positions.get(word, 0)
        # The prediction steps back to the next position at which the words are equal or the row grows.
        end = ((positions | growing) & ((1 << left) - 1)).bit_length()
        calls += left - end
        if not end:
            break
        calls += 1
        if positions >> (end - 1) & 1:
            matched.add(word)
            end -= 1
        left = end
        if not left:
            break
    return matched, calls
