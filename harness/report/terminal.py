"""Documents on the terminal: within its width and within 100 columns, unless a reader asks for all there is."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd
from rich import box
from rich import table as rich_table
from rich.console import Console
from rich.measure import Measurement
from rich.text import Text

from harness.printing import lines, say, width_of
from harness.report.document import Column, Document, Table, budgets, number_cell, texts
from harness.report.format import number
from harness.report.notes import MISSED
from harness.text import plain

_MOST_LINES = 11
"""Of a title, a table and its notes at the end of a run: with what was computed and the paths they are 15 at most."""
_MOST_METHODS = 5
REST = "all methods: kvgauge report with the results folder, or table.md"
"""What is said where the end of a run has room for some of the methods."""
_LEGENDS = ("kept:", "same as:", "Intervals:")
"""How notes begin that explain columns which the end of a run has no room for."""
_PRESSING = (
    "errors of", "the full cache scores", "answers are", "A is of", "B is of", "A was compressed", "not in",
    "missing here", "n of N:", "audit:", "fewer examples", "bytes %", "* misses", "entries while decoding",
)  # fmt: skip
"""How notes begin without which the numbers mislead, the most important first."""


def show(document: Document, console: Console, wide: bool = False) -> None:
    """Print a document.

    A table comes without its extra columns. What is still too wide for 100 columns, or for a narrower terminal, comes
    without its spare columns, and a note says which; or in pieces that repeat the keys.

    Args:
        document: what to print.
        console: where to print.
        wide: print all columns: in a terminal in pieces, elsewhere, as in a file, whole.
    """
    width = width_of(console)
    console.print(Text(plain(document.title), style="bold"), soft_wrap=True)
    left_out: list[str] = []
    for table in document.tables:
        if table.title:
            console.print(Text(f"\n{plain(table.title)}"), soft_wrap=True)
        if wide:
            pieces = list(_pieces(table, console.width)) if console.is_terminal else [table]
        else:
            table, headers = _without_spare(_brief(table), width)
            left_out += headers
            pieces = list(_pieces(table, width))
        for piece in pieces:
            console.print(_rich(piece), crop=False)
    for note in [*document.notes, *([f"left out for want of room: {', '.join(left_out)}"] if left_out else [])]:
        if wide:
            console.print(Text(plain(note)), soft_wrap=True)
        else:
            say(console, note)


def show_end(document: Document, scores: pd.DataFrame, console: Console, what: str = "score") -> None:
    """Print what the end of a run has room for: the first table, or scores by method and budget; and the first notes.

    Args:
        document: the document of a task or a suite.
        scores: ``method``, ``budget`` and a number, ``score``, of every cell.
        console: where to print.
        what: what the number is.
    """
    table, width = _brief(document.tables[0]), width_of(console)
    rest, marked = list[str](), True
    if table.title or _lines(table) > _MOST_LINES - 3:
        table, marked = _matrix(scores, what), False
        if len(table.rows) < scores["method"].nunique():
            rest = [REST]
    room = _MOST_LINES - _lines(table)
    told = [note for note in document.notes if not note.startswith(_LEGENDS)]
    # Where the whole table is shown, its column of bytes says it already.
    pressing = [note for note in pressing_notes(told) if not (marked and note.startswith("bytes %"))]
    told = [*pressing, *(note for note in told if note not in pressing)]
    shown = rest
    for place, note in enumerate(told):
        free = room - len(shown) - (place + 1 < len(told))
        if free < 1:
            shown.append(f"{len(told) - place} more notes are in the files")
            break
        # Only the whole table has the mark that some notes explain.
        shown += lines(note if marked else note.removeprefix(f"{MISSED} "), width, most=min(2, free))
    show(replace(document, tables=[table], notes=shown), console)


def pressing_notes(notes: Sequence[str]) -> list[str]:
    """Those of a document's notes without which its numbers mislead, the most important first."""
    return [note for words in _PRESSING for note in notes if note.startswith(words)]


def _lines(table: Table) -> int:
    """Of the printed table and its title."""
    return 2 + max(len(_header(column)) for column in table.columns) + len(table.rows)


def _matrix(scores: pd.DataFrame, what: str) -> Table:
    """Methods down, budgets across; of many methods the first ones."""
    by_budget = budgets(dict.fromkeys(scores["budget"]))
    order = sorted(by_budget.cells, key=lambda cell: (cell.value is None, cell.value or 0))
    methods = list(dict.fromkeys(scores["method"]))
    shown = methods if len(methods) <= _MOST_METHODS else methods[: _MOST_METHODS - 1]
    known = {
        (method, plain(budget)): score
        for method, budget, score in zip(*(scores[n] for n in ("method", "budget", "score")), strict=True)
    }
    more = [] if shown == methods else [f"and {len(methods) - len(shown)} more"]
    columns = [texts(what, [*shown, *more])]
    for cell in order:
        values = [known.get((method, cell.text), float("nan")) for method in shown]
        columns.append(
            Column(
                cell.text, [number_cell(value, number(value, 2)) for value in [*values, *[float("nan")] * len(more)]]
            )
        )
    return Table("", columns, keys=1)


def _brief(table: Table) -> Table:
    return _only(table, [_short(column) for column in table.columns if not column.extra])


def _short(column: Column) -> Column:
    cells = [replace(cell, text=cell.large or cell.text) for cell in column.cells] if column.brief else column.cells
    return replace(column, header=column.brief or column.header, cells=cells)


def _without_spare(table: Table, width: int) -> tuple[Table, list[str]]:
    """A table without the spare columns that do not fit into so many characters, and what these are called."""
    left_out = []
    while _width(table) > width:
        spare = [(column.spare, -place) for place, column in enumerate(table.columns) if column.spare is not None]
        if not spare:
            break
        column = table.columns[-min(spare)[1]]
        table = _only(table, [other for other in table.columns if other is not column])
        left_out.append(column.header)
    return table, left_out


def _only(table: Table, columns: Sequence[Column]) -> Table:
    return replace(table, columns=columns)


def _pieces(table: Table, width: int) -> Iterator[Table]:
    """A table in pieces of at most so many characters where that can be done, each with the keys."""
    keys, piece = list(table.columns[: table.keys]), list[Column]()
    for column in table.columns[table.keys :]:
        if piece and _width(_only(table, [*keys, *piece, column])) > width:
            yield _only(table, [*keys, *piece])
            piece = []
        piece.append(column)
    yield _only(table, [*keys, *piece])


def _width(table: Table) -> int:
    """Of the printed table, in characters."""
    return _rich(table).width or 0


def _header(column: Column) -> list[str]:
    """Its lines, as wide as the cells or somewhat wider."""
    return textwrap.wrap(
        plain(column.header), max([12, *(len(cell.text) for cell in column.cells)]), break_long_words=False
    )


def _rich(table: Table) -> rich_table.Table:
    """The table at its natural width, with headers broken to the width of their columns; labels are never markup."""
    rendered = rich_table.Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in table.columns:
        rendered.add_column(
            Text("\n".join(_header(column))), justify="right" if column.numeric else "left", no_wrap=True
        )
    for row in table.rows:
        rendered.add_row(*(Text(cell.text) for cell in row))
    endless = Console(width=10**6)
    rendered.width = Measurement.get(endless, endless.options, rendered).maximum
    return rendered
