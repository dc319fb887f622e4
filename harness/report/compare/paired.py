"""Two results folders of ours, paired by example: differences with intervals for all tasks and averages of both."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.config.build import build_task
from harness.errors import StoreError
from harness.report.compare.paired_draws import PairedDraws
from harness.report.document import (
    Column,
    Document,
    Table,
    TableCell,
    budgets,
    count_cell,
    grouped,
    interval_cell,
    number_cell,
    texts,
)
from harness.report.format import DASH, counted, number, signed
from harness.report.notes import few_notes
from harness.report.stats.bootstrap import LEVEL, average, summarize
from harness.results import Cell
from harness.store.manifest import difference
from harness.store.order import by_method
from harness.store.reader import Grid
from harness.text import plain


@dataclass(frozen=True)
class Pair:
    """One number of both folders.

    Attributes:
        first: A's score, 0-100, over its own results; NaN where there is none.
        second: B's.
        difference: B minus A over the pairs, with ``low`` and ``high``, its interval.
        n: pairs: examples that both have, with the same prompt.
        expected: examples that either has.
        other_prompts: examples that both have, but with another prompt; no pairs.
        errors: error records of both.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    n: int
    expected: int
    other_prompts: int
    errors: int

    @property
    def verdict(self) -> str:
        """Whether 0 is ``inside`` the interval or ``outside``; "" without one."""
        return "" if not math.isfinite(self.low) else "inside" if self.low <= 0 <= self.high else "outside"


def paired_documents(
    a: Sequence[Grid], b: Sequence[Grid], path_a: Path, path_b: Path
) -> Iterator[tuple[Path, Document]]:
    """One document per model and suite, or task, that both folders have.

    Args:
        a: the first folder's grids; of one model, or of models that are called the same in both.
        b: the second's.
        path_a: what the first is called.
        path_b: what the second is called.

    Yields:
        (folder below the report, document).

    Raises:
        ConfigError: a task's headline is another metric in each.
        StoreError: the folders have no task in common, or none with scores.
    """
    single = all(len({grid.result.model for grid in grids}) == 1 for grids in (a, b))
    theirs = {_key(grid, single): grid for grid in b}
    suites: dict[tuple[str, str], list[tuple[Grid, Grid]]] = {}
    unscored = []
    for grid in a:
        if (other := theirs.get(_key(grid, single))) is None:
            continue
        if grid.result.metrics or other.result.metrics:
            suites.setdefault(_suite(grid), []).append((grid, other))
        else:
            unscored.append(grid)
    if not suites and unscored:
        raise StoreError(
            f"what both folders have is not scored: {_contents(unscored)}; give two folders of a task with scores"
        )
    if not suites:
        has = f"the first has {_contents(a)}, the second {_contents(b)}; give two folders of the same task"
        raise StoreError(f"{path_a} and {path_b} have no task of one model in common: {has}, each of one model")
    ours = {_key(grid, single) for grid in a}
    missing = {"A": [grid for grid in b if _key(grid, single) not in ours]}
    missing["B"] = [grid for grid in a if _key(grid, single) not in theirs]
    rest = {side: [grid for grid in grids if _suite(grid) not in suites] for side, grids in missing.items()}
    elsewhere = _lacking(rest)
    elsewhere += [f"not in the comparison, as it has no scores: {_contents(unscored)}."] if unscored else []
    for suite, pairs in suites.items():
        own = {side: [grid for grid in grids if _suite(grid) == suite] for side, grids in missing.items()}
        notes = [*_other_model(pairs), *_other_boundary(pairs), *_lacking(own), *elsewhere]
        elsewhere = []  # what is of no suite that both have is said once, with the first
        yield Path(*suite), _document(suite[1], pairs, path_a, path_b, notes)


def _suite(grid: Grid) -> tuple[str, str]:
    """The model and the suite, or task, of a grid."""
    return grid.result.model, grid.task_config["name"]


