"""RULER's scores of all 200 golden cases, as its own program and kvpress give them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.ruler.scores import metric_of, score

CASES = json.loads((Path(__file__).parents[2] / "golden/ruler/scorer_cases.json").read_text())


def mean(case: dict[str, object], newlines: str) -> float:
    pairs = zip(case["predictions"], case["references"], strict=True)  # type: ignore[call-overload]
    scores = [score(str(case["task"]), text, answers, newlines) for text, answers in pairs]
    return round(100 * sum(scores) / len(scores), 2)


def test_all_200_golden_cases_score_as_rulers_own_program_scores_them() -> None:
    assert len(CASES) == 200
    for case in CASES:
        pairs = zip(case["predictions"], case["references"], strict=True)
        each = [score(case["task"], text, answers, "keep") for text, answers in pairs]
        assert each == pytest.approx(case["each_rounded"], abs=0.005), case
        assert mean(case, "keep") == case["score"], case


def test_without_line_breaks_they_score_as_kvpress_scores_them() -> None:
    assert [mean(case, "drop") for case in CASES] == [case["kvpress_score"] for case in CASES]
    assert sum(mean(case, "keep") != mean(case, "drop") for case in CASES) > 10


def test_of_documents_one_answer_is_enough_and_of_all_else_each_counts() -> None:
    answers = ("Paris", "Rome")
    assert metric_of("qa_2").name == "string_match_part" and score("qa_2", "in paris", answers, "keep") == 1.0
    assert metric_of("vt").name == "string_match_all" and score("vt", "in paris", answers, "keep") == 0.5
