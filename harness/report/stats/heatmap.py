"""Heatmaps as numbers: a task's headline over its two axes, and how cells are laid out as panels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.compression.budget import parse_budget
from harness.report.format import DASH
from harness.report.stats.means import MISSING
from harness.report.stats.summary import score
from harness.results import Cell, CellResult, TaskResult
from harness.task import Metric
from harness.text import plain

_AXIS_TITLES = {"length": "prompt tokens requested", "depth": "depth %"}


@dataclass(frozen=True)
class Heatmap:
    """The headline of a task, as a share of its maximum.

    Attributes:
        across: what the horizontal axis is called.
        down: what the vertical axis is called.
        columns: values across: numbers by size, then texts.
        rows: values down, likewise.
        shares: of each cell [rows, columns], the mean over results, 0-1; NaN where there is none.
    """

    across: str
    down: str
    columns: Sequence[float | int | str]
    rows: Sequence[float | int | str]
    shares: Mapping[Cell, NDArray[np.float64]]


def heatmap_of(result: TaskResult) -> Heatmap | None:
    """The heatmap of a task; None where it has no axes, no metric or no record."""
    groups = [r.group for cell in result.cells for r in cell.records]
    if not (result.metrics and result.heatmap_axes and groups):
        return None
    across, down = result.heatmap_axes
    columns, rows = (_ordered({group[axis] for group in groups}) for axis in (across, down))
    shares = {
        cell.cell: _pivot(cell, result.metrics[0], across, down)
        .reindex(index=rows, columns=columns)
        .to_numpy(dtype=float)
        for cell in result.cells
    }
    return Heatmap(_axis_title(across), _axis_title(down), columns, rows, shares)


def panel_rows(cells: Sequence[CellResult]) -> list[list[CellResult | None]]:
    """Cells as rows of panels, methods down and budgets across by size; None is an empty place.

    A method with one cell, at a budget no other method has (the full cache), stands in the first row.
    """
    by_label: dict[str, list[CellResult]] = {}
    for cell in cells:
        by_label.setdefault(cell.cell.label, []).append(cell)
    shared = {cell.cell.budget for row in by_label.values() if len(row) > 1 for cell in row}
    singles = [cell for row in by_label.values() if len(row) == 1 for cell in row if cell.cell.budget not in shared]
    budgets = sorted(shared, key=lambda budget: parse_budget(budget).rank)
    wide = len(budgets) or math.ceil(math.sqrt(len(singles)))
    rows: list[list[CellResult | None]] = [
        list(singles[start : start + wide]) for start in range(0, len(singles), wide)
    ]
    for row in rows:
        row += [None] * (wide - len(row))
    for several in by_label.values():
        by_budget = {cell.cell.budget: cell for cell in several if cell not in singles}
        if by_budget:
            rows.append([by_budget.get(budget) for budget in budgets])
    return rows


def mean_title(cell: CellResult, metric: Metric) -> str:
    """A cell's mean as a share of the maximum, and over how many examples if not all."""
    value = score(cell, metric) / 100
    part = "" if len(cell.done) == cell.expected else f" ({len(cell.done)} of {cell.expected})"
    return (f"mean {value:.3f}" if math.isfinite(value) else f"mean {DASH}") + part


def _axis_title(name: str) -> str:
    return _AXIS_TITLES.get(name, plain(name.replace("_", " ")))


def _ordered(values: set[float | int | str]) -> list[float | int | str]:
    return sorted(values, key=lambda value: (isinstance(value, str), value))


def _pivot(cell: CellResult, metric: Metric, across: str, down: str) -> pd.DataFrame:
    records = [(r.group[across], r.group[down], r.scores.get(metric.name, MISSING) / metric.maximum) for r in cell.done]
    frame = pd.DataFrame(records, columns=["across", "down", "value"])
    return frame.pivot_table(index="down", columns="across", values="value", aggfunc="mean")
