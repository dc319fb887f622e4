"""Results from disk: what was computed, without a model and without the task's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.budget import parse_budget
from harness.build import build_task
from harness.errors import StoreError
from harness.schema import Cell, CellResult, Manifest, Metric, SuiteResult, TaskResult
from harness.store import read_manifest, read_records


@dataclass(frozen=True)
class Grid:
    """The cells of one model and task on disk.

    Attributes:
        result: what they hold. Every example that any cell has is expected of all of them.
        manifests: what each cell is.
        folders: where each cell lies.
    """

    result: TaskResult
    manifests: Mapping[Cell, Manifest]
    folders: Mapping[Cell, Path]

    @property
    def task_config(self) -> Mapping[str, Any]:
        """The task's configuration, as the first cell has it."""
        return next(iter(self.manifests.values())).task_config


def read_grids(path: Path) -> list[Grid]:
    """The grids at or below a folder, one per model and task; cells in the order of the grids that began them.

    Raises:
        StoreError: there is none, or one cannot be read.
    """
    by_task: dict[Path, list[Path]] = {}
    for manifest in sorted(path.rglob("manifest.json")):
        by_task.setdefault(manifest.parent.parent, []).append(manifest.parent)
    if not by_task:
        raise StoreError(f"{path} holds no cell (no manifest.json at or below it): give a results folder, or run something first")
    return [_read_grid(folders) for folders in by_task.values()]


def suites(grids: Sequence[Grid]) -> list[SuiteResult]:
    """The suites that grids belong to, one per model and suite, with the cells that all of their tasks have.

    Raises:
        StoreError: tasks of a suite have no cell in common.
    """
    by_suite: dict[tuple[str, str], list[Grid]] = {}
    for grid in grids:
        if grid.task_config["name"] != grid.result.task:
            by_suite.setdefault((grid.result.model, grid.task_config["name"]), []).append(grid)
    return [_suite(name, parts) for (_, name), parts in by_suite.items()]


def _read_grid(folders: Sequence[Path]) -> Grid:
    found = {folder: read_manifest(folder) for folder in folders}
    cells = sorted(((manifest, folder) for folder, manifest in found.items() if manifest is not None), key=lambda cell: _place(cell[0]))
    records = {manifest.cell: read_records(folder) for manifest, folder in cells}
    examples = list(dict.fromkeys(name for of in sorted(records.values(), key=len, reverse=True) for name in of))
    first = cells[0][0]
    result = TaskResult(
        model=first.model,
        task=first.task,
        metrics=tuple(Metric(**metric) for metric in first.metrics),
        heatmap_axes=None if first.heatmap_axes is None else (first.heatmap_axes[0], first.heatmap_axes[1]),
        note=first.note,
        cells=tuple(CellResult(cell, len(examples), tuple(of[name] for name in examples if name in of)) for cell, of in records.items()),
        breakdown=first.breakdown,
    )
    return Grid(result, {manifest.cell: manifest for manifest, _ in cells}, {manifest.cell: folder for manifest, folder in cells})


def _place(manifest: Manifest) -> tuple[int, str, bool, float]:
    """By the grid that began the cell; cells of several grids that stood at the same place by method and budget."""
    budget = parse_budget(manifest.cell.budget)
    size = budget.tokens if budget.tokens is not None else budget.share or 0
    return (manifest.place, manifest.cell.label, budget.tokens is None, float(size))


def _suite(name: str, parts: Sequence[Grid]) -> SuiteResult:
    _, suite = build_task(parts[0].task_config)
    assert suite is not None
    model = parts[0].result.model
    common = [cell for cell in parts[0].manifests if all(cell in part.manifests for part in parts)]
    if not common:
        raise StoreError(f"the tasks of {name} on {model} have no (method, budget) in common: run the missing ones")
    tasks = {
        part.result.task: replace(part.result, cells=tuple(cell for cell in part.result.cells if cell.cell in common)) for part in parts
    }
    names = suite.ordered(list(tasks))
    return SuiteResult(model, name, tuple(tasks[name] for name in names), tuple(suite.averages(names)))
