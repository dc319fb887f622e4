"""The three scores of a response to a needle's question."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from harness.task import Metric

if TYPE_CHECKING:
    from rouge_score import rouge_scorer

METRICS = (
    Metric("word_overlap", "word overlap", 1.0),
    Metric("rouge1_x10", "ROUGE-1 F x10", 10.0),
    Metric("contains_answer", "contains answer", 1.0),
)


def score_response(needle: str, answers: Sequence[str], response: str) -> dict[str, float]:
    """The scores of one response, by metric.

    ``word_overlap`` is what the published heatmaps show: the share of the answer's different words, split at white
    space and lower-cased, that occur in the response, 0-1. ``rouge1_x10`` is what the published runs store: ROUGE-1 F
    with stemming against the whole needle, times 10; quoting the answer alone gives 7.27, not 10. ``contains_answer``
    is 1 if the response contains the answer verbatim, but for case. With several answers, ``word_overlap`` and
    ``contains_answer`` are means over them.

    Args:
        needle: the hidden text.
        answers: what a correct response contains, one or more.
        response: the generated text.
    """
    response = response.strip()
    lowered = response.lower()
    words = set(lowered.split())
    expected = [set(answer.lower().split()) for answer in answers]
    return {
        "word_overlap": sum(len(words & wanted) / len(wanted) for wanted in expected) / len(expected),
        "rouge1_x10": 10 * float(_scorer().score(needle, response)["rouge1"].fmeasure) if response else 0.0,
        "contains_answer": sum(answer.lower() in lowered for answer in answers) / len(answers),
    }


@lru_cache(maxsize=1)
def _scorer() -> rouge_scorer.RougeScorer:
    from rouge_score import rouge_scorer  # here, because it imports nltk, which a run that scores nothing can spare

    return rouge_scorer.RougeScorer(["rouge1"], use_stemmer=True)
