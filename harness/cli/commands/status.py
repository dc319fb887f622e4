"""``kvgauge status``: what of a results folder is whole, who is at work, what lies still, and what to do about it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.results import Cell
from harness.store.cells import scores_lack
from harness.store.locks import at_work
from harness.store.manifest import read_manifest
from harness.store.reader import cell_folders
from harness.store.records import read_records
from harness.store.run_log import RunLine, read_runs
from harness.text import plain

HELP = "Tell which cells of a results folder are whole, who is at work on them, and what lies still."


def arguments(parser: argparse.ArgumentParser) -> None:
    """A results folder, or a part of one."""
    parser.add_argument(
        "path",
        nargs="?",
        type=Path,
        default=Path("results"),
        help="a results folder, a model's, or a task's (default: results)",
    )


@dataclass(frozen=True)
class _CellState:
    """What is known of a cell: examples with a record, of how many, how many of those are errors, and what it lacks."""

    cell: Cell
    examples: int
    expected: int
    errors: int
    lacks: str


@dataclass(frozen=True)
class _WorkerState:
    """What is known of a worker: its last run, records in its files, examples per minute in that run, and its last write."""

    run: RunLine
    state: str
    records: int
    examples_per_minute: float
    written: float


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Print tables of cells and workers, then one line for each thing that needs a hand.

    Raises:
        StoreError: there are no results, or a manifest or records cannot be read.
    """
    if not console.is_terminal:
        console.width = 160  # a file has no edge to wrap at
    folders = sorted({folder.parent for folder in cell_folders(arguments.path)})
    findings: list[str] = []
    cells, workers = (
        _table("task", "cell", "examples", "errors", "state"),
        _table("task", "worker", "state", "records", "examples/min", "last write"),
    )
    for folder in folders:
        runs = read_runs(folder)
        name = f"{folder.parent.name}/{folder.name}"
        states = _cells(folder, runs)
        found = _workers(folder, runs)
        for row in _cell_rows(states):
            cells.add_row(*map(_shown, (name, *row)))
        for of in found:
            rate = f"{of.examples_per_minute:.1f}" if of.examples_per_minute else "–"
            last = f"{_ago(time.time() - of.written)} ago" if of.written else "–"
            workers.add_row(*map(_shown, (name, _who(of.run), of.state, str(of.records), rate, last)))
        findings += _findings(name, folder, states, found)
    console.print(cells)
    if workers.row_count:
        console.print()
        console.print(workers)
    console.print()
    for line in findings or ["everything is whole"]:
        console.print(plain(f"- {line}" if findings else line), markup=False, soft_wrap=True)


def _cells(folder: Path, runs: Sequence[RunLine]) -> list[_CellState]:
    manifests = {path: read_manifest(path) for path in cell_folders(folder)}
    records = {path: read_records(path) for path in manifests}
    known = len({example for of in records.values() for example in of})
    states = []
    for path, manifest in sorted(manifests.items(), key=lambda item: item[1].place if item[1] else 0):
        assert manifest is not None
        asked = max((run.examples for run in runs if path.name in run.cells), default=0)
        of, expected = records[path], max(asked, known)
        lacks = ""
        if not of:
            lacks = "no records"
        elif len(of) < expected:
            lacks = "partial"
        else:
            lacks = scores_lack(path, of)
        states.append(
            _CellState(manifest.cell, len(of), expected, sum(record.error is not None for record in of.values()), lacks)
        )
    return states


def _workers(folder: Path, runs: Sequence[RunLine]) -> list[_WorkerState]:
    paths = cell_folders(folder)
    seen = [at_work(path) for path in paths]
    active = {worker for workers in seen if workers is not None for worker in workers}
    found = []
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
        found.append(_WorkerState(run, state, records, rate, written))
    return found


def _cell_rows(states: Sequence[_CellState]) -> list[tuple[str, str, str, str]]:
    """A row for every cell that is not whole, and one for all that are."""
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
    """One line for each thing that needs a hand: fact, remedy."""
    lines = []
    for of in workers:
        if of.state in ("gone", "stopped", "failed") and any(
            state.lacks in ("partial", "no records") for state in states
        ):
            what = {"gone": "was killed", "stopped": "was stopped", "failed": "failed"}[of.state]
            lines.append(
                f"{name}: {_who(of.run)} {what} (pid {of.run.pid} on {of.run.host}): the same command again goes on "
                "from there"
            )
    running = [of for of in workers if of.state in ("running", "unknown")]
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
