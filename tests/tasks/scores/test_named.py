"""Metrics by their names."""

from __future__ import annotations

import pytest

from harness.errors import ConfigError
from tasks.scores.named import NAMES, named_metrics, named_scores, named_settings, unscorable
from tasks.scores.rouge_l import rouge_l, rouge_score_f
from tasks.scores.text import qa_f1, qa_f1_zh, rouge_l_zh

ONE, TWO = "the harbour master sold a red lantern", "a lantern of the harbour"
CHOICES = ("a red lantern", "a boat")


def test_every_metric_gives_its_best_over_the_references() -> None:
    names = [name for name in NAMES if name != "number"]
    scores = named_scores(names, ONE, [TWO, ONE], CHOICES)
    assert list(scores) == names
    assert scores == {**{name: pytest.approx(1.0) for name in names}, "choice": 0.0}
    assert named_scores(["choice"], "a boat, surely", ["a boat"], CHOICES) == {"choice": 1.0}
    assert named_scores(["number"], "about 12", ["11", "12.0"]) == {"number": 1.0}
    assert named_scores(["f1"], ONE, []) == {"f1": 0.0}


def test_no_metric_is_written_twice() -> None:
    scores = named_scores(NAMES, ONE, [TWO], CHOICES)
    assert scores["f1"] == qa_f1(ONE, TWO) and scores["f1_zh"] == qa_f1_zh(ONE, TWO)
    assert scores["rouge_l"] == rouge_l(ONE, TWO) and scores["rouge_l_zh"] == rouge_l_zh(ONE, TWO)
    for name, value in rouge_score_f(ONE, TWO, ("rouge1", "rouge2", "rougeL", "rougeLsum")).items():
        assert scores[f"rouge_score_{name}"] == value > 0


def test_the_metric_to_show_comes_first() -> None:
    assert [metric.name for metric in named_metrics(["contains", "f1", "number"], "f1")] == ["f1", "contains", "number"]
    assert [metric.name for metric in named_metrics(["contains", "f1"], None)] == ["contains", "f1"]
    assert named_metrics([], None) == ()


@pytest.mark.parametrize(
    ("names", "show", "words"),
    [
        ("f1", None, "task.metrics='f1' is not a list"),
        (["rouge-l"], None, "task.metrics has 'rouge-l', which is no metric: did you mean rouge_l?"),
        (["accuracy"], None, "which is no metric: use some of exact_match, contains"),
        ([1], None, "task.metrics has 1, which is no metric"),
        (["f1", "f1"], None, "task.metrics names f1 twice"),
        (["f1"], "contains", "task.show='contains' is not in task.metrics: use one of f1"),
    ],
)
def test_a_list_that_cannot_be_used_is_one_line(names: object, show: object, words: str) -> None:
    with pytest.raises(ConfigError) as told:
        named_metrics(names, show)
    assert words in str(told.value) and "\n" not in str(told.value)


def test_settings_name_the_version_of_jieba_where_it_cuts_words() -> None:
    assert named_settings(["f1", "contains"]) == {"metrics": ["contains", "f1"]}
    assert named_settings(["f1_zh"]).keys() == {"metrics", "jieba"}


@pytest.mark.parametrize(
    ("names", "reference", "what"),
    [
        (["regex"], "(", "is no regular expression"),
        (["number"], "many", "names no number"),
        (["f1", "choice"], "a bear", "is none of the choices"),
    ],
)
def test_a_reference_that_a_metric_cannot_score_is_named(names: list[str], reference: str, what: str) -> None:
    assert what in (unscorable(names, reference, CHOICES) or "")
    assert unscorable(["f1", "contains"], reference, CHOICES) is None
