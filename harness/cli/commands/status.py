"""``kvgauge status``: which cells are complete, which workers are running, and what needs attention."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli.commands import add_results_path
from harness.printing import say, width_of
from harness.results import Cell, Manifest
from harness.store.cells import scores_lack
from harness.store.locks import at_work, held_elsewhere
from harness.store.manifest import writer_of
from harness.store.order import in_order
from harness.store.places import find_cells
from harness.store.records import read_records
from harness.store.run_log import RunLine, read_runs
from harness.text import plain

_PARTIAL, _EMPTY = "partial", "no records"

HELP = "Tell which cells of a results folder are whole, which are being computed, by whom, and which lie still."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare a results folder or a part of one."""
    add_results_path(parser)


@dataclass(frozen=True)
class _CellState:
    """The state of a cell.

    Attributes:
        cell: the cell.
        examples: number of examples with a record.
        expected: number of examples that it has or that any run with this cell asked for.
        errors: number of records that are errors.
        lacks: what is missing, in words; "" if nothing is.
        workers: names of the workers that are writing it now; None if this user may not look.
        earlier: the run that asked for what is missing, if the last run with this cell did not.
    """

    cell: Cell
    examples: int
    expected: int
    errors: int
    lacks: str
    workers: frozenset[str] | None
    earlier: RunLine | None = None

    @property
    def is_running(self) -> bool:
        """Whether somebody is at work on what it lacks."""
        return bool(self.lacks and self.workers)

    @property
    def is_short(self) -> bool:
        """Whether examples are missing that were asked for."""
        return self.lacks in (_PARTIAL, _EMPTY)


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
    console.width = width_of(console)
    places = find_cells(arguments.path)
    findings = [f"left out: {one.reason}" for one in places.left_out]
    cells, workers = (
        _table("task", "cell", "examples", "errors", "state"),
        _table("task", "worker", "state", "records", "examples/min", "last write"),
    )
    findings += [f"readable in part: {reason}" for reason in places.partly.values()]
    tasks = {
        folder: (
            read_runs(folder),
            {path: manifest for path, manifest in places.manifests.items() if path.parent == folder},
        )
        for folder in {path.parent for path in places.manifests}
    }
    states = {folder: _cells(manifests, runs) for folder, (runs, manifests) in sorted(tasks.items())}
    for folder, own in states.items():
        name = f"{folder.parent.name}/{folder.name}"
        elsewhere = next((f for f in states if f.parent == folder.parent and any(s.workers for s in states[f])), None)
        waits_for = "" if elsewhere in (None, folder) else f"{folder.parent.name}/{elsewhere.name}"
        runs, manifests = tasks[folder]
        worker_states = _workers({manifest.cell.name: path for path, manifest in manifests.items()}, runs, own)
        for row in _cell_rows(own, waits_for):
            cells.add_row(*map(_shown, (name, *row)))
        for worker in worker_states:
            rate = f"{worker.examples_per_minute:.1f}" if worker.examples_per_minute else "–"
            last = f"{_ago(time.time() - worker.written)} ago" if worker.written else "–"
            workers.add_row(*map(_shown, (name, _who(worker.run), worker.state, str(worker.records), rate, last)))
        findings += _findings(name, folder, own, worker_states, waits_for)
        holders = {holder for path in manifests for holder in held_elsewhere(path)}
        findings += [f"{name}: locked by {holder.who}, {holder.remedy}" for holder in sorted(holders, key=str)]
    console.print(cells)
    if workers.row_count:
        console.print()
        console.print(workers)
    console.print()
    for line in findings or ["everything is whole"]:
        say(console, f"- {line}" if findings else line, indent="  ")


def _cells(manifests: Mapping[Path, Manifest], runs: Sequence[RunLine]) -> list[_CellState]:
    records = {
        manifest.cell: (path, read_records(path, known_alone=writer_of(manifest) is not None))
        for path, manifest in manifests.items()
    }
    known = len({example for _, by_id in records.values() for example in by_id})
    states = []
    for cell in in_order(manifests.values()):
        path, by_id = records[cell]
        unscored = scores_lack(path, by_id)
        # Without a line in the log, as of an imported cell, scores say that it is whole.
        unlogged = known if unscored else len(by_id)
        own = [run for run in runs if cell.name in run.cells]
        # Lines of before tell a number and no ids.
        asked = len(by_id.keys() | {example for run in own for example in run.asked})
        expected = max([asked, *(run.examples for run in own)] if own else [unlogged, asked])
        if not by_id:
            lacks = _EMPTY
        elif len(by_id) < expected:
            lacks = _PARTIAL
        else:
            lacks = unscored
        errors = sum(record.error is not None for record in by_id.values())
        at_it = at_work(path)
        asks = [run for run in own if set(run.asked) - by_id.keys() or (not run.asked and run.examples > len(by_id))]
        earlier = asks[-1] if asks and asks[-1] is not own[-1] else None
        states.append(
            _CellState(cell, len(by_id), expected, errors, lacks, None if at_it is None else frozenset(at_it), earlier)
        )
    return states


