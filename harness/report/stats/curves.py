"""Scores over budgets, retentions and bytes, as plots, the page and W&B draw them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_ALL = 100.0
_SCORES = ("score", "score_low", "score_high")


@dataclass(frozen=True)
class Curve:
    """One method's scores.

    Attributes:
        label: the method.
        across: where each score stands; None for one that has no place on the axis and is drawn as a line across, NaN
            for one that is left out, as nobody knows where it stands.
        scores: with ``low`` and ``high``, their intervals; NaN where there is none.
    """

    label: str
    across: Sequence[float | None]
    scores: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Curves:
    """The curves of all methods over one axis.

    Attributes:
        by: ``budget``, ``retention`` or ``bytes``.
        across: what the axis is called.
        lines: one per method.
    """

    by: str
    across: str
    lines: Sequence[Curve]

    @property
    def stem(self) -> str:
        """The name of its image, without suffix."""
        return f"by_{self.by}"

    @property
    def ticks(self) -> list[float]:
        """Where the axis is labelled: at the points, as budgets and shares are chosen, or at round numbers of bytes."""
        places = [x for line in self.lines for x in line.across if x is not None and math.isfinite(x)]
        if self.by != "bytes" or not places:
            return apart(places)
        low, high = min(places), max(places)
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        return [x for decade in decades for step in (1, 2, 5) if low <= (x := step * 10.0**decade) <= high]


def score_curves(raw: pd.DataFrame) -> list[Curves]:
    """The scores by budget, retention (in percent of the full cache) and, where a storage packs, bytes.

    Args:
        raw: rows of ``table``, or of one column of ``suite_table``.
    """
    budgets, retentions = [], []
    for label, rows in raw.groupby("method", sort=False):
        values = (list(rows["score"]), list(rows["score_low"]), list(rows["score_high"]))
        budgets.append(Curve(str(label), [_entries(budget) for budget in rows["budget"]], *values))
        shares: list[float | None] = [100 * share for share in rows["retention"]]
        # A method that always kept everything is a line to hold the others against, and as points would push them into
        # a corner.
        retentions.append(Curve(str(label), [None] * len(shares) if set(shares) == {_ALL} else shares, *values))
    sizes = [
        Curve(str(label), [size / 1e6 for size in rows["kept_bytes"]], *(list(rows[name]) for name in _SCORES))
        for label, rows in (raw.groupby("method", sort=False) if "kept_bytes" in raw else ())
    ]
    by_bytes = [Curves("bytes", "KV cache kept of a prompt, MB", sizes)] if sizes else []
    return [
        Curves("budget", "budget, KV entries per head and layer", budgets),
        Curves("retention", "KV entries really kept, % of the prompt", retentions),
        *by_bytes,
    ]


def apart(values: Iterable[float]) -> list[float]:
    """Values by size without those that would stand on top of the one before on a logarithmic axis."""
    kept: list[float] = []
    for value in sorted(set(values)):
        if not kept or value > 1.15 * kept[-1]:
            kept.append(value)
    return kept


def _entries(budget: str) -> float | None:
    """Where a budget stands on the axis; None for shares and the full cache, which are lines across."""
    return float(budget) if budget.isdigit() else None
