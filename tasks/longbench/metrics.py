"""The metric of each LongBench dataset, and the score of one prediction.

``harness/report/stats/means.py`` makes the published number from these scores. Facts from ``eval.py`` and
``metrics.py`` of https://github.com/THUDM/LongBench at 072a5a7 and f6227eb (MIT); the code is our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import ConfigError, DataError
from harness.task import Metric
from tasks.checks import short
from tasks.scores.rouge_l import rouge_l, rouge_score_f
from tasks.scores.text import (
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
"""The metric of each of the 21 datasets, in LongBench's own order."""

FIRST_LINE_ONLY = frozenset({"trec", "triviaqa", "samsum", "lsht"})
"""Datasets for which only the first line of a prediction is scored, after leading line breaks."""

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
    """The settings in which two scorings of the same predictions may differ.

    Attributes:
        code_similarity: measure for the code datasets, see ``tasks.scores.text.code_similarity``.
        official_zero: see ``tasks.scores.rouge_l.rouge_l``.
        rouge_score: whether English summaries are also scored with Google's rouge-score, in columns of their own.
    """

    code_similarity: CodeBackend
    official_zero: bool
    rouge_score: bool

    def metrics(self, dataset: str) -> tuple[Metric, ...]:
        """The metrics that ``scores`` returns for a dataset, the published one first.

        Raises:
            ConfigError: there is no such dataset, or the measure is unknown or not installed.
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

    def scores(
        self, dataset: str, prediction: str, references: Sequence[str], classes: Sequence[str]
    ) -> dict[str, float]:
        """One value per metric of ``metrics``, 0-1, each the best over the references.

        The arguments are those of ``sample_score``.

        Raises:
            ConfigError: see ``metrics``.
            DataError: see ``sample_score``.
        """
        headline, *extras = self.metrics(dataset)
        values = {headline.name: sample_score(dataset, prediction, references, classes, self)}
        if extras:
            by_reference = [rouge_score_f(first_line(dataset, prediction), reference) for reference in references]
            values |= {
                f"rouge_score_{name}": max((f[name] for f in by_reference), default=0.0)
                for name in ("rougeL", "rougeLsum")
            }
        return values


def first_line(dataset: str, prediction: str) -> str:
    """The part of a prediction that is scored; spaces are never stripped, because code may begin with them."""
    return prediction.lstrip("\n").split("\n")[0] if _base(dataset) in FIRST_LINE_ONLY else prediction


def sample_score(
    dataset: str, prediction: str, references: Sequence[str], classes: Sequence[str], scoring: Scoring
) -> float:
    """The best score over the references, 0-1; 0 if there is no reference.

    Args:
        dataset: a dataset of LongBench or LongBench-E.
        prediction: the generated text, unchanged.
        references: acceptable answers.
        classes: labels of a classification dataset; the official code takes those of the file's last record.
        scoring: settings of the scoring.

    Raises:
        ConfigError: there is no such dataset, or the measure is unknown or not installed.
        DataError: the answer of a retrieval dataset names no paragraph, or a classification has no classes.
    """
    name = _metric_of(dataset)
    text = first_line(dataset, prediction)
    return max((0.0, *(_score(name, text, reference, classes, scoring) for reference in references)))


def bucket(length: int) -> str:
    """LongBench-E's bucket for a record of a given ``length``, in words or, for Chinese, characters."""
    return BUCKETS[0] if length < 4000 else BUCKETS[1] if length < 8000 else BUCKETS[2]


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
                raise DataError(
                    "a classification answer cannot be scored without the classes: give the all_classes of the dataset"
                )
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
