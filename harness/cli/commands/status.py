"""``kvgauge status``: which cells are complete, which workers are running, and what needs attention."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli.commands import add_results_path
from harness.results import Cell
from harness.store.cells import scores_lack
from harness.store.locks import at_work
from harness.store.places import cells_of_task, find_cells
from harness.store.records import read_records
from harness.store.run_log import RunLine, read_runs
from harness.text import plain

HELP = "Tell which cells of a results folder are whole, who is at work on them, and what lies still."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare a results folder or a part of one."""
    add_results_path(parser)


@dataclass(frozen=True)
class _CellState:
    """The state of a cell.

    Attributes:
        cell: the cell.
        examples: number of examples with a record.
        expected: number of examples that it should have.
        errors: number of records that are errors.
        lacks: what is missing, in words; "" if nothing is.
    """

    cell: Cell
    examples: int
    expected: int
    errors: int
    lacks: str


@dataclass(frozen=True)
class _WorkerState:
    """The state of a worker.

    Attributes:
        run: the last line of its last run.
        state: outcome of that run; for one that has not ended ``running``, ``gone`` (killed) or ``unknown``.
        records: number of records in its files.
        examples_per_minute: speed of that run; 0 if unknown.
        written: time of its last write, in seconds since 1970; 0 if it wrote nothing.
    """

    run: RunLine
    state: str
    records: int
    examples_per_minute: float
    written: float


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Print tables of cells and workers, then one line for everything that needs attention.

    Raises:
        StoreError: there are no results, or a manifest or records cannot be read.
    """
    if not console.is_terminal:
        console.width = 160  # a file or pipe has no width to wrap at
    places = find_cells(arguments.path)
    findings = [f"left out: {one.reason}" for one in places.left_out]
    cells, workers = (
        _table("task", "cell", "examples", "errors", "state"),
        _table("task", "worker", "state", "records", "examples/min", "last write"),
    )
    for folder in sorted({folder.parent for folder in places.manifests}):
        runs = read_runs(folder)
        name = f"{folder.parent.name}/{folder.name}"
        states = _cells(folder, runs)
        worker_states = _workers(folder, runs)
        for row in _cell_rows(states):
            cells.add_row(*map(_shown, (name, *row)))
        for worker in worker_states:
            rate = f"{worker.examples_per_minute:.1f}" if worker.examples_per_minute else "–"
            last = f"{_ago(time.time() - worker.written)} ago" if worker.written else "–"
            workers.add_row(*map(_shown, (name, _who(worker.run), worker.state, str(worker.records), rate, last)))
        findings += _findings(name, folder, states, worker_states)
    console.print(cells)
    if workers.row_count:
        console.print()
        console.print(workers)
    console.print()
    for line in findings or ["everything is whole"]:
        console.print(plain(f"- {line}" if findings else line), markup=False, soft_wrap=True)


def _cells(folder: Path, runs: Sequence[RunLine]) -> list[_CellState]:
    manifests = cells_of_task(folder)
    records = {path: read_records(path) for path in manifests}
    known = len({example for by_id in records.values() for example in by_id})
    states = []
    for path, manifest in sorted(manifests.items(), key=lambda item: item[1].place):
        asked = max((run.examples for run in runs if path.name in run.cells), default=0)
        by_id, expected = records[path], max(asked, known)
        if not by_id:
            lacks = "no records"
        elif len(by_id) < expected:
            lacks = "partial"
        else:
            lacks = scores_lack(path, by_id)
        errors = sum(record.error is not None for record in by_id.values())
        states.append(_CellState(manifest.cell, len(by_id), expected, errors, lacks))
    return states


def _workers(folder: Path, runs: Sequence[RunLine]) -> list[_WorkerState]:
    paths = list(cells_of_task(folder))
    seen = [at_work(path) for path in paths]
    active = {worker for workers in seen if workers is not None for worker in workers}
    states = []
    for run in {run.worker: run for run in runs}.values():
        files = [file for path in paths if (file := path / f"records.{run.worker}.jsonl").is_file()]
        records = sum(file.read_bytes().count(b"\n") for file in files)
        written = max((file.stat().st_mtime for file in files), default=0.0)
        state: str = run.outcome
        if state == "running" and run.worker not in active:
            state = "unknown" if None in seen else "gone"
        seconds, examples = run.seconds, run.records / max(1, len(run.cells))
        if run.outcome == "running":
            seconds, examples = written - run.start_seconds, (records - run.records_before) / max(1, len(run.cells))
        rate = 60 * examples / seconds if seconds > 0 and examples > 0 else 0.0
        states.append(_WorkerState(run, state, records, rate, written))
    return states


def _cell_rows(states: Sequence[_CellState]) -> list[tuple[str, str, str, str]]:
    """One row for each cell that is incomplete or has errors, and one for all others together."""
    rows = []
    if whole := [state for state in states if not state.lacks and not state.errors]:
        name = whole[0].cell.name if len(whole) == 1 else f"{len(whole)} cells"
        rows.append((name, f"{whole[0].examples} of {whole[0].expected}", "0", "whole"))
    for state in states:
        if state.lacks or state.errors:
            rows.append(
                (
                    state.cell.name,
                    f"{state.examples} of {state.expected}",
                    str(state.errors),
                    state.lacks or "with errors",
                )
            )
    return rows


def _findings(name: str, folder: Path, states: Sequence[_CellState], workers: Sequence[_WorkerState]) -> list[str]:
    """One line, with fact and remedy, for everything that needs attention."""
    lines = []
    for worker in workers:
        if worker.state in ("gone", "stopped", "failed") and any(
            state.lacks in ("partial", "no records") for state in states
        ):
            what = {"gone": "was killed", "stopped": "was stopped", "failed": "failed"}[worker.state]
            run = worker.run
            lines.append(
                f"{name}: {_who(run)} {what} (pid {run.pid} on {run.host}): the same command again goes on from there"
            )
    running = [worker for worker in workers if worker.state in ("running", "unknown")]
    partial = [state.cell.name for state in states if state.lacks in ("partial", "no records")]
    if partial and not running and not lines:
        lines.append(f"{name}: nobody is at work on {_some(partial)}: the same command again goes on")
    if unscored := [state.cell.name for state in states if "scores" in state.lacks and not running]:
        lines.append(
            f"{name}: {_some(unscored)} without scores of all records: the same command again, or kvgauge score "
            f"{folder}"
        )
    if failed := [state.cell.name for state in states if state.errors]:
        lines.append(f"{name}: errors in {_some(failed)}: retry_errors=true with the same command computes them again")
    return lines


def _shown(value: str) -> Text:
    return Text(plain(value))


def _who(run: RunLine) -> str:
    return f"shard {run.worker.replace('of', ' of ')}" if "of" in run.worker else f"run {run.worker}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, show_edge=False)
    for header in headers:
        table.add_column(
            header, justify="right" if header in ("examples", "errors", "records", "examples/min") else "left"
        )
    return table
