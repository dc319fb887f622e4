"""The three scores of a response to a needle's question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from harness.task import Metric
from tasks.scores.answers import contains as holds

if TYPE_CHECKING:
    from rouge_score import rouge_scorer

CONTAINS, ROUGE = Metric("contains_answer", "contains answer", 1.0), Metric("rouge1_x10", "ROUGE-1 F x10", 10.0)
OVERLAP = Metric("word_overlap", "word overlap", 1.0)
PLAIN_OVERLAP = Metric("plain_word_overlap", "plain word overlap", 1.0)

_LETTERS_AND_DIGITS = re.compile(r"\w+")


def needle_metrics(ignore_punctuation: bool) -> tuple[Metric, ...]:
    """The metrics that ``score_response`` returns."""
    return CONTAINS, PLAIN_OVERLAP if ignore_punctuation else OVERLAP, ROUGE


def score_response(
    needle: str, answers: Sequence[str], response: str, ignore_punctuation: bool = False
) -> dict[str, float]:
    """The scores of one response, by metric.

    ``contains_answer`` is 1 if the response contains the answer verbatim, but for case and for white space and
    punctuation at the answer's ends. ``word_overlap`` is what the published heatmaps show: the share of the answer's
    different words, split at white space and lower-cased, that occur in the response, 0-1; a response that shares
    nothing but common words is far above 0. ``plain_word_overlap`` is the same of runs of letters and digits, so
    that ``7736863.`` holds ``7736863``. ``rouge1_x10`` is what the published runs store: ROUGE-1 F with
    stemming against the whole needle, times 10; quoting the answer alone gives 7.27, not 10. With several answers,
    containment and word overlap are means over them.

    Args:
        needle: the hidden text.
        answers: what a correct response contains, one or more.
        response: the generated text.
        ignore_punctuation: whether the word overlap is ``plain_word_overlap`` or, as published, ``word_overlap``.
    """
    response = response.strip()
    lowered = response.lower()
    words = _words(lowered, ignore_punctuation) | set(lowered.split())
    expected = [_words(answer.lower(), ignore_punctuation) for answer in answers]
    contains, overlap, rouge = needle_metrics(ignore_punctuation)
    return {
        contains.name: sum(holds(response, answer) for answer in answers) / len(answers),
        overlap.name: sum(len(words & wanted) / len(wanted) for wanted in expected) / len(expected),
        rouge.name: 10 * float(_scorer().score(needle, response)["rouge1"].fmeasure) if response else 0.0,
    }


def _words(text: str, ignore_punctuation: bool) -> set[str]:
    """The different words of a text, split at white space or at all but letters and digits.

    A text without letters and digits is split at white space.
    """
    runs = _LETTERS_AND_DIGITS.findall(text) if ignore_punctuation else []
    return set(runs or text.split())


@lru_cache(maxsize=1)
def _scorer() -> rouge_scorer.RougeScorer:
    from rouge_score import rouge_scorer  # here, because it imports nltk, which a run that scores nothing can spare

    return rouge_scorer.RougeScorer(["rouge1"], use_stemmer=True)
