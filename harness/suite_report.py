"""Tables of several tasks together: scores by task, averages with intervals, what was kept.

scores.csv     one row per cell and column (a task or an average), unrounded, with intervals and differences
table.md       the same numbers, readable, and the scores of tasks that are broken down, by value
table.tex      scores by task, in the layout of the papers
by_budget.png, by_retention.png
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from harness.aggregate import breakdown, mean, plain
from harness.intervals import LEVEL, TaskDraws, average, columns
from harness.plot import Curve, curves
from harness.report import escape_markdown, interval, is_broken_down, markdown_table, number, percent, rich_table
from harness.schema import Cell, CellResult, Record, SuiteResult, TaskResult

_KEYS = ["method", "budget"]


def suite_table(result: SuiteResult) -> pd.DataFrame:
    """One row per cell and column of the paper's tables, tasks first, then averages; unrounded, NaN where something is missing.

    Columns: ``method``, ``budget``, ``column``, ``kind`` (task or average), ``score`` (0-100) with ``score_low`` and ``score_high``
    (95 % bootstrap over examples), ``difference`` to the cell that kept everything with its paired interval, ``n``, ``errors``,
    ``expected``, ``retention`` and ``retention_bytes`` (shares of the full cache).
    """
    draws = {task.task: TaskDraws(task) for task in result.tasks}
    by_task = {task.task: {cell.cell: cell for cell in task.cells} for task in result.tasks}
    full = full_cell(result)
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
    return pd.DataFrame(rows)


def full_cell(result: SuiteResult) -> Cell | None:
    """The first cell that kept everything in every example of every task, or None."""
    cells = [cell.cell for cell in result.tasks[0].cells]
    records = {cell: [r for task in result.tasks for c in task.cells if c.cell == cell for r in c.done] for cell in cells}
    return next((cell for cell in cells if records[cell] and all(r.retention == 1.0 for r in records[cell])), None)


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
    """Print scores by task and averages, as wide as they are where nobody's terminal is too narrow."""
    raw = suite_table(result)
    console.print(Text(f"{plain(result.suite)} on {plain(result.model)}", style="bold"))
    details = _details(raw, "average" if result.averages else "task")
    shown = [details] if console.is_terminal and result.averages else [_scores(raw), details]
    shown += _broken_down(result)
    for table in shown:
        if not table.empty:
            console.print(rich_table(table, {str(name): str(name) for name in table}), crop=False)
    for note in _notes(result):
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


def _cost(groups: Sequence[Sequence[CellResult]]) -> dict[str, Any]:
    """Counts over all tasks; retention with the weights that the score has."""
    cells = [cell for group in groups for cell in group]

    def weighted(share: Callable[[Record], float | None]) -> float:
        return mean(mean(mean(map(share, cell.done)) for cell in group) for group in groups)

    return {
        "n": sum(len(cell.done) for cell in cells),
        "errors": sum(cell.errors for cell in cells),
        "expected": sum(cell.expected for cell in cells),
        "retention": weighted(lambda record: record.retention),
        "retention_bytes": weighted(lambda record: record.retention_bytes),
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
        shown = wide.reindex(order).map(lambda value: number(value, 2)).reset_index()
        tables.append(shown.assign(method=shown["method"].map(plain)).astype(str))
    return tables


def _title(result: SuiteResult, task: TaskResult) -> str:
    return task.task.removeprefix(f"{result.suite}-")


def _details(raw: pd.DataFrame, kind: str) -> pd.DataFrame:
    """One row per cell and task, or per cell and average: score, interval, difference, what was kept."""
    part = raw[raw["kind"] == kind]
    shown = pd.DataFrame({"method": part["method"].map(plain), "budget": part["budget"], "column": part["column"].map(plain)})
    shown["score"] = [number(v, 2) for v in part["score"]]
    shown[f"{LEVEL} % interval"] = [interval(*pair) for pair in zip(part["score_low"], part["score_high"], strict=True)]
    if "difference" in part:
        shown["difference to the full cache"] = [number(v, 2) for v in part["difference"]]
        shown[f"its {LEVEL} % interval"] = [interval(*pair) for pair in zip(part["difference_low"], part["difference_high"], strict=True)]
    shown["n"] = [str(n) if n == of else f"{n} of {of}" for n, of in zip(part["n"], part["expected"], strict=True)]
    shown["errors"] = part["errors"].map(str)
    shown["entries %"] = [percent(v) for v in part["retention"]]
    shown["bytes %"] = [percent(v) for v in part["retention_bytes"]]
    return shown


def _notes(result: SuiteResult) -> list[str]:
    notes = list(dict.fromkeys(plain(task.note) for task in result.tasks if task.note))
    full = full_cell(result)
    notes.append(f"Intervals: {LEVEL} % bootstrap over examples. entries %, bytes %: share of the full cache.")
    notes.append(
        f"Differences are to {full.name}, paired by example." if full else "No cell kept the full cache, so there are no differences."
    )
    if any(len(cell.done) < cell.expected for task in result.tasks for cell in task.cells):
        notes.append("n of N: the numbers cover only the n examples that have a result.")
    for task in result.tasks:
        notes += _error_notes(task)
    return notes


def _error_notes(task: TaskResult) -> list[str]:
    return [
        plain(f"errors of {cell.cell.name} in {task.task}: {cell.errors}, the first: {next(r.error for r in cell.records if r.error)}")
        for cell in task.cells
        if cell.errors
    ]


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
    """Scores by task, a rule between budgets; needs booktabs and, for its width, a landscape page or adjustbox."""
    shown = _scores(raw)
    styled = shown.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    lines = styled.to_latex(column_format="ll" + "r" * (len(shown.columns) - 2), hrules=True)
    return lines + "".join(f"% {note}\n" for note in [f"{plain(result.suite)} on {plain(result.model)}", *_notes(result)])


def curve_of(label: str, part: pd.DataFrame, by_retention: bool) -> Curve:
    """One method's rows of ``suite_table`` or ``aggregate.table`` as a curve, over retentions in percent or over budgets."""
    across = [100 * share for share in part["retention"]] if by_retention else [_entries(budget) for budget in part["budget"]]
    return Curve(label, across, list(part["score"]), list(part["score_low"]), list(part["score_high"]))


def _entries(budget: str) -> float | None:
    """Where a budget stands on the axis; None for shares and the full cache, which are lines across."""
    return float(budget) if budget.isdigit() else None