def _lacking(missing: Mapping[str, Sequence[Grid]]) -> list[str]:
    """Which grids one side alone has, by the side that lacks them."""
    return [f"not in {side}, and left out: {_contents(grids)}." for side, grids in missing.items() if grids]


def _contents(grids: Sequence[Grid]) -> str:
    """The tasks of grids, by model."""
    by_model: dict[str, list[str]] = {}
    for grid in grids:
        by_model.setdefault(grid.result.model, []).append(grid.result.task)
    return plain("; ".join(f"{', '.join(tasks)} of {model}" for model, tasks in by_model.items()))


def _notes(pairs: Sequence[tuple[Grid, Grid]]) -> list[str]:
    """The notes of both folders; one that a single folder has says of which."""
    a, b = ([grid.result.note for grid in side if grid.result.note] for side in zip(*pairs, strict=True))
    both = dict.fromkeys([*a, *b])
    return [note if note in a and note in b else f"Of {'A' if note in a else 'B'}: {note}" for note in both]


def _other_boundary(pairs: Sequence[tuple[Grid, Grid]]) -> list[str]:
    """Whether entries were selected before the question in one folder alone."""
    return list(
        dict.fromkeys(
            f"A was compressed after the {a.result.after}, B after the {b.result.after} (selection.after): the "
            "difference is also that of the boundary."
            for a, b in pairs
            if a.result.after != b.result.after
        )
    )


def _other_model(pairs: Sequence[tuple[Grid, Grid]]) -> list[str]:
    """Whether the folders are of two models, by name or by what their manifests say of one."""
    for a, b in pairs:
        if a.result.model != b.result.model:
            return [f"A is of {plain(a.result.model)}, B of another model, {plain(b.result.model)}."]
        models = [next(iter(grid.manifests.values())).settings.get("model") for grid in (a, b)]
        if models[0] is not None and models[1] is not None and (changed := difference(models[0], models[1])):
            name, then, now = changed
            return [plain(f"B is of another model than A: model.{name} is {now}, and {then} in A.")]
    return []


def _key(grid: Grid, single: bool) -> tuple[str, str]:
    return ("" if single else grid.result.model, grid.result.task)


def _document(
    suite: str, pairs: Sequence[tuple[Grid, Grid]], path_a: Path, path_b: Path, facts: Sequence[str]
) -> Document:
    draws = {a.result.task: PairedDraws(a, b) for a, b in pairs}
    names, columns = _columns(suite, pairs)
    cells = by_method(cell for side in (0, 1) for pair in pairs for cell in pair[side].manifests)
    rows = {cell: {title: _pair(cell, groups, draws) for title, groups in columns.items()} for cell in cells}
    raw = pd.DataFrame([_raw(cell, title, pair) for cell, numbers in rows.items() for title, pair in numbers.items()])
    models = list(dict.fromkeys(grid.result.model for pair in pairs for grid in pair))
    notes = [
        *_notes(pairs),
        f"A: {plain(str(path_a))}. B: {plain(str(path_b))}.",
        *facts,
        f"difference: B minus A over the examples that both have, with its {LEVEL} % bootstrap interval over examples; "
        "0 is inside or outside of it. A and B: over their own results.",
    ]
    by_task = [pair for numbers in rows.values() for title, pair in numbers.items() if title in names]
    if any(pair.n < pair.expected for pair in by_task):
        notes.append("n of N: only n of the examples that either has are compared.")
    if differing := sum(pair.other_prompts for pair in by_task):
        notes.append(f"{differing} examples have another prompt in B than in A and are left out of the difference.")
    notes += few_notes(pair.n for pair in by_task)
    titles = [title for title in columns if title not in names] or list(columns)
    tables = [_averages(rows, titles), _layout(rows, [title for title in columns if title in names])]
    return Document(f"{suite} on {' and '.join(models)}: B against A", "paired", tables, notes, {"paired": raw})


