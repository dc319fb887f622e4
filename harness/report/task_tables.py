"""Tables of a task's cells: Markdown, CSV and LaTeX files with the plots beside them, and a table for the terminal.

The CSV holds raw numbers under plain column names; everything else shows the same numbers rounded. What is missing is an en dash.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harness.report.notes import cell_notes, error_notes, published_notes
from harness.report.plots import heatmap, summary
from harness.report.stats.bootstrap import LEVEL
from harness.report.stats.table import breakdown, full_cache, table
from harness.results import TaskResult
from harness.text import plain

DASH = "–"
SAME_AS = "same as: kept exactly the entries of that cell in every example, so it was decoded once for both."
KEPT = "kept: KV entries per layer and head, over layers and examples. entries %, bytes %: share of the full cache."
COST_HEADERS = {
    "kept": "kept min/mean/max",
    "retention": "entries %",
    "retention_bytes": "bytes %",
    "prompt_tokens_mean": "prompt tokens",
    "alias_of": "same as",
}
_LEFT = ("method", "budget", "column", "alias_of", COST_HEADERS["alias_of"])
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~$&!])")


def write_report(result: TaskResult, folder: Path) -> list[Path]:
    """Write ``table.md``, ``table.csv``, ``table.tex`` and, where there are scores to draw, ``summary.png`` and ``heatmap.png``.

    A task with a breakdown also has ``breakdown.csv``, and its scores by value below the table.

    The same result gives the same bytes.

    Args:
        result: what to report.
        folder: created if need be; files of these names are replaced.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    raw = table(result)
    notes = _notes(result, raw)
    texts = {
        "table.md": _markdown(result, raw, notes),
        "table.csv": raw.to_csv(index=False, lineterminator="\n"),
        "table.tex": _latex(result, raw, notes),
    }
    if is_broken_down(result):
        texts["breakdown.csv"] = breakdown(result).to_csv(index=False, lineterminator="\n")
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    plots = {"summary.png": summary} if result.metrics and any(cell.records for cell in result.cells) else {}
    if plots and result.heatmap_axes:
        plots["heatmap.png"] = heatmap
    for name, draw in plots.items():
        draw(result, folder / name)
    return [folder / name for name in (*texts, *plots)]


def print_table(result: TaskResult, console: Console) -> None:
    """Print the table and its notes.

    In a terminal that is too narrow, columns are left out, the least telling first, and a note says which. Elsewhere the table is
    printed whole, however wide.
    """
    raw = table(result)
    shown, headers = _shown(result, raw), _headers(result)
    spare = ["prompt_tokens_mean", *(f"mean_{m.name}" for m in reversed(result.metrics[1:])), "kept", "difference", "score_interval"]
    if "errors" in shown and (shown["errors"] == "0").all():
        spare.insert(1, "errors")
    rendered, left_out = fitting_table(shown, headers, spare, console)
    console.print(Text(_title(result), style="bold"))
    console.print(rendered, crop=False)
    if is_broken_down(result):
        parts = _broken_down(result)
        console.print(rich_table(parts, {}), crop=False)
    for note in [*_notes(result, raw), *left_out]:
        console.print(Text(note), soft_wrap=True)


def _title(result: TaskResult) -> str:
    return plain(f"{result.task} on {result.model}")


def _headers(result: TaskResult) -> dict[str, str]:
    """What the columns of ``_shown`` are called."""
    full = full_cache(result.cells)
    headers = {"method": "method", "budget": "budget"}
    if result.metrics:
        headers["score"] = f"score: {plain(result.metrics[0].title)} (0-100)"
        headers["score_interval"] = f"{LEVEL} % interval"
        if full:
            headers["difference"] = f"difference to {plain(full.cell.name)} ({LEVEL} % interval)"
            headers["percent_of_full"] = f"% of {plain(full.cell.name)}"
        headers |= {f"mean_{m.name}": f"{plain(m.title)} (0-{m.maximum:g})" for m in result.metrics[1:]}
    return headers | {"n": "n", "errors": "errors"} | COST_HEADERS


