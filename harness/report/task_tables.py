"""The report of a task: its table as Markdown, CSV and LaTeX files with the plots beside them, and on the terminal.

The CSV holds raw numbers under plain column names; everything else shows the same numbers rounded. What is missing is
an en dash.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from harness.report.columns import (
    DIFFERENCE,
    METRIC,
    cost_columns,
    count_columns,
    interval_column,
    number_column,
    score_column,
)
from harness.report.document import Column, Document, Table, budgets, number_cell, texts
from harness.report.format import interval, number, part_score, signed
from harness.report.notes import task_notes
from harness.report.render import write
from harness.report.stats.bootstrap import LEVEL
from harness.report.stats.once import once
from harness.report.stats.summary import full_cache, packs
from harness.report.stats.table import breakdown, breakdown_name, table
from harness.report.terminal import show, show_end
from harness.results import TaskResult
from harness.text import plain


def write_report(result: TaskResult, folder: Path) -> list[Path]:
    """Write ``table.md``, ``table.csv``, ``table.tex`` and, with scores to draw, ``summary.png`` and ``heatmap.png``.

    Where a storage packed entries, ``by_bytes.png`` has the scores over bytes. A task with a breakdown also has
    ``breakdown.csv``, and its scores by value below the table.

    The same result gives the same bytes.

    Args:
        result: what to report.
        folder: created if need be; files of these names are replaced.

    Returns:
        The files written.
    """
    from harness.report.plots import (
        by_bytes,
        heatmap,
        summary,
    )  # matplotlib takes its time, and a terminal does not need it

    files = write(task_document(result), folder)
    plots = {"summary.png": summary} if result.metrics and any(cell.records for cell in result.cells) else {}
    if plots and result.heatmap_axes:
        plots["heatmap.png"] = heatmap
    if plots and packs(result.cells):
        plots["by_bytes.png"] = by_bytes
    for name, draw in plots.items():
        draw(result, folder / name)
    return [*files, *(folder / name for name in plots)]


def print_table(result: TaskResult, console: Console, wide: bool = False) -> None:
    """Print the tables and their notes; see ``show``."""
    show(task_document(result), console, wide)


def print_end(result: TaskResult, console: Console) -> None:
    """Print what the end of a run has room for; see ``show_end``."""
    raw, document = table(result), task_document(result)
    if result.metrics:
        show_end(document, raw, console)
    else:
        show_end(document, raw.assign(score=100 * raw["retention"]), console, "entries %")


def task_document(result: TaskResult) -> Document:
    """All there is to read about a task."""
    tables, data = [score_table(result)], {"table": table(result)}
    if is_broken_down(result):
        tables.append(_breakdown_table(result))
        data["breakdown"] = breakdown(result)
    return Document(result.title, "table", tables, task_notes(result), data)


@once
def score_table(result: TaskResult) -> Table:
    """One line per cell: scores, counts and what was kept."""
    raw = table(result)
    columns = [texts("method", raw["method"]), budgets(raw["budget"])]
    if result.metrics:
        title = f"{plain(result.metrics[0].title)} (0-100)"
        columns += [score_column(f"score: {title}", raw, page_header=title), interval_column(raw)]
        full = full_cache(result.cells)
        if full:
            name = plain(full.cell.name)
            differences = []
            for value, low, high in zip(raw["difference"], raw["difference_low"], raw["difference_high"], strict=True):
                shown, around = signed(value), interval(low, high)
                differences.append(number_cell(value, f"{shown} ({around})", large=shown, small=around))
            header = f"difference to {name} ({LEVEL} % interval)"
            columns.append(
                Column(header, differences, spare=DIFFERENCE, page_header="to the full cache", brief="difference")
            )
            shares = [number_cell(value, number(value, 1)) for value in raw["percent_of_full"]]
            columns.append(Column(f"% of {name}", shares, page_header="% of full", extra=True))
        for metric in result.metrics[1:]:
            header, decimals = f"{plain(metric.title)} (0-{metric.maximum:g})", 2 if metric.maximum > 1 else 3
            columns.append(number_column(header, raw[f"mean_{metric.name}"], decimals, METRIC, extra=True))
    return Table("", [*columns, *count_columns(raw, spare_errors=True), *cost_columns(raw)])


def is_broken_down(result: TaskResult) -> bool:
    """True if there are scores to show by value of the breakdown."""
    return bool(result.breakdown and result.metrics and any(cell.done for cell in result.cells))


def _breakdown_table(result: TaskResult) -> Table:
    """Cells down, values of the breakdown across."""
    raw = breakdown(result)
    cells = raw.drop_duplicates(["method", "budget"])
    columns = [texts("method", cells["method"]), budgets(cells["budget"])]
    name = breakdown_name(result)
    for value, part in raw.groupby(name, sort=False):
        header = plain(str(value) if name == "part" else f"{name} {value!s}")
        columns.append(Column(header, [number_cell(score, part_score(score)) for score in part["score"]]))
    return Table("", columns)
