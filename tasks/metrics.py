"""Which score belongs to which dataset of LongBench, and how scores become the published number.

Facts from ``eval.py`` and ``metrics.py`` of https://github.com/THUDM/LongBench at 072a5a7 and f6227eb (MIT); the code is our own.

    sample_score    best score over the references, after the first-line rule; 0-1
    dataset_score   100 x mean over samples, rounded to 2 digits: the number in the tables
    bucket_scores   the same per length, as LongBench-E reports it
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import ConfigError, DataError
from harness.schema import Metric
from tasks.checks import short
from tasks.metrics_rouge import rouge_l, rouge_score_f
from tasks.metrics_text import (
    CodeBackend,
    check_backend,
    classification,
    code_similarity,
    count,
    qa_f1,
    qa_f1_zh,
    retrieval,
    retrieval_zh,
    rouge_l_zh,
)

METRIC_OF: Mapping[str, str] = {
    "narrativeqa": "qa_f1",
    "qasper": "qa_f1",
    "multifieldqa_en": "qa_f1",
    "multifieldqa_zh": "qa_f1_zh",
    "hotpotqa": "qa_f1",
    "2wikimqa": "qa_f1",
    "musique": "qa_f1",
    "dureader": "rouge_l_zh",
    "gov_report": "rouge_l",
    "qmsum": "rouge_l",
    "multi_news": "rouge_l",
    "vcsum": "rouge_l_zh",
    "trec": "classification",
    "triviaqa": "qa_f1",
    "samsum": "rouge_l",
    "lsht": "classification",
    "passage_count": "count",
    "passage_retrieval_en": "retrieval",
    "passage_retrieval_zh": "retrieval_zh",
    "lcc": "code_similarity",
    "repobench-p": "code_similarity",
}
"""Of the 21 datasets, in LongBench's own order."""

FIRST_LINE_ONLY = frozenset({"trec", "triviaqa", "samsum", "lsht"})
"""Datasets that score the first line of a prediction, after the line breaks in front of it."""

BUCKETS = ("0-4k", "4-8k", "8k+")
_TITLES = {
    "qa_f1": "F1",
    "qa_f1_zh": "F1 (zh)",
    "rouge_l": "ROUGE-L (rouge 1.0.1)",
    "rouge_l_zh": "ROUGE-L (rouge 1.0.1, jieba)",
    "classification": "accuracy",
    "count": "accuracy",
    "retrieval": "accuracy",
    "retrieval_zh": "accuracy",
}


@dataclass(frozen=True)
class Scoring:
    """What may differ between two scorings of the same predictions.

    Attributes:
        code_similarity: measure of the code datasets, see ``metrics_text.code_similarity``.
        official_zero: see ``metrics_rouge.rouge_l``.
        rouge_score: also score English summaries with Google's rouge-score, in columns of their own.
    """

    code_similarity: CodeBackend
    official_zero: bool
    rouge_score: bool

    def metrics(self, dataset: str) -> tuple[Metric, ...]:
        """What ``scores`` returns for a dataset, the published one first.

        Raises:
            ConfigError: no such dataset, or a measure that is unknown or not installed.
        """
        name = _metric_of(dataset)
        if name == "code_similarity":
            backend = check_backend(self.code_similarity, "code_similarity")
            return (Metric(f"code_similarity_{backend}", f"edit similarity ({backend})", 1.0),)
        extras = ("rougeL", "rougeLsum") if name == "rouge_l" and self.rouge_score else ()
        return (
            Metric(name, _TITLES[name], 1.0),
            *(Metric(f"rouge_score_{extra}", f"{extra} (rouge-score)", 1.0) for extra in extras),
        )

    def scores(self, dataset: str, prediction: str, references: Sequence[str], classes: Sequence[str]) -> dict[str, float]:
        """One value, 0-1, per metric of ``metrics``: each the best over the references.

        Raises:
            ConfigError: see ``metrics``.
            DataError: see ``sample_score``.
        """
        headline, *extras = self.metrics(dataset)
        values = {headline.name: sample_score(dataset, prediction, references, classes, self)}
        if extras:
            found = [rouge_score_f(first_line(dataset, prediction), reference) for reference in references]
            values |= {f"rouge_score_{name}": max((f[name] for f in found), default=0.0) for name in ("rougeL", "rougeLsum")}
        return values


def first_line(dataset: str, prediction: str) -> str:
    """The part of a prediction that is scored. Spaces are never stripped, as code begins with them."""
    return prediction.lstrip("\n").split("\n")[0] if _base(dataset) in FIRST_LINE_ONLY else prediction


