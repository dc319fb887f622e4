"""Numbers as text: how tables, plots and the page round them. What is missing is a dash."""

from __future__ import annotations

import math

import numpy as np

DASH = "–"


def number(value: float, decimals: int) -> str:
    """A rounded number; a dash for what is missing."""
    return f"{value:.{decimals}f}" if math.isfinite(value) else DASH


def signed(value: float) -> str:
    """A difference with its sign and two decimals; a dash for what is missing."""
    return f"{value:+.2f}" if math.isfinite(value) else DASH


def part_score(value: float) -> str:
    """A score over the examples of one value of a breakdown, rounded by numpy, as LongBench-E's are published."""
    return number(float(np.round(value, 2)), 2)


def interval(low: float, high: float) -> str:
    """An interval; a dash where there is none."""
    return f"{low:.2f} to {high:.2f}" if math.isfinite(low) else DASH


def percent(share: float) -> str:
    """A share in percent, as budgets of long prompts are tiny shares.

    It has one decimal, below 10 two, and below 0.1 two significant digits.
    """
    percent = 100 * share
    return f"{percent:.2g}" if 0 < percent < 0.1 else number(percent, 2 if percent < 10 else 1)


def counted(n: int, expected: int) -> str:
    """A count, and of how many where some are missing."""
    return str(n) if n == expected else f"{n} of {expected}"


def short(value: float) -> str:
    """A number at the tick of an axis: three significant digits, or all of them before the point."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
