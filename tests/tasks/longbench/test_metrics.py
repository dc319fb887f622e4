"""Scores of LongBench: equal to the official code on golden cases, dataset by dataset."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError, DataError
from harness.report.format import number, part_score
from harness.report.stats.means import part_mean, score_mean
from tasks.longbench.metrics import (
    BUCKETS,
    FIRST_LINE_ONLY,
    METRIC_OF,
    Scoring,
    bucket,
    first_line,
    sample_score,
)
from tasks.scores.rouge_l import rouge_l
from tasks.scores.text import (
    CODE_BACKENDS,
    CodeBackend,
    classification,
    code_similarity,
    count,
    qa_f1,
    qa_f1_zh,
    retrieval,
    retrieval_zh,
    rouge_l_zh,
)

ROOT = Path(__file__).parents[3]
PART = ROOT / "tests/golden/metrics"
WHOLE = ROOT.parent / "shared/golden/metrics"
_NOT_HERE = pytest.mark.skipif(not WHOLE.is_dir(), reason="no ../shared")
FOLDERS = [PART, pytest.param(WHOLE, marks=[pytest.mark.slow, _NOT_HERE])]
DIFFLIB = Scoring("difflib", official_zero=True, rouge_score=False)


def golden(folder: Path, backend: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"metrics_{backend}.json").read_text(encoding="utf-8"))
    return found


def ours(backend: CodeBackend) -> dict[str, Callable[[str, str, Sequence[str]], float]]:
    """Our scores under the official names."""
    return {
        "qa_f1_score": lambda p, r, _: qa_f1(p, r),
        "qa_f1_zh_score": lambda p, r, _: qa_f1_zh(p, r),
        "rouge_score": lambda p, r, _: rouge_l(p, r, official_zero=True),
        "rouge_zh_score": lambda p, r, _: rouge_l_zh(p, r, official_zero=True),
        "classification_score": classification,
        "count_score": lambda p, r, _: count(p, r),
        "retrieval_score": lambda p, r, _: retrieval(p, r),
        "retrieval_zh_score": lambda p, r, _: retrieval_zh(p, r),
        "code_sim_score": lambda p, r, _: code_similarity(p, r, backend),
    }


# --- golden cases


@pytest.mark.parametrize("folder", FOLDERS, ids=["part", "whole"])
@pytest.mark.parametrize(("backend", "cases"), [("difflib", 390), ("levenshtein", 48)])
def test_golden_cases_equal_the_official_scores(folder: Path, backend: CodeBackend, cases: int) -> None:
    found = golden(folder, backend)["cases"]
    assert len(found) == (390 if folder == WHOLE else cases)
    score = ours(backend)
    wrong = [
        (case["id"], value, case["score"])
        for case in found
        if not abs(
            (value := score[case["metric"]](case["prediction"], case["reference"], case["all_classes"])) - case["score"]
        )
        <= 1e-12
    ]
    assert wrong == []


def test_golden_cases_tell_the_two_measures_of_code_apart() -> None:
    scores = [{case["id"]: case["score"] for case in golden(PART, backend)["cases"]} for backend in CODE_BACKENDS]
    assert sum(scores[0][case] != score for case, score in scores[1].items()) == 7


@pytest.mark.parametrize("folder", FOLDERS, ids=["part", "whole"])
@pytest.mark.parametrize("backend", CODE_BACKENDS)
def test_dataset_scores_and_buckets_equal_the_official_ones(folder: Path, backend: CodeBackend) -> None:
    scoring = Scoring(backend, official_zero=True, rouge_score=False)
    found = golden(folder, backend)["dataset_scorers"]
    assert len(found) == 17
    for case in found:
        classes = case["all_classes"] or ()
        answers = zip(case["predictions"], case["answers"], strict=True)
        scores = [sample_score(case["dataset"], text, references, classes, scoring) for text, references in answers]
        assert float(number(score_mean(scores, 1.0), 2)) == case["scorer"], case["dataset"]
        if "scorer_e" in case:
            parts: dict[str, list[float]] = {name: [] for name in BUCKETS}
            for value, length in zip(scores, case["lengths"], strict=True):
                parts[bucket(length)].append(value)
            assert {name: float(part_score(part_mean(part, 1.0))) for name, part in parts.items()} == case[
                "scorer_e"
            ], case["dataset"]


@pytest.mark.parametrize("folder", FOLDERS, ids=["part", "whole"])
def test_official_zero_equals_what_the_recursion_of_rouge_gave(folder: Path) -> None:
    rows = json.loads((folder / "rouge_recursion.json").read_text())["rows"]
    assert len(rows) == 9
    for row in rows:
        predicted = [f"p{i}" for i in range(row["pred_words"])]
        wanted = [f"r{i}" for i in range(row["ref_words"])]
        shared = " ".join([*predicted[1:], "x"])
        assert rouge_l(shared, " ".join([*wanted[1:], "x"]), official_zero=True) == pytest.approx(
            row["one_shared_word"], abs=1e-12
        )
        assert rouge_l(shared, ". ".join([*wanted[1:], "x"]), official_zero=True) == pytest.approx(
            row["with_periods"], abs=1e-12
        )
        same = [f"w{i}" for i in range(max(row["pred_words"], row["ref_words"]))]
        prefix = rouge_l(" ".join(same[: row["pred_words"]]), " ".join(same[: row["ref_words"]]), official_zero=True)
        assert prefix == pytest.approx(row["identical_prefix"], abs=1e-12)


# --- datasets


def test_every_dataset_has_a_metric_that_scores_a_right_answer_best() -> None:
    assert len(METRIC_OF) == 21
    right = {"retrieval": "Paragraph 7", "retrieval_zh": "段落7", "count": "7"}
    for dataset, metric in METRIC_OF.items():
        answer = right.get(metric, "yes")
        scores = DIFFLIB.scores(dataset, answer, [answer], ["yes", "no"])
        assert list(scores) == [m.name for m in DIFFLIB.metrics(dataset)]
        assert next(iter(scores.values())) == pytest.approx(1, abs=1e-8)
        assert DIFFLIB.scores(f"{dataset}_e", answer, [answer], ["yes", "no"]) == scores


def test_only_four_datasets_score_the_first_line_and_none_is_stripped() -> None:
    assert sorted(FIRST_LINE_ONLY) == ["lsht", "samsum", "trec", "triviaqa"]
    for dataset in METRIC_OF:
        assert first_line(dataset, "\n\n a \nb") == (" a " if dataset in FIRST_LINE_ONLY else "\n\n a \nb")
    assert first_line("trec_e", "x\ny") == "x"
    assert first_line("trec", "\n\n") == ""


def test_sample_score_is_the_best_over_references() -> None:
    assert sample_score("qasper", "yes", ["no", "yes", "maybe"], (), DIFFLIB) == 1.0
    assert sample_score("qasper", "yes", [], (), DIFFLIB) == 0.0


def test_backend_stands_in_the_name_of_the_metric_and_extras_are_columns_of_their_own() -> None:
    both = [Scoring(backend, official_zero=False, rouge_score=True) for backend in CODE_BACKENDS]
    assert [s.metrics("lcc")[0].name for s in both] == ["code_similarity_difflib", "code_similarity_levenshtein"]
    names = [metric.name for metric in both[0].metrics("gov_report")]
    assert names == ["rouge_l", "rouge_score_rougeL", "rouge_score_rougeLsum"]
    assert list(both[0].scores("gov_report", "a b", ["a", "b c"], ())) == names
    assert [metric.name for metric in both[0].metrics("vcsum")] == ["rouge_l_zh"]
    assert [metric.name for metric in DIFFLIB.metrics("gov_report")] == ["rouge_l"]


def test_extras_take_the_first_line_and_the_best_reference_too() -> None:
    scoring = Scoring("difflib", official_zero=False, rouge_score=True)
    scores = scoring.scores("samsum", "\na b\nc d", ["x", "a b"], ())
    assert scores["rouge_score_rougeL"] == scores["rouge_score_rougeLsum"] == 1.0
    assert scoring.scores("samsum", "a", [], ()) == {
        "rouge_l": 0.0,
        "rouge_score_rougeL": 0.0,
        "rouge_score_rougeLsum": 0.0,
    }


def test_bucket_edges_belong_to_the_longer_bucket() -> None:
    assert [bucket(n) for n in (0, 3999, 4000, 7999, 8000)] == ["0-4k", "0-4k", "4-8k", "4-8k", "8k+"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sample_score("squad", "a", ["a"], (), DIFFLIB), ConfigError, "'squad' is not a dataset"),
        (lambda: sample_score("trec", "a", ["a"], (), DIFFLIB), DataError, "without the classes"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