def _columns(suite: str, pairs: Sequence[tuple[Grid, Grid]]) -> tuple[set[str], dict[str, tuple[tuple[str, ...], ...]]]:
    """The titles of the tasks, and all columns: tasks in their order, then averages, as groups of tasks."""
    tasks = [a.result.task for a, _ in pairs]
    whole = None if tasks == [suite] else build_task(pairs[0][0].task_config)[1]
    ordered = list(whole.ordered(tasks)) if whole is not None else tasks
    columns: dict[str, tuple[tuple[str, ...], ...]] = {task.removeprefix(f"{suite}-"): ((task,),) for task in ordered}
    names = set(columns)
    if whole is not None:
        columns |= {mean.title: mean.groups for mean in whole.averages(ordered)}
    return names, columns


def _pair(cell: Cell, groups: Sequence[Sequence[str]], draws: Mapping[str, PairedDraws]) -> Pair:
    first, second = (
        average([[draws[task].score(side, cell) for task in group] for group in groups])[0] for side in ("A", "B")
    )
    difference = average([[draws[task].difference(cell) for task in group] for group in groups])
    counts = [draws[task].counts(cell) for group in groups for task in group]
    return Pair(
        float(first), float(second), *summarize(difference), *(sum(count) for count in zip(*counts, strict=True))
    )


def _raw(cell: Cell, title: str, pair: Pair) -> dict[str, object]:
    return {
        "method": cell.label,
        "budget": cell.budget,
        "column": title,
        "a": pair.first,
        "b": pair.second,
        "difference": pair.difference,
        "difference_low": pair.low,
        "difference_high": pair.high,
        "zero_is": pair.verdict or None,
        "n": pair.n,
        "expected": pair.expected,
        "other_prompts": pair.other_prompts,
        "errors": pair.errors,
    }


def _averages(rows: Mapping[Cell, Mapping[str, Pair]], titles: Sequence[str]) -> Table:
    """One line per cell and average; without averages, per task."""
    lines = [(cell, title, pair) for cell, pairs in rows.items() for title, pair in pairs.items() if title in titles]
    pairs = [pair for *_, pair in lines]
    columns = [
        texts("method", [cell.label for cell, *_ in lines]),
        budgets([cell.budget for cell, *_ in lines]),
        texts("column", [title for _, title, _ in lines]),
        Column("A", [number_cell(pair.first, number(pair.first, 2)) for pair in pairs]),
        Column("B", [number_cell(pair.second, number(pair.second, 2)) for pair in pairs]),
        Column("difference", [number_cell(pair.difference, signed(pair.difference)) for pair in pairs]),
        Column(f"{LEVEL} % interval", [interval_cell(pair.low, pair.high) for pair in pairs]),
        Column("0 is", [TableCell(pair.verdict or DASH, pair.verdict or None) for pair in pairs]),
        Column("n", [count_cell(pair.n, pair.expected) for pair in pairs]),
        Column("errors", [number_cell(pair.errors, str(pair.errors)) for pair in pairs]),
    ]
    return Table("Averages" if len(titles) > 1 else titles[0], columns, keys=3)


def _layout(rows: Mapping[Cell, Mapping[str, Pair]], titles: Sequence[str]) -> Table:
    """Cells down, tasks across; of each both numbers, the difference and its interval."""
    groups = [(cell.label, cell.budget, _lines([pairs[title] for title in titles])) for cell, pairs in rows.items()]
    return grouped("By task", titles, groups)


def _lines(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """What is said of a cell, a line for each, with one text per task."""
    lines = {"A": [number(pair.first, 2) for pair in pairs], "B": [number(pair.second, 2) for pair in pairs]}
    if any(pair.n for pair in pairs):
        lines |= {
            "difference": [signed(pair.difference) for pair in pairs],
            f"{LEVEL} % low": [number(pair.low, 2) for pair in pairs],
            f"{LEVEL} % high": [number(pair.high, 2) for pair in pairs],
            "0 is": [pair.verdict or DASH for pair in pairs],
            "n": [counted(pair.n, pair.expected) for pair in pairs],
        }
    return lines
