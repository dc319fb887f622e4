"""Columns that several tables have: scores with their intervals, counts, and what was kept."""

from __future__ import annotations

import math

import pandas as pd

from harness.report.document import Column, TableCell, count_cell, interval_cell, number_cell
from harness.report.format import DASH, interval, number, percent
from harness.report.notes import MISSED
from harness.report.stats.bootstrap import LEVEL
from harness.report.stats.summary import misses
from harness.text import plain

PROMPT_TOKENS, ERRORS, METRIC, KEPT_ENTRIES, ITS_INTERVAL, DIFFERENCE, INTERVAL = range(7)
"""The order in which columns are left out where a terminal has no room for them, the least telling first."""


def score_column(header: str, raw: pd.DataFrame, page_header: str = "") -> Column:
    """Scores; on the page with their intervals, as small print and as bars that share a scale.

    Args:
        header: what the column is called.
        raw: its rows of ``table`` or ``suite_table``.
        page_header: what the page calls it, where it is something else.
    """
    ends = [value for name in ("score", "score_low", "score_high") for value in raw[name] if math.isfinite(value)]
    start, room = min(ends, default=0.0), max(ends, default=0.0) - min(ends, default=0.0)

    def share(value: float) -> float:
        return round(100 * (value - start) / room, 1)

    cells = []
    for value, low, high in zip(raw["score"], raw["score_low"], raw["score_high"], strict=True):
        known = math.isfinite(low)
        bar = (share(low), share(value), share(high)) if known and room > 0 else None
        cells.append(number_cell(value, number(value, 2), small=interval(low, high) if known else "", bar=bar))
    return Column(header, cells, page_header=page_header)


def interval_column(
    raw: pd.DataFrame, name: str = "score", header: str = f"{LEVEL} % interval", spare: int = INTERVAL
) -> Column:
    """Intervals, which the page shows as the small print of another column.

    Args:
        raw: rows of ``table`` or ``suite_table``.
        name: of what they are the intervals.
        header: what the column is called.
        spare: its rank among the columns that a narrow terminal leaves out.
    """
    pairs = zip(raw[f"{name}_low"], raw[f"{name}_high"], strict=True)
    return Column(header, [interval_cell(low, high) for low, high in pairs], spare=spare, page_header=None)


def number_column(
    header: str, values: pd.Series[float], decimals: int, spare: int | None = None, extra: bool = False
) -> Column:
    """Rounded numbers.

    Args:
        header: what the column is called.
        values: unrounded; NaN where one is missing.
        decimals: how many.
        spare: its rank among the columns that a narrow terminal leaves out; None if it never does.
        extra: True if the terminal shows it in wide tables alone.
    """
    return Column(header, [number_cell(value, number(value, decimals)) for value in values], spare=spare, extra=extra)


def share_columns(raw: pd.DataFrame) -> list[Column]:
    """Shares of the full cache in percent: of its entries, marked where they miss the budget, and of its bytes.

    Where a storage packed entries, also the bits of memory for each number.
    """
    off = raw["off_budget"] if "off_budget" in raw else [math.nan] * len(raw)
    marks = [MISSED if misses(value) else "" for value in off]
    entries = [
        number_cell(value, f"{percent(value)}{mark}") for value, mark in zip(raw["retention"], marks, strict=True)
    ]
    return [
        Column("entries %", entries),
        Column("bytes %", [number_cell(value, percent(value)) for value in raw["retention_bytes"]]),
        *([number_column("bits", raw["bits"], 2)] if "bits" in raw else []),
    ]


def count_columns(raw: pd.DataFrame, spare_errors: bool) -> list[Column]:
    """How many results there are, and how many errors; extra where all examples have one and no error.

    Args:
        raw: rows of ``table`` or ``suite_table``.
        spare_errors: True if a narrow terminal may leave errors out where there are none.
    """
    results = [count_cell(n, expected) for n, expected in zip(raw["n"], raw["expected"], strict=True)]
    spare = ERRORS if spare_errors and not raw["errors"].any() else None
    errors = [number_cell(n, str(n)) for n in raw["errors"]]
    return [
        Column("n", results, extra=bool((raw["n"] == raw["expected"]).all())),
        Column("errors", errors, spare=spare, extra=not raw["errors"].any()),
    ]


def cost_columns(raw: pd.DataFrame) -> list[Column]:
    """What was kept and of what; the last column only where there are aliases."""
    kept, in_all = [], [number_cell(total, number(total, 0)) for total in raw["kept_total"]]
    for least, mean, most, total in zip(
        *(raw[name] for name in ("kept_min", "kept_mean", "kept_max", "kept_total")), strict=True
    ):
        if pd.isna(least):
            kept.append(TableCell(DASH))
        else:
            small = f"{'' if least == most else f'{least} to {most}, '}in all {total:.0f}"
            kept.append(TableCell(f"{least}/{mean:.0f}/{most}", mean, large=number(mean, 0), small=small))
    columns = [
        Column("kept min/mean/max", kept, spare=KEPT_ENTRIES, page_header="entries kept", extra=True),
        Column("kept in all", in_all, spare=KEPT_ENTRIES, page_header=None, extra=True),
        *share_columns(raw),
        *([number_column("KV MB", raw["kept_bytes"] / 1e6, 3, KEPT_ENTRIES, extra=True)] if "bits" in raw else []),
        number_column("prompt tokens", raw["prompt_tokens_mean"], 0, PROMPT_TOKENS, extra=True),
    ]
    if raw["alias_of"].notna().any():
        names = ["" if pd.isna(name) else plain(name) for name in raw["alias_of"]]
        columns.append(
            Column(
                "same as",
                [TableCell(f"= {name}" if name else "", name, large=name) for name in names],
                numeric=False,
                extra=True,
            )
        )
    return columns
