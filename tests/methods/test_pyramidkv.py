"""PyramidKV's schedule against the published code's and against its own promises."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.errors import BudgetError, ConfigError
from methods.pyramidkv import PyramidKV
from tests.harness.counts import keep_of

PUBLISHED = json.loads((Path(__file__).parents[1] / "golden/pyramid_budgets_q7500_w8.json").read_text())


def make(schedule: Any, window: int = 8, beta: int = 20) -> PyramidKV:
    return PyramidKV("p", window, 7, "maxpool", beta, schedule)


@pytest.mark.parametrize("layers", [1, 2, 3, 6, 31, 32, 80])
@pytest.mark.parametrize("budget", [9, 10, 17, 64, 128, 2048])
@pytest.mark.parametrize("prompt", [8, 64, 111, 112, 113, 128, 240, 242, 7500])
def test_the_exact_schedule_spends_exactly_the_budget_and_never_rises(layers: int, budget: int, prompt: int) -> None:
    keep = keep_of(make("exact"), budget, prompt, layers)
    assert sum(keep) == min(budget, prompt) * layers
    assert list(keep) == sorted(keep, reverse=True)
    assert max(keep) <= prompt
    assert min(keep) >= min(8, prompt)


@pytest.mark.parametrize("layers", [2, 3, 6, 31, 32, 80])
@pytest.mark.parametrize("budget", [9, 10, 17, 64, 128, 2048])
@pytest.mark.parametrize("prompt", [8, 64, 111, 112, 113, 128, 240, 242, 7500])
def test_both_schedules_begin_alike_and_the_reference_one_never_spends_less(
    layers: int, budget: int, prompt: int
) -> None:
    reference, exact = (keep_of(make(schedule), budget, prompt, layers) for schedule in ("reference", "exact"))
    assert reference[0] == exact[0]
    assert sum(reference) >= sum(exact)
    assert list(reference) == sorted(reference, reverse=True)
    assert max(reference) <= prompt


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_reference_schedule_equals_the_published_one_in_every_layer(name: str) -> None:
    golden = PUBLISHED[name]
    layers, budget = map(int, re.findall(r"\d+", name))
    keep = keep_of(make("reference"), budget, 7500, layers)
    assert [entries - 8 for entries in keep] == golden["topk"]
    assert sum(keep) == golden["total_per_head"]


@pytest.mark.parametrize(
    ("prompt", "first", "last"),
    [
        (127, 127, 127),
        (128, 128, 128),
        (129, 128, 128),
        (239, 128, 128),
        (240, 240, 23),
        (242, 242, 25),
        (243, 242, 25),
        (10**6, 242, 25),
    ],
)
def test_the_reference_schedule_turns_where_the_published_one_does(prompt: int, first: int, last: int) -> None:
    keep = keep_of(make("reference"), 128, prompt, 32)
    assert (keep[0], keep[-1]) == (first, last)


def test_the_reference_schedule_spends_up_to_27_percent_more() -> None:
    cells = [(32, 64), (32, 128), (80, 64), (80, 128)]
    spent = [sum(keep_of(make("reference"), budget, 7500, layers)) / (layers * budget) for layers, budget in cells]
    assert [round(value, 3) for value in spent] == [1.117, 1.043, 1.227, 1.273]


@pytest.mark.parametrize("schedule", ["reference", "exact"])
def test_one_layer_gets_the_budget(schedule: str) -> None:
    assert list(keep_of(make(schedule), 64, 200, 1)) == [64]


@pytest.mark.parametrize("budget", [1, 7, 8])
def test_a_budget_that_leaves_nothing_to_choose_is_refused(budget: int) -> None:
    with pytest.raises(
        BudgetError,
        match=f"budget={budget} is not above window=8 .method=p.: use budget>=9 or a smaller window",
    ):
        keep_of(make("reference"), budget, 100, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": 0}, "beta=0 is not a whole number"),
        ({"beta": 1.5}, "beta=1.5 is not a whole number"),
        ({"schedule": "linear"}, "schedule=linear is unknown"),
        ({"window": 0}, "window=0 is not a whole number"),
        ({"window": True}, "window=True is not a whole number"),
        ({"kernel": 0}, "kernel=0 is not a whole number"),
        ({"pooling": "mean"}, "pooling=mean is unknown"),
    ],
)
def test_a_knob_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    knobs: dict[str, Any] = {
        "label": "p",
        "window": 8,
        "kernel": 7,
        "pooling": "maxpool",
        "beta": 20,
        "schedule": "exact",
    }
    with pytest.raises(ConfigError, match=message):
        PyramidKV(**{**knobs, **changes})
