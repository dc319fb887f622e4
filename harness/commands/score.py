"""``kvgauge score``: all scores again, from records alone."""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from harness.aggregate import cell_summary
from harness.build import recorded_tasks
from harness.commands.report import rebuild
from harness.errors import StoreError
from harness.reader import read_grids
from harness.schema import Example, Manifest, Record
from harness.store import CellWriter
from harness.task import Task

NAME = "score"
HELP = "Score the records of a results folder again, without a model and without data, and write its report again."


def arguments(parser: argparse.ArgumentParser) -> None:
    """A results folder, or a part of one."""
    parser.add_argument(
        "path", nargs="?", type=Path, default=Path("results"), help="a results folder, a model's, or a task's (default: results)"
    )


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Every cell at or below the path.

    Raises:
        KvgaugeError: there are no results, or a cell's task cannot be made.
    """
    total = changed = 0
    for grid in read_grids(arguments.path):
        for cell in grid.result.cells:
            manifest, folder = grid.manifests[cell.cell], grid.folders[cell.cell]
            task = _task(manifest, folder)
            again = [rescored(record, task) for record in cell.records]
            different = [new for new, old in zip(again, cell.records, strict=True) if new.scores != old.scores]
            with closing(CellWriter(folder, manifest)) as writer:
                if different:
                    writer.append(different)
                writer.finish(cell_summary(replace(cell, records=tuple(again)), grid.result.metrics))
            total += len(again)
            changed += len(different)
    rebuild(arguments.path, arguments.path / "report", console)
    console.print(f"scored {total} records again: {changed} changed")


def rescored(record: Record, task: Task) -> Record:
    """A record with the scores that the task gives its text now; an error record as it is."""
    if record.error is not None:
        return record
    example = Example(id=record.example_id, prompt=(), references=tuple(record.references), group=record.group, details=record.details)
    return replace(record, scores=dict(task.score(example, record.text)))


def _task(manifest: Manifest, folder: Path) -> Task:
    tasks, _ = recorded_tasks(manifest.task_config)
    found = next((task for task in tasks if task.name == manifest.task), None)
    if found is None:
        raise StoreError(f"{folder} is of task {manifest.task}, which its configuration does not have: compute the cell again")
    return found
