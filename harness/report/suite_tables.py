"""The report of a suite, several tasks together: scores by task, averages with intervals, what was kept.

scores.csv     one row per cell and column (a task or an average), unrounded, with intervals and differences
table.md       the same numbers, readable, and the scores of tasks that are broken down, by value
table.tex      scores by task, in the layout of the papers, and averages
by_budget.png, by_retention.png
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from harness.compression.budget import parse_budget
from harness.report.columns import (
    DIFFERENCE,
    ITS_INTERVAL,
    cost_columns,
    count_columns,
    interval_column,
    number_column,
    score_column,
    share_columns,
)
from harness.report.document import Column, Document, Table, budgets, number_cell, texts
from harness.report.format import part_score
from harness.report.nonsense import nonsense_notes
from harness.report.notes import KEPT, alias_notes, cell_notes, error_notes, published_notes
from harness.report.render import write
from harness.report.stats.bootstrap import LEVEL, TaskDraws, average, columns
from harness.report.stats.curves import score_curves
from harness.report.stats.means import mean
from harness.report.stats.once import once
from harness.report.stats.summary import alias_of, full_cache, kept_total, nominal, packs
from harness.report.stats.table import breakdown, breakdown_name
from harness.report.task_tables import is_broken_down
from harness.report.terminal import show, show_end
from harness.results import Cell, CellResult, Record, SuiteResult, TaskResult, by_head, layer_means
from harness.text import plain

_KEYS = ["method", "budget"]
_SCORES, _TASKS = "Scores", "Tasks and intervals"


@once
def suite_table(result: SuiteResult) -> pd.DataFrame:
    """One row per cell and task, then per cell and average, unrounded; NaN where something is missing.

    Columns: ``method``, ``budget``, ``column``, ``kind`` (task or average), ``score`` (0-100) with ``score_low`` and
    ``score_high`` (95 % bootstrap over examples), ``difference`` to the cell that kept everything with its paired
    interval, and those of ``table`` from ``n`` to ``alias_of``; means of an average's tasks have the weights that their
    scores have.
    """
    draws = {task.task: TaskDraws(task) for task in result.tasks}
    by_task = {task.task: {cell.cell: cell for cell in task.cells} for task in result.tasks}
    full, packed = _full(result), packs(cell for task in result.tasks for cell in task.cells)
    rows: list[dict[str, Any]] = []
    for cell in (cell.cell for cell in result.tasks[0].cells):
        for title, kind, groups in _columns(result):
            parts = [[by_task[name][cell] for name in group] for group in groups]

            score = average([[draws[name].score(cell) for name in group] for group in groups])
            difference = None
            if full is not None:
                difference = average([[draws[name].difference(cell, full) for name in group] for group in groups])
            row = {"method": cell.label, "budget": cell.budget, "column": title, "kind": kind}
            rows.append({**row, **columns(score, difference), **_cost(parts, packed)})
    return pd.DataFrame(rows).astype({"kept_min": "Int64", "kept_max": "Int64"})


def write_suite_report(result: SuiteResult, folder: Path) -> list[Path]:
    """Write the files; the same result gives the same bytes.

    Args:
        result: what to report.
        folder: created if need be; files of these names are replaced.

    Returns:
        The files written.
    """
    from harness.report.plots import curves  # matplotlib takes its time, and a terminal does not need it

    raw, title = suite_table(result), headline(result)
    files = write(suite_document(result), folder)
    if raw["score"].notna().any():
        about = [f"{result.title}.", *dict.fromkeys(task.note for task in result.tasks if task.note)]
        for drawn in score_curves(raw[raw["column"] == title]):
            files.append(folder / f"{drawn.stem}.png")
            curves(drawn, " ".join(about), f"{title} (0-100)", files[-1])
    return files


def print_suite(result: SuiteResult, console: Console, wide: bool = False) -> None:
    """Print the tables and their notes; see ``show``.

    Of a suite with averages, these and the breakdowns; wide tables are those of a file, with the scores by task.
    """
    document = suite_document(result)
    left_out = {_TASKS} if wide else {_TASKS, _SCORES}
    tables = [table for table in document.tables if not result.averages or table.title not in left_out]
    show(replace(document, tables=tables), console, wide)


def print_suite_end(result: SuiteResult, console: Console) -> None:
    """Print what the end of a run has room for: the headline by method and budget; see ``show_end``."""
    raw, document, column = suite_table(result), suite_document(result), headline(result)
    shown = raw[raw["column"] == column]
    title = f"{document.title}: {column}"
    if len(result.tasks) > 1 and (shown["kind"] == "task").all():  # no average is over all of them
        title = f"{title}, the first of {len(result.tasks)} tasks; kvgauge report shows all"
    show_end(replace(document, title=title), shown, console)


@once
def suite_document(result: SuiteResult) -> Document:
    """All there is to read about a suite."""
    raw = suite_table(result)
    tasks, averages = raw["kind"] == "task", raw["kind"] == "average"
    tables = [wide_table(_SCORES, raw)]
    papers = [wide_table("", raw[tasks | (raw["column"] == headline(result))])]
    if result.averages:
        tables.append(_long_table("Averages and intervals", raw[averages]))
        papers.append(wide_table("", raw[averages]))
    tables += [*_breakdown_tables(result), _long_table(_TASKS, raw[tasks])]
    return Document(result.title, "table", tables, _notes(result), {"scores": raw}, papers)


def wide_table(title: str, raw: pd.DataFrame) -> Table:
    """Scores with cells down and tasks or averages across, in the layout of the papers.

    Args:
        title: the table's.
        raw: rows of ``suite_table``.
    """
    cells = raw.drop_duplicates(_KEYS)
    parts = [(str(name), part) for name, part in raw.groupby("column", sort=False)]
    return Table(title, [*_key_columns(cells), *(score_column(plain(name), part) for name, part in parts)])


def averages_table(raw: pd.DataFrame) -> Table:
    """Averages with cells down, and what was kept on average over the tasks of the first average.

    Args:
        raw: a ``suite_table`` with averages.
    """
    part = raw[raw["kind"] == "average"]
    wide = wide_table("Averages", part)
    return replace(wide, columns=[*wide.columns, *share_columns(part[part["column"] == part["column"].iloc[0]])])


def headline(result: SuiteResult) -> str:
    """The column that plots show: the first average over all tasks, or the first column there is."""
    names = {task.task for task in result.tasks}
    whole = [a.title for a in result.averages if names == {name for group in a.groups for name in group}]
    return (
        whole or [a.title for a in result.averages if len(a.groups) > 1] or [title for title, *_ in _columns(result)]
    )[0]


def _columns(result: SuiteResult) -> Iterable[tuple[str, str, tuple[tuple[str, ...], ...]]]:
    for task in result.tasks:
        yield _title(result, task), "task", ((task.task,),)
    for mean_ in result.averages:
        yield mean_.title, "average", mean_.groups


def _full(result: SuiteResult) -> Cell | None:
    """The cell that kept everything in every task."""
    cells = [cell.cell for cell in result.tasks[0].cells]
    full = full_cache(
        [_together([cell for task in result.tasks for cell in task.cells if cell.cell == name]) for name in cells]
    )
    return full.cell if full else None


def _together(cells: Sequence[CellResult]) -> CellResult:
    """One cell of several tasks."""
    return CellResult(
        cells[0].cell, sum(cell.expected for cell in cells), tuple(r for cell in cells for r in cell.records)
    )


def _cost(groups: Sequence[Sequence[CellResult]], packed: bool) -> dict[str, Any]:
    """Counts and extremes over all tasks; means with the weights that the score has; if ``packed``, storage too."""
    whole = _together([cell for group in groups for cell in group])
    kept = {counts for record in whole.done for counts in record.kept}
    heads = [count for counts in kept for count in by_head(counts)]

    def weighted(value: Callable[[Record], float | None]) -> float:
        return mean(mean(mean(map(value, cell.done)) for cell in group) for group in groups)

    budget = parse_budget(whole.cell.budget)
    kept_mean = weighted(lambda record: mean(layer_means(record.kept)))
    return {
        "n": len(whole.done),
        "errors": whole.errors,
        "expected": whole.expected,
        "kept_min": min(heads, default=None),
        "kept_mean": kept_mean,
        "kept_max": max(heads, default=None),
        "kept_total": weighted(kept_total),
        "off_budget": kept_mean / weighted(lambda record: nominal(budget, record)) - 1,
        "retention": weighted(lambda record: record.retention),
        "retention_bytes": weighted(lambda record: record.retention_bytes),
        "prompt_tokens_mean": weighted(lambda record: record.prompt_tokens),
        "alias_of": alias_of(whole),
        **({"bits": weighted(lambda r: r.bits), "kept_bytes": weighted(lambda r: r.kept_bytes)} if packed else {}),
    }


def _key_columns(raw: pd.DataFrame) -> list[Column]:
    return [texts("method", raw["method"]), budgets(raw["budget"])]


def _long_table(title: str, raw: pd.DataFrame) -> Table:
    """One line per cell and task, or per cell and average: score, interval, difference, what was kept."""
    scores = number_column("score", raw["score"], 2)
    columns = [*_key_columns(raw), texts("column", raw["column"]), scores, interval_column(raw)]
    if "difference" in raw:
        columns.append(number_column("difference to the full cache", raw["difference"], 2, DIFFERENCE))
        columns.append(interval_column(raw, "difference", f"its {LEVEL} % interval", ITS_INTERVAL))
    return Table(title, [*columns, *count_columns(raw, spare_errors=False), *cost_columns(raw)], keys=3)


def _breakdown_tables(result: SuiteResult) -> list[Table]:
    """Cells and values of a breakdown down, its tasks and their mean across; one table for each breakdown."""
    tables = []
    for key in dict.fromkeys(breakdown_name(task) for task in result.tasks if is_broken_down(task)):
        parts = {
            _title(result, task): breakdown(task).set_index([*_KEYS, key])["score"]
            for task in result.tasks
            if task.breakdown and breakdown_name(task) == key
        }
        wide = pd.DataFrame(parts)
        if len(parts) > 1:
            wide["mean"] = wide.mean(axis="columns", skipna=False)
        # The order of the cells; a value that the first task lacks would stand last.
        cells = [(cell.cell.label, cell.cell.budget) for cell in result.tasks[0].cells]
        order = sorted(wide.index, key=lambda line: (cells.index(line[:2]), isinstance(line[2], str), line[2]))
        wide = wide.reindex(order).reset_index()
        values = replace(texts(str(key), wide[key]), numeric=True)
        scores = [
            Column(str(name), [number_cell(value, part_score(value)) for value in wide[name]])
            for name in wide.columns[3:]
        ]
        tables.append(Table(f"By {key}", [*_key_columns(wide), values, *scores], keys=3))
    return tables


def _title(result: SuiteResult, task: TaskResult) -> str:
    return task.task.removeprefix(f"{result.suite}-")


def _notes(result: SuiteResult) -> list[str]:
    notes = list(dict.fromkeys(plain(task.note) for task in result.tasks if task.note))
    cells = [cell for task in result.tasks for cell in task.cells]
    full = _full(result)
    by_title = {_title(result, task): task for task in result.tasks}
    notes += [*nonsense_notes(by_title), *published_notes(by_title), KEPT]
    notes.append(f"Intervals: {LEVEL} % bootstrap over examples.")
    notes.append(
        f"Differences are to {full.name}, paired by example."
        if full
        else "No cell kept the full cache, so there are no differences."
    )
    notes += [*cell_notes(cells), *alias_notes(cells)]
    return [*notes, *(note for task in result.tasks for note in error_notes(task, _title(result, task)))]