def _shown(result: TaskResult, raw: pd.DataFrame) -> pd.DataFrame:
    """The table as rounded text, control characters replaced, nothing escaped."""
    if raw.empty:
        return pd.DataFrame(columns=["method", "budget"], dtype=str)
    shown = pd.DataFrame({"method": raw["method"].map(plain), "budget": raw["budget"].map(plain)})
    if result.metrics:
        shown["score"] = [number(v, 2) for v in raw["score"]]
        shown["score_interval"] = [interval(*pair) for pair in zip(raw["score_low"], raw["score_high"], strict=True)]
        if "percent_of_full" in raw:
            triples = zip(raw["difference"], raw["difference_low"], raw["difference_high"], strict=True)
            shown["difference"] = [DASH if pd.isna(d) else f"{d:+.2f} ({interval(low, high)})" for d, low, high in triples]
            shown["percent_of_full"] = [number(v, 1) for v in raw["percent_of_full"]]
        for metric in result.metrics[1:]:
            shown[f"mean_{metric.name}"] = [number(v, 2 if metric.maximum > 1 else 3) for v in raw[f"mean_{metric.name}"]]
    shown["n"] = [str(n) if n == expected else f"{n} of {expected}" for n, expected in zip(raw["n"], raw["expected"], strict=True)]
    shown["errors"] = raw["errors"].map(str)
    return shown.assign(**cost_columns(raw))


def cost_columns(raw: pd.DataFrame) -> dict[str, list[str]]:
    """What was kept and of what, as text; the columns of ``COST_HEADERS``, the last only where there are aliases."""
    entries = zip(raw["kept_min"], raw["kept_mean"], raw["kept_max"], strict=True)
    columns = {
        "kept": [DASH if pd.isna(least) else f"{least}/{average:.0f}/{most}" for least, average, most in entries],
        "retention": [percent(v) for v in raw["retention"]],
        "retention_bytes": [percent(v) for v in raw["retention_bytes"]],
        "prompt_tokens_mean": [number(v, 0) for v in raw["prompt_tokens_mean"]],
    }
    if raw["alias_of"].notna().any():
        columns["alias_of"] = ["" if pd.isna(name) else f"= {plain(name)}" for name in raw["alias_of"]]
    return columns


def is_broken_down(result: TaskResult) -> bool:
    """Whether there are scores to show by value of the breakdown."""
    return bool(result.breakdown and result.metrics and any(cell.done for cell in result.cells))


def _broken_down(result: TaskResult) -> pd.DataFrame:
    """Cells down, values of the breakdown across."""
    raw = breakdown(result)
    wide = raw.assign(score=[part_score(v) for v in raw["score"]]).set_index(["method", "budget", raw.columns[2]])["score"].unstack()
    wide = wide.reindex(
        index=list(dict.fromkeys(zip(raw["method"], raw["budget"], strict=True))), columns=list(dict.fromkeys(raw.iloc[:, 2]))
    )
    shown = wide.rename(columns=lambda value: plain(f"{result.breakdown} {value}")).reset_index()
    return shown.assign(method=shown["method"].map(plain))


def escape_markdown(text: str) -> str:
    """``text`` as Markdown that shows it."""
    return _MARKDOWN.sub(r"\\\1", text)


def number(value: float, decimals: int) -> str:
    """A rounded number; a dash for what is missing."""
    return f"{value:.{decimals}f}" if math.isfinite(value) else DASH


def part_score(value: float) -> str:
    """A score over the examples of one value of a breakdown, rounded by numpy, as LongBench-E's are published."""
    return number(float(np.round(value, 2)), 2)


def interval(low: float, high: float) -> str:
    """An interval; a dash where there is none."""
    return f"{low:.2f} to {high:.2f}" if math.isfinite(low) else DASH


def percent(share: float) -> str:
    """A share in percent: one decimal, below 10 two, below 1 two significant digits, as budgets of long prompts are tiny shares."""
    percent = 100 * share
    return f"{percent:.2g}" if 0 < percent < 0.1 else number(percent, 2 if percent < 10 else 1)


