"""Tables of several tasks together: scores by task, averages with intervals, what was kept.

scores.csv     one row per cell and column (a task or an average), unrounded, with intervals and differences
table.md       the same numbers, readable, and the scores of tasks that are broken down, by value
table.tex      scores by task, in the layout of the papers, and averages
by_budget.png, by_retention.png
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from harness.report.notes import cell_notes, error_notes, published_notes
from harness.report.plots import Curve, curves
from harness.report.stats.bootstrap import LEVEL, TaskDraws, average, columns
from harness.report.stats.means import mean
from harness.report.stats.table import alias_of, breakdown, full_cache
from harness.report.task_tables import (
    COST_HEADERS,
    KEPT,
    SAME_AS,
    cost_columns,
    escape_markdown,
    fitting_table,
    interval,
    is_broken_down,
    latex_tables,
    markdown_table,
    number,
    part_score,
    rich_table,
)
from harness.results import Cell, CellResult, Record, SuiteResult, TaskResult
from harness.text import plain

_KEYS = ["method", "budget"]
_DIFFERENCE, _ITS_INTERVAL, _INTERVAL = "difference to the full cache", f"its {LEVEL} % interval", f"{LEVEL} % interval"
_SPARE = [*(COST_HEADERS[name] for name in ("prompt_tokens_mean", "kept")), _ITS_INTERVAL, _DIFFERENCE, _INTERVAL]


def suite_table(result: SuiteResult) -> pd.DataFrame:
    """One row per cell and column of the paper's tables, tasks first, then averages; unrounded, NaN where something is missing.

    Columns: ``method``, ``budget``, ``column``, ``kind`` (task or average), ``score`` (0-100) with ``score_low`` and ``score_high``
    (95 % bootstrap over examples), ``difference`` to the cell that kept everything with its paired interval, and those of
    ``aggregate.table`` from ``n`` to ``alias_of``; means of an average's tasks have the weights that their scores have.
    """
    draws = {task.task: TaskDraws(task) for task in result.tasks}
    by_task = {task.task: {cell.cell: cell for cell in task.cells} for task in result.tasks}
    full = _full(result)
    rows: list[dict[str, Any]] = []
    for cell in (cell.cell for cell in result.tasks[0].cells):
        for title, kind, groups in _columns(result):
            parts = [[by_task[name][cell] for name in group] for group in groups]

            score = average([[draws[name].score(cell) for name in group] for group in groups])
            difference = None
            if full is not None:
                difference = average([[draws[name].difference(cell, full) for name in group] for group in groups])
            row = {"method": cell.label, "budget": cell.budget, "column": title, "kind": kind}
            rows.append({**row, **columns(score, difference), **_cost(parts)})
    return pd.DataFrame(rows).astype({"kept_min": "Int64", "kept_max": "Int64"})


def write_suite_report(result: SuiteResult, folder: Path) -> list[Path]:
    """Write the files; the same result gives the same bytes.

    Args:
        result: what to report.
        folder: created if need be; files of these names are replaced.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    raw = suite_table(result)
    texts = {
        "table.md": _markdown(result, raw),
        "scores.csv": raw.to_csv(index=False, lineterminator="\n"),
        "table.tex": _latex(result, raw),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    plots = ["by_budget.png", "by_retention.png"] if raw["score"].notna().any() else []
    for name in plots:
        title = headline(result)
        rows = raw[raw["column"] == title]
        curves(
            [curve_of(str(label), part, name == "by_retention.png") for label, part in rows.groupby("method", sort=False)],
            " ".join([f"{result.suite} on {result.model}.", *dict.fromkeys(task.note for task in result.tasks if task.note)]),
            "KV entries kept, % of the prompt" if name == "by_retention.png" else "budget (KV entries per head and layer)",
            f"{title} (0-100)",
            folder / name,
        )
    return [folder / name for name in (*texts, *plots)]


def print_suite(result: SuiteResult, console: Console) -> None:
    """Print scores by task and averages; in a terminal the averages alone, without the columns that it has no room for."""
    raw = suite_table(result)
    console.print(Text(f"{plain(result.suite)} on {plain(result.model)}", style="bold"))
    details = _details(raw, "average" if result.averages else "task")
    table, left_out = fitting_table(details, {}, _SPARE, console)
    whole = [] if console.is_terminal and result.averages else [rich_table(_scores(raw), {})]
    for shown in (*whole, table, *(rich_table(part, {}) for part in _broken_down(result))):
        console.print(shown, crop=False)
    for note in [*_notes(result), *left_out]:
        console.print(Text(note), soft_wrap=True)


def headline(result: SuiteResult) -> str:
    """The column that plots show: the first average over all tasks, or the first column there is."""
    names = {task.task for task in result.tasks}
    whole = [a.title for a in result.averages if names == {name for group in a.groups for name in group}]
    return (whole or [a.title for a in result.averages if len(a.groups) > 1] or [title for title, *_ in _columns(result)])[0]


def _columns(result: SuiteResult) -> Iterable[tuple[str, str, tuple[tuple[str, ...], ...]]]:
    for task in result.tasks:
        yield _title(result, task), "task", ((task.task,),)
    for mean_ in result.averages:
        yield mean_.title, "average", mean_.groups


def _full(result: SuiteResult) -> Cell | None:
    """The cell that kept everything in every task."""
    full = full_cache(
        [_together([cell for task in result.tasks for cell in task.cells if cell.cell == of.cell]) for of in result.tasks[0].cells]
    )
    return full.cell if full else None


def _together(cells: Sequence[CellResult]) -> CellResult:
    """One cell of several tasks."""
    return CellResult(cells[0].cell, sum(cell.expected for cell in cells), tuple(r for cell in cells for r in cell.records))


def _cost(groups: Sequence[Sequence[CellResult]]) -> dict[str, Any]:
    """Counts and extremes over all tasks; means with the weights that the score has."""
    whole = _together([cell for group in groups for cell in group])
    kept = {tuple(record.kept) for record in whole.done if record.kept}

    def weighted(value: Callable[[Record], float | None]) -> float:
        return mean(mean(mean(map(value, cell.done)) for cell in group) for group in groups)

    return {
        "n": len(whole.done),
        "errors": whole.errors,
        "expected": whole.expected,
        "kept_min": min(map(min, kept), default=None),
        "kept_mean": weighted(lambda record: mean(record.kept)),
        "kept_max": max(map(max, kept), default=None),
        "retention": weighted(lambda record: record.retention),
        "retention_bytes": weighted(lambda record: record.retention_bytes),
        "prompt_tokens_mean": weighted(lambda record: record.prompt_tokens),
        "alias_of": alias_of(whole),
    }


def _scores(raw: pd.DataFrame) -> pd.DataFrame:
    """Cells down, tasks and averages across."""
    wide = raw.assign(score=[number(v, 2) for v in raw["score"]]).pivot(index=_KEYS, columns="column", values="score")
    order = list(dict.fromkeys(zip(raw["method"], raw["budget"], strict=True)))
    return wide.reindex(index=pd.MultiIndex.from_tuples(order, names=_KEYS), columns=list(dict.fromkeys(raw["column"]))).reset_index()


def _broken_down(result: SuiteResult) -> list[pd.DataFrame]:
    """Cells and values of a breakdown down, its tasks and their plain mean across; one table for each breakdown that tasks have."""
    tables = []
    for key in dict.fromkeys(task.breakdown for task in result.tasks if is_broken_down(task)):
        parts = {_title(result, task): breakdown(task).set_index([*_KEYS, key])["score"] for task in result.tasks if task.breakdown == key}
        wide = pd.DataFrame(parts)
        if len(parts) > 1:
            wide["mean"] = wide.mean(axis="columns", skipna=False)
        # The order of the cells; a value that the first task lacks would stand last.
        cells = [(cell.cell.label, cell.cell.budget) for cell in result.tasks[0].cells]
        order = sorted(wide.index, key=lambda row: (cells.index(row[:2]), isinstance(row[2], str), row[2]))
        shown = wide.reindex(order).map(part_score).reset_index()
        tables.append(shown.assign(method=shown["method"].map(plain)).astype(str))
    return tables


def _title(result: SuiteResult, task: TaskResult) -> str:
    return task.task.removeprefix(f"{result.suite}-")


def _details(raw: pd.DataFrame, kind: str) -> pd.DataFrame:
    """One row per cell and task, or per cell and average: score, interval, difference, what was kept."""
    part = raw[raw["kind"] == kind]
    shown = pd.DataFrame({"method": part["method"].map(plain), "budget": part["budget"], "column": part["column"].map(plain)})
    shown["score"] = [number(v, 2) for v in part["score"]]
    shown[_INTERVAL] = [interval(*pair) for pair in zip(part["score_low"], part["score_high"], strict=True)]
    if "difference" in part:
        shown[_DIFFERENCE] = [number(v, 2) for v in part["difference"]]
        shown[_ITS_INTERVAL] = [interval(*pair) for pair in zip(part["difference_low"], part["difference_high"], strict=True)]
    shown["n"] = [str(n) if n == of else f"{n} of {of}" for n, of in zip(part["n"], part["expected"], strict=True)]
    shown["errors"] = part["errors"].map(str)
    return shown.assign(**{COST_HEADERS[name]: texts for name, texts in cost_columns(part).items()})


def _notes(result: SuiteResult) -> list[str]:
    notes = list(dict.fromkeys(plain(task.note) for task in result.tasks if task.note))
    cells = [cell for task in result.tasks for cell in task.cells]
    full = _full(result)
    notes += [*published_notes({_title(result, task): task for task in result.tasks}), KEPT]
    notes.append(f"Intervals: {LEVEL} % bootstrap over examples.")
    notes.append(
        f"Differences are to {full.name}, paired by example." if full else "No cell kept the full cache, so there are no differences."
    )
    notes += cell_notes(cells)
    if any(alias_of(cell) for cell in cells):
        notes.append(SAME_AS)
    return [*notes, *(note for task in result.tasks for note in error_notes(task, _title(result, task)))]


def _markdown(result: SuiteResult, raw: pd.DataFrame) -> str:
    sections = [("Scores", _scores(raw))]
    if result.averages:
        sections.append(("Averages and intervals", _details(raw, "average")))
    sections += [(f"By {shown.columns[2]}", shown) for shown in _broken_down(result)]
    sections.append(("Tasks and intervals", _details(raw, "task")))
    parts = [f"# {escape_markdown(plain(result.suite))} on {escape_markdown(plain(result.model))}"]
    for title, shown in sections:
        parts += [f"## {escape_markdown(title)}", markdown_table(shown, {})]
    parts += [f"Note: {escape_markdown(note)}" for note in _notes(result)]
    return "\n\n".join(parts) + "\n"


def _latex(result: SuiteResult, raw: pd.DataFrame) -> str:
    """Scores by task and their first average, in the layout of the papers; then all averages."""
    tables = [_scores(raw[(raw["kind"] == "task") | (raw["column"] == headline(result))])]
    if result.averages:
        tables.append(_scores(raw[raw["kind"] == "average"]))
    return latex_tables([(table, {}) for table in tables], [f"{plain(result.suite)} on {plain(result.model)}", *_notes(result)])


def curve_of(label: str, part: pd.DataFrame, by_retention: bool) -> Curve:
    """One method's rows of ``suite_table`` or ``aggregate.table`` as a curve, over retentions in percent or over budgets."""
    across = [100 * share for share in part["retention"]] if by_retention else [_entries(budget) for budget in part["budget"]]
    return Curve(label, across, list(part["score"]), list(part["score_low"]), list(part["score_high"]))


def _entries(budget: str) -> float | None:
    """Where a budget stands on the axis; None for shares and the full cache, which are lines across."""
    return float(budget) if budget.isdigit() else None
