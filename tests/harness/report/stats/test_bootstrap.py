"""Bootstrap intervals: the mean is the mean, differences are paired, what is missing stays missing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import pytest
from msgspec import structs

from harness.report.stats import bootstrap
from harness.report.stats.bootstrap import TaskDraws, average, summarize
from harness.results import Cell, CellResult, Record, TaskResult
from harness.task import Metric

FULL, OTHER = Cell("fullkv", "full"), Cell("snapkv", "64")


def grid(**scores: Sequence[float | None]) -> TaskResult:
    """Cells ``full`` and ``other`` with one example per score, 0-1; None is an error record."""
    cells = []
    for cell, values in zip((FULL, OTHER), scores.values(), strict=False):
        records = []
        for place, value in enumerate(values):
            record = Record(str(place), {}, (), {}, 10, "00", kept=(10,), retention=1.0)
            records.append(
                structs.replace(record, error="no") if value is None else structs.replace(record, scores={"m": value})
            )
        cells.append(CellResult(cell, len(values), tuple(records)))
    return TaskResult("model", "task", (Metric("m", "m", 1.0),), None, "", tuple(cells), None)


def test_the_value_is_the_mean_and_lies_inside_its_interval() -> None:
    values = np.random.default_rng(0).random(200)
    value, low, high = summarize(TaskDraws(grid(full=values.tolist())).score(FULL))
    assert value == pytest.approx(100 * values.mean())
    assert low < value < high


def test_the_interval_is_as_wide_as_the_theory_says() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    _, low, high = summarize(TaskDraws(grid(full=values.tolist())).score(FULL))
    assert high - low == pytest.approx(2 * 1.96 * 100 * values.std() / math.sqrt(400), rel=0.1)


def test_differences_are_paired_by_example() -> None:
    """Scores that vary widely between examples, always 0.1 apart: the difference is known exactly."""
    values = np.random.default_rng(2).random(50)
    draws = TaskDraws(grid(full=values.tolist(), other=(values - 0.1).tolist()))
    value, low, high = summarize(draws.difference(OTHER, FULL))
    assert (value, low, high) == pytest.approx((-10, -10, -10))


def test_errors_are_left_out_of_means_and_of_pairs() -> None:
    draws = TaskDraws(grid(full=[1.0, 1.0, 0.0, 0.5], other=[None, 0.0, 0.0, 0.5]))
    assert draws.score(OTHER)[0] == pytest.approx(100 * 0.5 / 3)
    assert draws.difference(OTHER, FULL)[0] == pytest.approx(-100 / 3)


@pytest.mark.parametrize(("scores", "value"), [([0.25], 25.0), ([0.25] * 4 + [None], 25.0), ([None], math.nan)])
def test_fewer_than_five_results_have_no_interval(scores: list[float | None], value: float) -> None:
    found, low, high = summarize(TaskDraws(grid(full=scores)).score(FULL))
    assert found == pytest.approx(value, nan_ok=True)
    assert math.isnan(low) and math.isnan(high)


def test_the_same_result_gives_the_same_interval() -> None:
    scores = np.random.default_rng(3).random(30).tolist()
    assert summarize(TaskDraws(grid(full=scores)).score(FULL)) == summarize(TaskDraws(grid(full=scores)).score(FULL))


def test_an_average_is_the_mean_of_the_means_of_its_groups_and_missing_with_a_part() -> None:
    a, b, c = (np.full(2001, value) for value in (10.0, 20.0, 60.0))
    assert average([[a, b], [c]])[0] == pytest.approx((15 + 60) / 2)
    assert math.isnan(average([[a, np.full(2001, math.nan)], [c]])[0])


def test_resamples_taken_in_blocks_are_those_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that numpy draws for all resamples together, as they always were."""
    values = np.random.default_rng(3).random(40)
    result = grid(full=values.tolist(), other=[*values[:30].tolist(), *[None] * 10])
    whole = TaskDraws(result)
    monkeypatch.setattr(bootstrap, "_BLOCK", 40 * 7)
    parts = TaskDraws(result)
    for cell in (FULL, OTHER):
        np.testing.assert_allclose(parts.score(cell), whole.score(cell), rtol=1e-12)
        np.testing.assert_allclose(parts.difference(cell, FULL), whole.difference(cell, FULL), rtol=1e-12, atol=1e-12)
    seed = int.from_bytes(hashlib.sha256(b"task").digest()[:8], "little")
    chosen = np.random.default_rng(seed).integers(0, 40, (bootstrap.RESAMPLES, 40))
    np.testing.assert_allclose(whole.score(FULL)[1:], 100 * values[chosen].mean(axis=1), rtol=1e-12)