def _notes(result: TaskResult, raw: pd.DataFrame) -> list[str]:
    """What stands under the table."""
    notes = [plain(result.note)] if result.note else []
    notes.append(KEPT)
    notes += [*published_notes({result.task: result}), *cell_notes(result.cells)]
    if not raw.empty and raw["alias_of"].notna().any():
        notes.append(SAME_AS)
    return notes + error_notes(result)


def _markdown(result: TaskResult, raw: pd.DataFrame, notes: Sequence[str]) -> str:
    shown, headers = _shown(result, raw), _headers(result)
    tables = [markdown_table(shown, headers)]
    if is_broken_down(result):
        tables.append(markdown_table(_broken_down(result), {}))
    return "\n\n".join([f"# {escape_markdown(_title(result))}", *tables, *(f"Note: {escape_markdown(note)}" for note in notes)]) + "\n"


def markdown_table(shown: pd.DataFrame, headers: dict[str, str], left: Sequence[str] = _LEFT) -> str:
    """The table in Markdown; arguments as of ``rich_table``."""
    align = ["left" if name in left else "right" for name in shown]
    cells = shown.map(escape_markdown).rename(columns={name: escape_markdown(headers.get(str(name), str(name))) for name in shown})
    # disable_numparse: tabulate would otherwise reformat what looks like a number
    return str(cells.to_markdown(index=False, disable_numparse=True, colalign=align if len(cells) else None))


def _latex(result: TaskResult, raw: pd.DataFrame, notes: Sequence[str]) -> str:
    tables = [(_shown(result, raw), _headers(result))]
    if is_broken_down(result):
        tables.append((_broken_down(result), {}))
    return latex_tables(tables, [_title(result), *notes])


def latex_tables(tables: Sequence[tuple[pd.DataFrame, dict[str, str]]], notes: Sequence[str]) -> str:
    """Tabulars, each made as narrow as the line if it is wider, and one below with the title and the notes.

    Args:
        tables: rounded text, and what columns are called otherwise.
        notes: texts, the title first.
    """
    parts = [r"% needs \usepackage{booktabs} and \usepackage{graphicx}" + "\n"]
    for shown, headers in tables:
        align = "".join("l" if name in _LEFT else "r" for name in shown)
        styled = shown.rename(columns=headers).style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
        table = styled.to_latex(column_format=align, hrules=True)
        parts.append(r"\noindent\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{" + f"%\n{table}}}\n")
    below = pd.DataFrame({"note": notes}).style.hide(axis="index").hide(axis="columns").format(escape="latex")
    return "\n".join([*parts, r"\noindent" + below.to_latex(column_format=r"@{}p{\linewidth}@{}")])


def fitting_table(shown: pd.DataFrame, headers: dict[str, str], spare: Sequence[str], console: Console) -> tuple[Table, list[str]]:
    """``rich_table`` with as many columns as a terminal has room for, and a note on those that it has none for.

    Args:
        shown: rounded text.
        headers: what its columns are called otherwise.
        spare: columns that may be left out, the least telling first.
        console: where it is to be printed.
    """
    left_out: list[str] = []
    rendered = rich_table(shown, headers)
    for name in (name for name in spare if name in shown):
        if not console.is_terminal or rendered.width is None or rendered.width <= console.width:
            break
        left_out.append(headers.get(name, name))
        shown = shown.drop(columns=name)
        rendered = rich_table(shown, headers)
    return rendered, [f"left out for want of room: {', '.join(left_out)}"] if left_out else []


def rich_table(shown: pd.DataFrame, headers: dict[str, str], left: Sequence[str] = _LEFT) -> Table:
    """The table at its natural width; headers are broken to the width of their columns. Text objects: labels are never markup.

    Args:
        shown: rounded text.
        headers: what its columns are called otherwise.
        left: columns that are aligned left.
    """
    rendered = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in shown:
        width = max([8, *shown[name].str.len()])
        lines = textwrap.wrap(headers.get(str(name), str(name)), width, break_long_words=False)
        rendered.add_column(Text("\n".join(lines)), justify="left" if name in left else "right", no_wrap=True)
    for row in shown.itertuples(index=False):
        rendered.add_row(*(Text(cell) for cell in row))
    endless = Console(width=10**6)
    rendered.width = Measurement.get(endless, endless.options, rendered).maximum
    return rendered