def _workers(paths: Mapping[str, Path], runs: Sequence[RunLine], cells: Sequence[_CellState]) -> list[_WorkerState]:
    """One state for each run that is its worker's last one at any cell; runs of other cells can be of that name."""
    last = {(run.worker, name): run for run in runs for name in run.cells}
    states = []
    for run in runs:
        if not (mine := [name for name in run.cells if last[run.worker, name] is run]):
            continue
        own = [path for name, path in paths.items() if name in run.cells]
        active = {worker for cell in cells if cell.cell.name in mine for worker in cell.workers or ()}
        files = [file for path in own if (file := path / f"records.{run.worker}.jsonl").is_file()]
        records = sum(file.read_bytes().count(b"\n") for file in files)
        written = max((file.stat().st_mtime for file in files), default=0.0)
        state: str = run.outcome
        if state == "running" and run.worker not in active:
            state = "unknown" if any(cell.workers is None for cell in cells) else "gone"
        seconds, examples = run.seconds, run.records / max(1, len(run.cells))
        if run.outcome == "running":
            seconds, examples = written - run.start_seconds, (records - run.records_before) / max(1, len(run.cells))
        rate = 60 * examples / seconds if seconds > 0 and examples > 0 else 0.0
        states.append(_WorkerState(run, state, records, rate, written))
    return states


def _cell_rows(states: Sequence[_CellState], waits_for: str) -> list[tuple[str, str, str, str]]:
    """One row for each cell that is incomplete or has errors, and one for all others of as many examples."""
    rows = []
    whole: dict[int, list[_CellState]] = {}
    for state in states:
        if not state.lacks and not state.errors:
            whole.setdefault(state.examples, []).append(state)
    for examples, alike in whole.items():
        name = alike[0].cell.name if len(alike) == 1 else f"{len(alike)} cells"
        rows.append((name, f"{examples} of {examples}", "0", "whole"))
    for state in states:
        if state.lacks or state.errors:
            words = [state.lacks or "with errors"]
            if state.is_running:
                words.append("running")
            elif state.is_short:
                words.append("unknown" if state.workers is None else "waiting" if waits_for else "stalled")
            rows.append((state.cell.name, f"{state.examples} of {state.expected}", str(state.errors), ", ".join(words)))
    return rows


def _findings(
    name: str, folder: Path, states: Sequence[_CellState], workers: Sequence[_WorkerState], waits_for: str
) -> list[str]:
    """One line for everything that is not whole, with the remedy if nobody is at work on it."""
    lines = []
    running = [state for state in states if state.is_running]
    if running:
        who = ", ".join(sorted({_who_is(worker) for state in running for worker in state.workers or ()}))
        done, asked = (sum(counts) for counts in zip(*((s.examples, s.expected) for s in running), strict=True))
        lines.append(f"{name}: at work on {_some(running)}: {who} ({done} of {asked} records)")
    short = [state for state in states if state.is_short and not state.is_running]
    hidden = [state for state in short if state.workers is None]
    if hidden:
        lines.append(
            f"{name}: who is at work on {_some(hidden)} cannot be told, as this user may not look at the locks: ask "
            "who started the run"
        )
    stalled = [state for state in short if state.workers is not None]
    if stalled and waits_for:
        lines.append(f"{name}: {_some(stalled)} may be waiting for the run that is at work on {waits_for}")
        stalled = []
    for run in {id(state.earlier): state.earlier for state in stalled if state.earlier is not None}.values():
        lines.append(
            f"{name}: an earlier command asked for more of "
            f"{_some([state for state in stalled if state.earlier is run])}, and again goes on: `{run.command}`"
        )
    stalled = [state for state in stalled if state.earlier is None]
    left = {state.cell.name for state in states if state.is_short and state.earlier is None}
    for worker in workers:
        if worker.state in ("gone", "stopped", "failed") and left.intersection(worker.run.cells):
            what = {"gone": "was killed", "stopped": "was stopped", "failed": "failed"}[worker.state]
            run = worker.run
            lines.append(
                f"{name}: {_who(run)} {what} (pid {run.pid} on {run.host}): the same command again goes on from there"
            )
            stalled = [state for state in stalled if state.cell.name not in run.cells]
    if stalled:
        lines.append(f"{name}: nobody is at work on {_some(stalled)}: the same command again goes on")
    if unscored := [state for state in states if state.lacks and not state.is_short and not state.is_running]:
        lines.append(
            f"{name}: {_some(unscored)} without scores of all records: the same command again, or kvgauge score "
            f"{folder}"
        )
    if failed := [state for state in states if state.errors]:
        lines.append(f"{name}: errors in {_some(failed)}: retry_errors=true with the same command computes them again")
    return lines


def _shown(value: str) -> Text:
    return Text(plain(value))


def _who(run: RunLine) -> str:
    return _who_is(run.worker)


def _who_is(worker: str) -> str:
    return f"shard {worker.replace('of', ' of ')}" if "of" in worker else f"run {worker}"


def _some(states: Sequence[_CellState]) -> str:
    names = [state.cell.name for state in states]
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
