"""Means of records. A mean that lacks one of its values is missing as a whole, not a mean of the rest.

Scores are added up as the public code of LongBench does it (``eval.py`` of https://github.com/THUDM/LongBench at
072a5a7, MIT), so that its rounding gives the published number to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

import numpy as np

MISSING = float("nan")


def mean(values: Iterable[float | None]) -> float:
    """The mean; NaN where there is no value or one of them is missing."""
    known = _known(values)
    return fmean(known) if known else MISSING


def score_mean(scores: Iterable[float | None], maximum: float) -> float:
    """The mean of a metric, 0-100 and unrounded, as LongBench's ``scorer`` adds it up; missing as in ``mean``."""
    known = _known(scores)
    if not known:
        return MISSING
    total = 0.0  # sum() adds more exactly from Python 3.12 on, and could round a half the other way
    for score in known:
        total += score
    return 100 * total / len(known) / maximum


def part_mean(scores: Iterable[float | None], maximum: float) -> float:
    """The same over the examples of one length, as ``scorer_e`` does it: by numpy."""
    known = _known(scores)
    return float(100 * np.mean(known)) / maximum if known else MISSING


def _known(values: Iterable[float | None]) -> list[float]:
    """All values, or none where one is missing."""
    given = list(values)
    known = [value for value in given if value is not None]
    return known if len(known) == len(given) else []
