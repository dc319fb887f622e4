"""Means of scores: what tables print is what LongBench's code publishes, to the last digit."""

from __future__ import annotations

import math
from collections.abc import Callable
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from harness.report.stats.bootstrap import TaskDraws, summarize
from harness.report.stats.means import mean, part_mean, score_mean
from harness.report.stats.summary import score
from harness.report.stats.table import breakdown
from harness.report.task_tables import print_table
from harness.results import Cell, CellResult, Record, TaskResult
from harness.task import Metric

CELL = Cell("snapkv", "64")
METRIC = Metric("m", "m", 1.0)
# Added up in order they make 61.87, and exactly added, or by numpy, 61.875, which is printed as 61.88.
SCORES = (0.025, 0.95, 0.875, 0.75, 0.05, 0.95, 0.8, 0.55)


def result(*scores: float | None) -> TaskResult:
    """One cell; a record of which the score is None has none."""
    records = tuple(
        Record(str(place), {"bucket": "a"}, (), {}, 10, "00", scores={} if value is None else {"m": value})
        for place, value in enumerate(scores)
    )
    return TaskResult("model", "task", (METRIC,), None, "", (CellResult(CELL, len(scores), records),), "bucket")


def rows(of: TaskResult) -> list[list[str]]:
    """The printed lines of the cell: that of the table, then that of the breakdown."""
    out = StringIO()
    print_table(of, Console(file=out, width=300))
    return [line.split() for line in out.getvalue().splitlines() if line.startswith(CELL.label)]


def official(scores: tuple[float, ...]) -> float:
    total = 0.0
    for value in scores:
        total += value
    return round(100 * total / len(scores), 2)


def test_a_table_prints_the_sum_in_order_as_longbench_does() -> None:
    assert official(SCORES) == 61.87 != round(100 * math.fsum(SCORES) / 8, 2)
    assert rows(result(*SCORES))[0][:3] == ["snapkv", "64", "61.87"]


def test_a_part_is_rounded_by_numpy_as_longbench_e_does() -> None:
    assert float(round(100 * np.mean([0.02675]), 2)) == 2.68 != round(2.675, 2)
    assert rows(result(0.02675))[1] == ["snapkv", "64", "2.68"]


def test_values_of_several_keys_stand_beside_each_other_under_their_keys() -> None:
    records = tuple(
        Record(str(place), group, (), {}, 10, "00", scores={"m": score})
        for place, (group, score) in enumerate(
            [
                ({"side": "left", "size": 2}, 1.0),
                ({"side": "right", "size": 2}, 0.0),
                ({"side": "left", "size": 10}, 0.5),
            ]
        )
    )
    of = TaskResult("model", "task", (METRIC,), None, "", (CellResult(CELL, 3, records),), "side,size")
    table = breakdown(of)
    assert table["part"].tolist() == ["side left", "side right", "size 2", "size 10"]
    assert table["score"].tolist() == [75.0, 0.0, 50.0, 50.0] and table["n"].tolist() == [2, 1, 2, 1]
    assert rows(of)[1] == ["snapkv", "64", "75.00", "0.00", "50.00", "50.00"]


def test_a_result_without_a_score_makes_the_mean_missing_wherever_it_is_made() -> None:
    whole = result(1.0, None, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert math.isnan(score(whole.cells[0], METRIC))
    assert all(map(math.isnan, summarize(TaskDraws(whole).score(CELL))))
    assert (
        math.isnan(mean([1.0, None]))
        and math.isnan(score_mean([1.0, None], 1.0))
        and math.isnan(part_mean([1.0, None], 1.0))
    )


@pytest.mark.parametrize("made", [lambda: mean([]), lambda: score_mean([], 1.0), lambda: part_mean([], 1.0)])
def test_the_mean_of_nothing_is_missing(made: Callable[[], float]) -> None:
    assert math.isnan(made())


def test_scores_of_another_maximum_are_put_on_100() -> None:
    assert score_mean([8.0, 4.0], 10.0) == part_mean([8.0, 4.0], 10.0) == 60.0
