"""Heatmaps as numbers: axes in order, means over results, and panels in rows of methods."""

from __future__ import annotations

import numpy as np
from msgspec import structs

from harness.report.stats.heatmap import heatmap_of, panel_rows
from harness.results import Cell, CellResult, Record, TaskResult
from harness.task import Metric

METRIC = Metric("m", "match", 10.0)


def record(name: str, length: int, depth: int, score: float | None) -> Record:
    record = Record(name, {"length": length, "depth": depth}, ("a",), {}, 100, None)
    return structs.replace(record, error="no") if score is None else structs.replace(record, scores={"m": score})


def result(*records: Record, metrics: tuple[Metric, ...] = (METRIC,)) -> TaskResult:
    cells = (CellResult(Cell("h2o", "64"), len(records), records),)
    return TaskResult("model", "task", metrics, ("length", "depth"), "", cells, None)


def test_shares_are_means_over_results_and_missing_where_there_is_none() -> None:
    records = [
        record("a", 1000, 0, 10.0),
        record("b", 500, 0, 4.0),
        record("c", 500, 0, 6.0),
        record("d", 500, 50, None),
    ]
    shown = heatmap_of(result(*records))
    assert shown is not None
    assert (shown.across, shown.down) == ("prompt tokens requested", "depth %")
    assert (shown.columns, shown.rows) == ([500, 1000], [0, 50])
    np.testing.assert_array_equal(shown.shares[Cell("h2o", "64")], [[0.5, 1.0], [np.nan, np.nan]])


def test_there_is_none_without_scores_or_records() -> None:
    assert heatmap_of(result()) is None
    assert heatmap_of(result(record("a", 500, 0, 1.0), metrics=())) is None


def test_methods_are_rows_and_the_full_cache_stands_first() -> None:
    names = [Cell("h2o", "64"), Cell("fullkv", "full"), Cell("h2o", "128"), Cell("snapkv", "128")]
    rows = panel_rows([CellResult(name, 0, ()) for name in names])
    shown = [[None if cell is None else cell.cell.name for cell in row] for row in rows]
    assert shown == [["fullkv-full", None], ["h2o-64", "h2o-128"], [None, "snapkv-128"]]