def sample_score(dataset: str, prediction: str, references: Sequence[str], classes: Sequence[str], scoring: Scoring) -> float:
    """The best score over the references, 0-1; 0 without a reference.

    Args:
        dataset: a dataset of LongBench or LongBench-E.
        prediction: the generated text, as it is.
        references: acceptable answers.
        classes: labels of a classification dataset; the official code takes those of the file's last record.
        scoring: what may differ.

    Raises:
        ConfigError: no such dataset, or a measure that is unknown or not installed.
        DataError: a retrieval answer that names no paragraph, or a classification without classes.
    """
    name = _metric_of(dataset)
    text = first_line(dataset, prediction)
    return max((0.0, *(_score(name, text, reference, classes, scoring) for reference in references)))


def dataset_score(
    dataset: str, predictions: Sequence[str], references: Sequence[Sequence[str]], classes: Sequence[str], scoring: Scoring
) -> float:
    """The published number of a dataset, 0-100 with 2 digits.

    Raises:
        DataError: no prediction, or another number of references.
    """
    return published_mean(_sample_scores(dataset, predictions, references, classes, scoring))


def bucket_scores(
    dataset: str,
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    lengths: Sequence[int],
    classes: Sequence[str],
    scoring: Scoring,
) -> dict[str, float]:
    """The published numbers of a LongBench-E dataset: per bucket 0-100 with 2 digits, NaN for an empty one.

    Raises:
        DataError: another number of references or lengths than predictions.
    """
    return published_buckets(_sample_scores(dataset, predictions, references, classes, scoring), lengths)


def published_mean(scores: Sequence[float]) -> float:
    """100 x mean of sample scores (0-1), summed in order and rounded as the official code does it.

    Raises:
        DataError: no score.
    """
    if not scores:
        raise DataError("there is no prediction to score: give at least one")
    total = 0.0  # sum() adds more exactly from Python 3.12 on, and could round a half the other way
    for score in scores:
        total += score
    return round(100 * total / len(scores), 2)


def published_buckets(scores: Sequence[float], lengths: Sequence[int]) -> dict[str, float]:
    """100 x mean per bucket of LongBench-E, with numpy's mean and rounding as in the official code; NaN for an empty bucket.

    Raises:
        DataError: another number of lengths than scores.
    """
    _same(len(scores), len(lengths), "lengths")
    of = {name: [s for s, length in zip(scores, lengths, strict=True) if bucket(length) == name] for name in BUCKETS}
    return {name: float(round(100 * np.mean(values), 2)) if values else math.nan for name, values in of.items()}


def bucket(length: int) -> str:
    """LongBench-E's bucket of a record's ``length`` (words; characters for Chinese)."""
    return BUCKETS[0] if length < 4000 else BUCKETS[1] if length < 8000 else BUCKETS[2]


def _sample_scores(
    dataset: str, predictions: Sequence[str], references: Sequence[Sequence[str]], classes: Sequence[str], scoring: Scoring
) -> list[float]:
    _same(len(predictions), len(references), "lists of references")
    return [sample_score(dataset, p, r, classes, scoring) for p, r in zip(predictions, references, strict=True)]


def _score(name: str, text: str, reference: str, classes: Sequence[str], scoring: Scoring) -> float:
    match name:
        case "qa_f1":
            return qa_f1(text, reference)
        case "qa_f1_zh":
            return qa_f1_zh(text, reference)
        case "rouge_l":
            return rouge_l(text, reference, scoring.official_zero)
        case "rouge_l_zh":
            return rouge_l_zh(text, reference, scoring.official_zero)
        case "classification":
            if not classes:
                raise DataError("a classification answer cannot be scored without the classes: give the all_classes of the dataset")
            return classification(text, reference, classes)
        case "count":
            return count(text, reference)
        case "retrieval":
            return retrieval(text, reference)
        case "retrieval_zh":
            return retrieval_zh(text, reference)
        case "code_similarity":
            return code_similarity(text, reference, scoring.code_similarity)
    raise AssertionError(name)


def _base(dataset: str) -> str:
    return dataset.removesuffix("_e")


def _metric_of(dataset: str) -> str:
    if _base(dataset) not in METRIC_OF:
        raise ConfigError(f"{short(dataset)} is not a dataset of LongBench: use one of {', '.join(METRIC_OF)}")
    return METRIC_OF[_base(dataset)]


def _same(predictions: int, others: int, what: str) -> None:
    if predictions != others:
        raise DataError(f"there are {predictions} predictions and {others} {what}: give one for each prediction")
