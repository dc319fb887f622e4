"""A document: titled tables with notes.

Each is made once; ``render`` writes and prints it, and the page shows the same tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from harness.compression.budget import FULL, parse_budget
from harness.errors import ConfigError
from harness.report.format import DASH, counted, interval
from harness.text import plain

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TableCell:
    """What stands at one place of a table.

    Attributes:
        text: on one line and rounded; nothing in it is escaped.
        value: what it is sorted by; None, and last, where something is missing.
        large: what the page shows above the small print; the text where this is "".
        small: small print on the page, such as an interval, or "".
        bar: an interval with its value (low, value, high), in percent of the range that the column covers; None where
            nothing is drawn.
    """

    text: str
    value: float | str | None = None
    large: str = ""
    small: str = ""
    bar: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        header: what it is called.
        cells: from the first line to the last.
        numeric: True if it is aligned right and sorted from the largest; False for text.
        spare: when a terminal that is too narrow leaves the column out: the lowest first, of equals the last; None if
            it never does.
        page_header: what the page calls it, where it is something else; None for a column that the page leaves out, as
            it is the small print of another.
        extra: True for a column that the terminal shows only to a reader who asks for wide tables.
        brief: what the terminal calls it otherwise, with the large texts of its cells; "" for header and texts as they
            are.
    """

    header: str
    cells: Sequence[TableCell]
    numeric: bool = True
    spare: int | None = None
    page_header: str | None = ""
    extra: bool = False
    brief: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: its heading, or "".
        columns: from left to right, all of one length.
        keys: the first so many columns name a line; they are repeated where a terminal is too narrow for all columns.
        starts: lines before which a group begins; empty where each line stands for itself and the table may be sorted.
    """

    title: str
    columns: Sequence[Column]
    keys: int = 2
    starts: frozenset[int] = frozenset()

    @property
    def rows(self) -> list[tuple[TableCell, ...]]:
        """The cells line by line."""
        return list(zip(*(column.cells for column in self.columns), strict=True))

    @cached_property
    def on_page(self) -> list[Column]:
        """The columns that the page shows."""
        return [column for column in self.columns if column.page_header is not None]


@dataclass(frozen=True)
class Document:
    """What is written and printed together.

    Attributes:
        title: its heading.
        stem: the name of its Markdown and LaTeX files, without suffix.
        tables: in their order.
        notes: what stands under them.
        data: the numbers themselves, unrounded, by the names of the CSV files that hold them.
        papers: the tables of the LaTeX file, where these are not ``tables``.
    """

    title: str
    stem: str
    tables: Sequence[Table]
    notes: Sequence[str]
    data: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    papers: Sequence[Table] | None = None


def number_cell(
    value: float, text: str, large: str = "", small: str = "", bar: tuple[float, float, float] | None = None
) -> TableCell:
    """A number and how it is written; a dash where it is missing."""
    return TableCell(text, float(value), large, small, bar) if math.isfinite(value) else TableCell(DASH)


def interval_cell(low: float, high: float) -> TableCell:
    """An interval, sorted by where it begins; a dash where there is none."""
    return number_cell(low, interval(low, high))


def count_cell(n: int, expected: int) -> TableCell:
    """A count, and of how many where some are missing."""
    return TableCell(counted(n, expected), float(n), large=str(n), small="" if n == expected else f"of {expected}")


def texts(header: str, values: Iterable[object]) -> Column:
    """A column of texts, made safe to show."""
    shown = [plain(str(value)) for value in values]
    return Column(header, [TableCell(text, text) for text in shown], numeric=False)


def budgets(values: Iterable[str]) -> Column:
    """The column of budgets: sorted by number of entries, then shares, then the full cache."""
    return Column("budget", [TableCell(plain(text), budget_size(text)) for text in values], numeric=False)


def grouped(
    title: str, headers: Sequence[str], groups: Sequence[tuple[str, str, Mapping[str, Sequence[str]]]]
) -> Table:
    """A table with several lines for each method and budget.

    Args:
        title: the table's.
        headers: of the columns of numbers.
        groups: method, budget, and lines by what they show, each with as many texts as there are headers.
    """
    starts: list[int] = []
    lines: list[list[str]] = []
    for method, budget, shown in groups:
        starts.append(len(lines))
        for name, line in shown.items():
            lines.append([*((method, budget) if len(lines) == starts[-1] else ("", "")), name, *line])
    columns = list(zip(*lines, strict=True)) or [()] * (3 + len(headers))
    keys = [texts(header, column) for header, column in zip(("method", "budget", ""), columns[:3], strict=True)]
    numbers = [
        Column(header, [TableCell(text) for text in column])
        for header, column in zip(headers, columns[3:], strict=True)
    ]
    return Table(title, [*keys, *numbers], 3, frozenset(starts))


def budget_size(budget: str) -> float | None:
    """What budgets are sorted by: entries, then shares, ``own``, and the full cache; None for what is no budget."""
    try:
        size = parse_budget(budget)
    except ConfigError:  # a published table need not say
        return None
    if size.tokens is not None:
        return float(size.tokens)
    if size.share is not None:
        return 1e9 + float(size.share)
    return 1e10 if size == FULL else 2e9
