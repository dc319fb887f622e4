"""Bootstrap intervals of scores and of paired differences, within a task and over several.

One set of resamples serves all cells of a task, so that differences between cells are paired: a resample takes the same
examples from both. Error records and missing examples are left out of a mean, and out of a pair; a result without the
score is not: it makes the cell's mean missing, as in ``means``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.report.stats.means import score_mean
from harness.results import Cell, TaskResult

RESAMPLES = 2000
LEVEL = 95
FEWEST = 5
"""Examples that an interval needs: resamples of fewer hardly differ, and would look more certain than they are."""

_BLOCK = 2**17
"""Weights that are made floating-point numbers at a time: 1 MiB, which stays in the cache for all cells."""

Floats = NDArray[np.float64]

NONE: Floats = np.full(1 + RESAMPLES, np.nan)
"""A mean that there is not, and its resamples."""


class TaskDraws:
    """The headline scores of a task's cells, 0-100, with their resampled means."""

    def __init__(self, result: TaskResult) -> None:
        """Draw once for all cells; the draws depend on the task's name and its number of examples alone.

        Args:
            result: has ``metrics``.
        """
        metric = result.metrics[0]
        names = list(dict.fromkeys(r.example_id for cell in result.cells for r in cell.records))
        place = {name: i for i, name in enumerate(names)}
        self._scores: dict[Cell, Floats] = {}
        self._means: dict[Cell, float] = {}
        for cell in result.cells:
            scores = {place[r.example_id]: r.scores.get(metric.name) for r in cell.done}
            values = np.full(len(names), np.nan)
            if None not in scores.values():
                values[list(scores)] = 100 * np.array(list(scores.values()), dtype=float) / metric.maximum
            self._scores[cell.cell] = values
            self._means[cell.cell] = score_mean(scores.values(), metric.maximum)
        seed = int.from_bytes(hashlib.sha256(result.task.encode()).digest()[:8], "little")
        draw = np.random.default_rng(seed)
        # How often each example is in each resample: a resampled mean is then one product.
        self._weights = np.zeros((RESAMPLES, len(names)), np.uint16)
        for row in self._weights if names else ():
            row += np.bincount(draw.integers(0, len(names), len(names)), minlength=len(names)).astype(np.uint16)

        self._drawn: dict[Cell | None, dict[Cell, Floats]] = {}

    def score(self, cell: Cell) -> Floats:
        """The mean of a cell and, behind it, its resampled means: [1 + RESAMPLES]."""
        return self._draws(None)[cell]

    def difference(self, cell: Cell, reference: Cell) -> Floats:
        """The same of the difference to another cell, over the examples that both have."""
        return self._draws(reference)[cell]

    def _draws(self, reference: Cell | None) -> dict[Cell, Floats]:
        """Of every cell, the mean and then its resampled means; all NaN with fewer examples than ``FEWEST``."""
        if reference not in self._drawn:
            base: Floats | float = 0.0 if reference is None else self._scores[reference]
            values = {cell: scores - base for cell, scores in self._scores.items()}
            known = {cell: np.isfinite(scores) for cell, scores in values.items()}
            resampled: dict[Cell, list[Floats]] = {cell: [] for cell, there in known.items() if there.sum() >= FEWEST}
            zeroed = {cell: np.where(known[cell], values[cell], 0.0) for cell in resampled}
            examples = self._weights.shape[1]
            rows = max(1, _BLOCK // max(1, examples))
            for weights in (self._weights[start : start + rows].astype(float) for start in range(0, RESAMPLES, rows)):
                for cell, means in resampled.items():
                    counts = examples if known[cell].all() else weights @ known[cell]
                    with np.errstate(invalid="ignore", divide="ignore"):
                        means.append((weights @ zeroed[cell]) / counts)
            self._drawn[reference] = {}
            for cell, scores in values.items():
                there = scores[known[cell]]
                mean = self._means[cell] if reference is None else float(there.mean()) if len(there) else math.nan
                self._drawn[reference][cell] = np.concatenate([[mean], *resampled.get(cell, [NONE[1:]])])
        return self._drawn[reference]


def average(draws: Sequence[Sequence[Floats]]) -> Floats:
    """The mean of the means of groups, resample by resample; NaN where a part is missing."""
    return np.asarray(np.mean([np.mean(group, axis=0) for group in draws], axis=0), dtype=np.float64)


def summarize(draws: Floats) -> tuple[float, float, float]:
    """The value and its percentile interval; NaN where there is none."""
    resampled = draws[1:][np.isfinite(draws[1:])]
    if not len(resampled):
        return float(draws[0]), math.nan, math.nan
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return float(draws[0]), float(low), float(high)


def columns(draws: Floats, difference: Floats | None) -> dict[str, float]:
    """``score``, ``score_low``, ``score_high`` and, with a reference, the same of ``difference``."""
    named = dict(zip(("score", "score_low", "score_high"), summarize(draws), strict=True))
    if difference is not None:
        named |= zip(("difference", "difference_low", "difference_high"), summarize(difference), strict=True)
    return named
