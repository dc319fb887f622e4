"""Scores of several answers: their mean, and how often one of k is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

import pytest

from harness.results import Record, Sample
from harness.store.scoring import pass_at, sampled_metrics, with_scores
from harness.task import OUTPUT_TOKENS, Example, Metric, Task


@dataclass(frozen=True)
class Right:
    """Full marks for the reference, half for a text of its length."""

    metrics: tuple[Metric, ...] = (Metric("marks", "marks", 2.0), Metric(OUTPUT_TOKENS, "tokens", 9.0))

    def score(self, example: Example, text: str | None) -> Mapping[str, float]:
        (wanted,) = example.references
        if text == "fails":
            raise ValueError("no answer")
        return {"marks": 2.0 if text == wanted else 1.0 if len(text or "") == len(wanted) else 0.0}


TASK = cast("Task", Right())
EXAMPLE = Example(id="a", prompt="", references=("yes",))


def drawn(*texts: str) -> Record:
    samples = [Sample(tokens=tuple(range(len(text))), text=text) for text in texts]
    return Record("a", {}, ("yes",), {}, 1, "", tokens=samples[0].tokens, text=texts[0], samples=samples)


def test_scores_are_means_over_the_answers_and_pass_at_k() -> None:
    scored = with_scores(drawn("nope!", "yes", "huh", ""), TASK, EXAMPLE)
    # By hand: 0, 2, 1 and 0 marks; 5, 3, 3 and 0 tokens. One of four is right, and of the six pairs it is in three.
    assert scored.scores == {"marks": 3 / 4, "output_tokens": 11 / 4, "pass@2": 3 / 6, "pass@4": 1.0}
    assert [sample.scores["marks"] for sample in scored.samples] == [0.0, 2.0, 1.0, 0.0]
    assert (scored.text, scored.error) == ("nope!", None)


def test_one_answer_has_no_pass_at_k_and_a_greedy_one_no_answers() -> None:
    assert with_scores(drawn("yes"), TASK, EXAMPLE).scores == {"marks": 2.0, "output_tokens": 3}
    greedy = Record("a", {}, ("yes",), {}, 1, "", tokens=(1, 2), text="yes")
    assert with_scores(greedy, TASK, EXAMPLE).scores == {"marks": 2.0, "output_tokens": 2}
    assert "samples" not in greedy.to_json()


def test_answer_that_cannot_be_scored_costs_the_score_of_its_example_and_no_text() -> None:
    failed = with_scores(drawn("yes", "fails"), TASK, EXAMPLE)
    assert failed.error is not None and "no answer" in failed.error and not failed.scores
    assert [sample.text for sample in failed.samples] == ["yes", "fails"]


@pytest.mark.parametrize("right", range(6))
def test_pass_at_k_is_the_share_of_all_choices_of_k_answers_with_a_right_one(right: int) -> None:
    answers = [True] * right + [False] * (5 - right)
    for k in range(1, 6):
        chosen = list(combinations(answers, k))
        assert pass_at(k, 5, right) == pytest.approx(sum(map(any, chosen)) / len(chosen))


@pytest.mark.parametrize(
    "samples, names",
    [
        (0, ["accuracy", "length"]),
        (1, ["accuracy", "length"]),
        (2, ["accuracy, avg@2", "length", "pass@2"]),
        (6, ["accuracy, avg@6", "length", "pass@2", "pass@4", "pass@6"]),
        (8, ["accuracy, avg@8", "length", "pass@2", "pass@4", "pass@8"]),
    ],
)
def test_metrics_of_several_answers_say_how_many(samples: int, names: Sequence[str]) -> None:
    metrics: Any = (Metric("correct", "accuracy", 1.0), Metric("length", "length", 9.0))
    assert [metric.title for metric in sampled_metrics(metrics, samples)] == names
    assert sampled_metrics((), samples) == ()
