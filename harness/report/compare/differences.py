"""Our numbers beside published ones: differences, our intervals, and whether the published number lies inside.

A cell of ours is held against the published method that its class is called, not its label. What is missing on either
side stays missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.compression.budget import FULL, parse_budget
from harness.errors import ConfigError
from harness.report.compare.published import AVERAGE, Number, Table, columns
from harness.report.stats.bootstrap import NONE, Floats, TaskDraws, average, summarize
from harness.report.stats.means import mean
from harness.report.stats.summary import full_cache
from harness.results import Cell, CellResult, Record
from harness.store.reader import Grid

RAW = "raw"
"""The column of ours that is not in percent of the full cache, beside one that is."""


@dataclass(frozen=True)
class Contrast:
    """One number of ours and one of theirs.

    Attributes:
        ours: with ``low`` and ``high``, its interval; NaN where there is none.
        theirs: None where there is none.
        n: our results.
        errors: our error records.
        expected: the examples asked for.
        published: the examples that the published number goes over; 0 where that is not known.
    """

    ours: float
    low: float
    high: float
    theirs: Number | None
    n: int = 0
    errors: int = 0
    expected: int = 0
    published: int = 0

    @property
    def is_trial(self) -> bool:
        """Whether ours goes over fewer examples than theirs, or over more."""
        return self.published > 0 and self.n + self.errors != self.published

    @property
    def difference(self) -> float:
        """Ours minus theirs; NaN where one is missing."""
        return self.ours - self.theirs.value if self.theirs else math.nan

    @property
    def verdict(self) -> str:
        """Whether theirs is ``inside`` our interval or ``outside``, both ends included, as rounded as it is printed.

        Of a trial, ``trial: 2 of 200`` or ``more: 320 of 200``; "" where a number or the interval is missing.
        """
        if self.theirs is None or not math.isfinite(self.ours):
            return ""
        if self.is_trial:
            return f"{'trial' if self.n + self.errors < self.published else 'more'}: {self.n} of {self.published}"
        if not math.isfinite(self.low):
            return ""
        return "inside" if round(self.low, 2) <= self.theirs.value <= round(self.high, 2) else "outside"


@dataclass(frozen=True)
class ComparedMethod:
    """One method and budget.

    Attributes:
        method: as published.
        budget: as we write it.
        cell: ours, or None.
        numbers: ours and theirs, by column.
        retention: mean over our results, 0-1; NaN where it is not known.
    """

    method: str
    budget: str
    cell: Cell | None
    numbers: Mapping[str, Contrast]
    retention: float


@dataclass(frozen=True)
class Comparison:
    """A published table with ours beside it.

    Attributes:
        ours: our model.
        theirs: the published one.
        suite: the label of our results.
        table: the published table.
        titles: what the columns are called, in their order, by their names.
        rows: by budget, the full cache first, and in the table's order of methods.
        grids: ours, by column.
        left_out: tasks of ours that the table does not have.
    """

    ours: str
    theirs: str
    suite: str
    table: Table
    titles: Mapping[str, str]
    rows: tuple[ComparedMethod, ...]
    grids: Mapping[str, Grid]
    left_out: tuple[str, ...]


def compare(grids: Sequence[Grid], table: Table, model: str) -> Comparison:
    """Hold the grids of one of our models and suites against a published table.

    Args:
        grids: ours, each with the metric of the table.
        table: of the suite.
        model: the published one.
    """
    grids = [_with_metric(grid, table.metric) for grid in grids]
    theirs = table.of(model)
    there = {dataset for numbers in theirs.values() for dataset in numbers}
    titles = {dataset: title for dataset, title in columns(table.suite).items() if dataset in there}
    by_dataset = {dataset_of(grid, titles): grid for grid in grids}
    ours = {dataset: by_dataset[dataset] for dataset in titles if dataset in by_dataset}
    draws = {dataset: _Draws(grid, table.scale) for dataset, grid in ours.items()}
    if table.scale != "score":
        metric = next(iter(ours.values())).result.metrics[0]
        titles[RAW] = f"{metric.title} (0-100)"
        draws[RAW] = _Draws(next(iter(ours.values())), "score")
    elif table.average:
        titles[AVERAGE] = table.average
    methods = list(dict.fromkeys(method for method, _ in theirs))
    mine = {(method_of(grid, cell, methods), cell): None for grid in ours.values() for cell in grid.manifests}
    keys: list[tuple[str, str, Cell | None]] = [(method, cell.budget, cell) for method, cell in mine]
    keys += [(*key, None) for key in theirs if key not in {(method, budget) for method, budget, _ in keys}]
    order = methods + [method for method, _, _ in keys if method not in methods]
    keys.sort(key=lambda key: (_size(key[1]), order.index(key[0])))
    rows = tuple(_row(*key, theirs.get(key[:2], {}), titles, draws) for key in keys)
    first = grids[0]
    names = tuple(name for name in by_dataset if name not in titles)
    return Comparison(first.result.model, model, first.task_config["name"], table, titles, rows, ours, names)


def unlike(grids: Sequence[Grid], table: Table) -> str | None:
    """Why grids cannot be held against a table: another boundary, or the first without its metric; None if they can."""
    for grid in grids:
        if grid.result.after != "prompt":
            return (
                f"task {grid.result.task} was made with selection.after={grid.result.after}, and {table.title} after "
                "the whole prompt: compare it with a second results folder"
            )
        recorded = [metric.name for metric in grid.result.metrics]
        if table.metric and table.metric not in recorded:
            return (
                f"task {grid.result.task} records {', '.join(recorded)}, and {table.title} has {table.metric}: compare "
                "it with a second results folder"
            )
    return None


def _with_metric(grid: Grid, name: str) -> Grid:
    """A grid with another headline; as it is if ``name`` is empty."""
    metrics = tuple(sorted(grid.result.metrics, key=lambda metric: bool(name) and metric.name != name))
    return replace(grid, result=replace(grid.result, metrics=metrics))


def dataset_of(grid: Grid, titles: Mapping[str, str]) -> str:
    """The published column of a grid: its task's name within the suite, or the only column there is."""
    suite, task = grid.task_config["name"], grid.result.task
    return next(iter(titles)) if task == suite else task.removeprefix(f"{suite}-")


