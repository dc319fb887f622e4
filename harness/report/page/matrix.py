"""The matrix of the report page: methods down, budgets across, as papers print scores, coloured by the score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex

from harness.report.colours import colour_of
from harness.report.document import budget_size
from harness.report.format import interval, number
from harness.text import plain


@dataclass(frozen=True)
class Square:
    """One cell: its score and how it is painted; ``says`` has the interval."""

    text: str
    says: str
    paper: str
    ink: str


@dataclass(frozen=True)
class Line:
    """One method; None where it has no such budget."""

    label: str
    colour: str
    squares: Sequence[Square | None]


@dataclass(frozen=True)
class Matrix:
    """Scores of all cells.

    Attributes:
        title: what the scores are.
        budgets: across, by size.
        lines: methods, down.
    """

    title: str
    budgets: Sequence[str]
    lines: Sequence[Line]


def matrix(raw: pd.DataFrame, title: str) -> Matrix | None:
    """The matrix of some scores, on the fixed scale 0-100; None where there is no score.

    Args:
        raw: rows of ``table``, or of one column of ``suite_table``.
        title: what the scores are.
    """
    known = raw[raw["score"].notna()]
    if known.empty:
        return None
    budgets = sorted(dict.fromkeys(known["budget"]), key=lambda budget: budget_size(budget) or math.inf)
    lines = []
    for label, rows in known.groupby("method", sort=False):
        squares = {row["budget"]: _square(str(label), row) for _, row in rows.iterrows()}
        lines.append(Line(plain(str(label)), colour_of(str(label)), [squares.get(budget) for budget in budgets]))
    return Matrix(f"{plain(title)} (0-100)", [plain(budget) for budget in budgets], lines)


def _square(label: str, row: pd.Series) -> Square:
    score, low, high = (float(row[name]) for name in ("score", "score_low", "score_high"))
    shade = colormaps["viridis"](min(max(score / 100, 0), 1))
    light = 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2] > 0.5
    says = f"{plain(label)} {plain(row['budget'])}: {number(score, 2)}"
    if math.isfinite(low):
        says += f" ({interval(low, high)})"
    return Square(number(score, 1), says, to_hex(shade), "#111418" if light else "#ffffff")
