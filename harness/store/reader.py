"""Results read from a folder as grids and suites, without a model and without the task's data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.config.recorded import recorded_tasks
from harness.errors import KvgaugeError, StoreError
from harness.results import Cell, CellResult, Manifest, Record, SuiteResult, TaskResult
from harness.store.cells import is_whole
from harness.store.manifest import boundary, check_sibling, writer_of
from harness.store.order import in_order
from harness.store.places import LeftOut, find_cells, left_out_for
from harness.store.records import read_records
from harness.store.rescoring import other_scoring


@dataclass(frozen=True)
class Grid:
    """The cells of one model and task on disk.

    Attributes:
        result: their records; an example that any cell has is expected of every cell.
        manifests: the manifest of each cell.
        folders: the folder of each cell.
    """

    result: TaskResult
    manifests: Mapping[Cell, Manifest]
    folders: Mapping[Cell, Path]

    @property
    def task_config(self) -> Mapping[str, Any]:
        """The task's configuration, as recorded by the first cell."""
        return next(iter(self.manifests.values())).task_config


@dataclass(frozen=True)
class Results:
    """What a results folder or a part of one holds.

    Attributes:
        path: the folder that was read.
        root: the results folder, which can be above the folder that was read.
        grids: one per model and task, each at least one cell.
        left_out: the folders that are not among them.
    """

    path: Path
    root: Path
    grids: Sequence[Grid]
    left_out: Sequence[LeftOut]


def read_results(path: Path, *, skip_broken: bool = False) -> Results:
    """The grids at or below a folder, one per model and task.

    Cells are in the order of ``in_order``. A folder that does not lie where it was written is
    left out, and the note of the grid that it bears the name of says so.

    Args:
        path: a results folder, or the folder of a model, a task or a cell in one.
        skip_broken: whether grids that cannot be read are left out, instead of an error.

    Raises:
        StoreError: there is no cell, or one cannot be read; or as ``find_cells``.
    """
    places = find_cells(path, skip_broken=skip_broken)
    by_task: dict[Path, dict[Path, Manifest]] = {}
    for folder, manifest in places.manifests.items():
        by_task.setdefault(folder.parent, {})[folder] = manifest
    grids, left_out = [], list(places.left_out)
    for folder, manifests in by_task.items():
        task = (folder.parent.name, folder.name)
        try:
            notes = [one.note for one in places.left_out if task in one.tasks]
            grid = _read_grid(manifests, notes, places.partly.keys() & manifests.keys())
            if skip_broken:
                suites([grid])  # raises if its suite cannot be made here, as of a task that is not there any more
            grids.append(grid)
        except KvgaugeError as error:
            if not skip_broken:
                raise
            left_out.append(left_out_for(folder, error, task))
    return Results(path, places.root, grids, left_out)


def suites(grids: Sequence[Grid]) -> list[SuiteResult]:
    """The suites that grids belong to, one per model and suite.

    Every task of a suite gets the same cells; one that it lacks on disk has no records there.
    """
    by_suite: dict[tuple[str, str], list[Grid]] = {}
    for grid in grids:
        if grid.task_config["name"] != grid.result.task:
            by_suite.setdefault((grid.result.model, grid.task_config["name"]), []).append(grid)
    return [_suite(name, members) for (_, name), members in by_suite.items()]


def _read_grid(manifests: Mapping[Path, Manifest], left_out: Sequence[str], partly: Collection[Path]) -> Grid:
    by_cell = {manifest.cell: (manifest, folder) for folder, manifest in manifests.items()}
    cells = [by_cell[cell] for cell in in_order(manifests.values())]
    records: dict[Cell, dict[str, Record]] = {}
    for manifest, folder in cells:
        largest = max(records.values(), key=len, default=None)
        records[manifest.cell] = read_records(folder, largest, known_alone=writer_of(manifest) is not None)
    _check_alike(cells)
    examples = list(
        dict.fromkeys(name for by_name in sorted(records.values(), key=len, reverse=True) for name in by_name)
    )
    first = cells[0][0]
    for cell, by_name in records.items():
        check_axes(f"{first.model}/{first.task}/{cell.name}", first.heatmap_axes, by_name.values())
    result = TaskResult(
        model=first.model,
        task=first.task,
        metrics=first.metrics,
        heatmap_axes=first.heatmap_axes,
        note=" ".join(
            [*([first.note] if first.note else []), *_open_ends(cells), *_strays(left_out), *_others(cells, partly)]
        ),
        cells=tuple(
            CellResult(cell, len(examples), tuple(by_name[name] for name in examples if name in by_name))
            for cell, by_name in records.items()
        ),
        breakdown=first.breakdown,
        published=first.published,
        knobs=tuple(first.task_config),
        after=next((after for manifest, _ in cells if (after := boundary(manifest.settings))), "prompt"),
    )
    return Grid(
        result,
        {manifest.cell: manifest for manifest, _ in cells},
        {manifest.cell: folder for manifest, folder in cells},
    )