def method_of(grid: Grid, cell: Cell, published: Sequence[str]) -> str:
    """What a cell's method is called in papers: the name of its class, or the label of an imported cell."""
    name = method_class(grid, cell)
    if name is not None:
        return name
    return next((method for method in published if method.lower() == cell.label.lower()), cell.label)


def method_class(grid: Grid, cell: Cell) -> str | None:
    """The name of a cell's class without its module; None for an imported cell."""
    method = grid.manifests[cell].settings.get("method", {})
    return str(method["class"]).rpartition(".")[2] if "class" in method else None


class _Draws:
    """A column's scores, on the scale of the table, with their resampled means."""

    def __init__(self, grid: Grid, scale: str) -> None:
        self._result = grid.result
        self._draws = TaskDraws(grid.result)
        self.published = grid.result.published or 0
        self.cells = {cell.cell: cell for cell in grid.result.cells}
        self._relative = scale != "score"
        self._full = full_cache(grid.result.cells)

    def of(self, cell: Cell) -> Floats:
        """The value and, behind it, its resamples."""
        if not self._relative:
            return self._draws.score(cell)
        if self._full is None:
            return NONE
        # Over the examples that both have, so that a partial cell stays comparable.
        ours, full = self.cells[cell], self._full
        common = {r.example_id for r in ours.done} & {r.example_id for r in full.done}
        if not common:
            return NONE
        parts = tuple(_only(part, common) for part in ([ours, full] if ours.cell != full.cell else [full]))
        draws = TaskDraws(replace(self._result, cells=parts))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(100 * draws.score(cell) / draws.score(full.cell))


def _only(cell: CellResult, names: set[str]) -> CellResult:
    return replace(cell, records=tuple(r for r in cell.done if r.example_id in names))


def _row(
    method: str,
    budget: str,
    cell: Cell | None,
    theirs: Mapping[str, Number],
    titles: Mapping[str, str],
    draws: Mapping[str, _Draws],
) -> ComparedMethod:
    parts = (
        {name: column.cells[cell] for name, column in draws.items() if cell in column.cells} if cell is not None else {}
    )
    values = {name: draws[name].of(part.cell) for name, part in parts.items()}
    numbers = {}
    for name in titles:
        if name == AVERAGE:
            whole = len(values) == len(titles) - 1
            value, cells = average([[v] for v in values.values()]) if whole else NONE, list(parts.values())
        else:
            value, cells = values.get(name, NONE), [parts[name]] if name in parts else []
        counts = (sum(len(c.done) for c in cells), sum(c.errors for c in cells), sum(c.expected for c in cells))
        published = sum(draws[part].published for part in (parts if name == AVERAGE else [name]) if part in draws)
        numbers[name] = Contrast(*summarize(value), theirs.get(name), *counts, published)
    done: Iterator[Record] = (record for name, part in parts.items() if name != RAW for record in part.done)
    return ComparedMethod(method, budget, cell, numbers, mean(record.retention for record in done))


def _size(budget: str) -> tuple[int, float]:
    """The full cache, then entries, then shares, then ``own``, then what a table does not say."""
    try:
        size = parse_budget(budget)
    except ConfigError:
        return (4, 0.0)
    if size == FULL:
        return (0, 0.0)
    return (size.rank[0] + 1, size.rank[1])