def check_axes(cell: str, axes: Sequence[str] | None, records: Iterable[Record]) -> None:
    """Refuse records that have no position in the heatmap of their task.

    Args:
        cell: model, task and name of the cell, for the message.
        axes: names of the heatmap's axes; None if the task has no heatmap.
        records: the cell's records.

    Raises:
        StoreError: names the first record without a value on an axis.
    """
    wanted = set(axes or ())
    if lacking := next((record for record in records if not wanted <= record.group.keys()), None):
        raise StoreError(
            f"example {lacking.example_id!r} in {cell} has no group {min(wanted - lacking.group.keys())!r}, an axis "
            "of its task's heatmap: restore the manifest, or delete the record's line, and the example is computed "
            "again"
        )


def _check_alike(cells: Sequence[tuple[Manifest, Path]]) -> None:
    """Refuse cells that cannot be compared in one table.

    Raises:
        StoreError: names the first setting that differs or, for cells that are merely scored in different ways, the
            command that scores them alike.
    """
    first, folder = cells[0]
    for other, other_folder in cells[1:]:
        try:
            check_sibling(folder, first, other)
        except StoreError as error:
            # A change of scoring first removes a cell's scores, so the cell without them has the new scoring.
            old, new = sorted(((first, folder), (other, other_folder)), key=lambda cell: not is_whole(cell[1]))
            goal = other_scoring(*old, new[0])
            if not goal:
                raise
            words = " ".join(f"--set task.{name}={value}" for name, value in goal.items())
            raise StoreError(
                f"{folder} and {other_folder} are scored in different ways, as after a kvgauge score that was "
                f"stopped: give it again, kvgauge score {folder.parent} {words}"
            ) from error


def _open_ends(cells: Sequence[tuple[Manifest, Path]]) -> list[str]:
    """Sentences for the note under a table that is made from disk: unfinished cells, different selections."""
    unfinished = [manifest.cell.name for manifest, folder in cells if not is_whole(folder)]
    selections = [manifest.settings.get("selection", {}) for manifest, _ in cells]
    selections = [one for one in selections if one.keys() - {"after"}]  # a cell that keeps everything has no more
    notes = (
        [f"Unfinished, so that examples may be missing from all cells: {', '.join(unfinished)}."] if unfinished else []
    )
    return notes + (
        ["The cells differ in selection.*; see their manifests."] if any(s != selections[0] for s in selections) else []
    )


def check_boundaries(results: Sequence[TaskResult]) -> None:
    """Refuse tasks that no average may go over, as entries of some were selected before their question was seen.

    Raises:
        StoreError: names a task of each kind.
    """
    by_boundary = {result.after: result.task for result in reversed(results)}
    if len(by_boundary) > 1:
        raise StoreError(
            f"task {by_boundary['context']} was made with selection.after=context, {by_boundary['prompt']} with "
            "selection.after=prompt, and no average goes over both: keep them in results folders of their own"
        )


def _strays(left_out: Sequence[str]) -> list[str]:
    """A sentence for the same note about folders that were left out."""
    return [f"Left out: {'; '.join(left_out)}."] if left_out else []


def _others(cells: Sequence[tuple[Manifest, Path]], partly: Collection[Path]) -> list[str]:
    """A sentence for the same note about cells of which this version cannot read everything."""
    names = [f"{manifest.cell.name} ({writer_of(manifest)})" for manifest, folder in cells if folder in partly]
    return [f"Written by another version of kvgauge, and read in part: {', '.join(names)}."] if names else []


def _suite(name: str, grids: Sequence[Grid]) -> SuiteResult:
    _, suite = recorded_tasks(grids[0].task_config)
    if suite is None:
        raise StoreError(
            f"the results name {name} as a suite, which is a single task: restore the manifests of "
            f"{grids[0].result.task}"
        )
    check_boundaries([grid.result for grid in grids])
    order = in_order(manifest for grid in grids for manifest in grid.manifests.values())
    tasks = {}
    for grid in grids:
        by_cell = {cell.cell: cell for cell in grid.result.cells}
        expected = grid.result.cells[0].expected
        cells = tuple(by_cell.get(cell, CellResult(cell, expected, ())) for cell in order)
        tasks[grid.result.task] = replace(grid.result, cells=cells)
    names = suite.ordered(list(tasks))
    return SuiteResult(grids[0].result.model, name, tuple(tasks[name] for name in names), tuple(suite.averages(names)))
