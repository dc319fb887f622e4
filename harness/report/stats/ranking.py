"""Methods ranked over several tasks, at equal retention: what they really kept, not the budget that they were given.

A method's scores over its budgets form a curve over retention. Between two of its points the score is interpolated on
the logarithm of retention, as the curves are drawn; beyond them nobody knows it. The bootstrap draws of a task serve
all of its cells, so that interpolated scores and their differences to the full cache keep paired intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from harness.report.stats.bootstrap import Floats, TaskDraws, average, columns, summarize
from harness.report.stats.means import mean
from harness.report.stats.summary import full_cache
from harness.results import Cell, CellResult, TaskResult

Groups = Mapping[str, Sequence[TaskResult]]
"""Tasks by the name under which they count once: a suite's tasks together, any other task alone."""


@dataclass(frozen=True)
class Ranking:
    """Methods ranked at several retentions.

    Attributes:
        scores: one row per method, retention and group, and per method and retention over all groups (``group`` is
            ""): ``method``, ``retention`` (0-1), ``group``, ``score`` (0-100) and ``difference`` to the full cache with
            their intervals; NaN where the method's budgets do not reach the retention.
        methods: the methods from the best to the worst, by ``means``; then those without a rank.
        means: of each method with a rank, the mean of its scores over ``compared``.
        compared: the retentions that all ranked methods reach in every task.
        full: the score of the full cache over all groups, with its interval.
        examples: examples of each group, of the cell that kept everything.
    """

    scores: pd.DataFrame
    methods: Sequence[str]
    means: Mapping[str, float]
    compared: Sequence[float]
    full: tuple[float, float, float]
    examples: Mapping[str, int]


def rank(groups: Groups, retentions: Sequence[float]) -> Ranking:
    """Rank the methods of one model.

    Args:
        groups: tasks with metrics, each with a cell that kept everything.
        retentions: shares of the full cache at which methods are compared, above 0 and below 1.
    """
    tasks = {name: [_Task(result) for result in results] for name, results in groups.items()}
    every = [task for members in tasks.values() for task in members]
    methods = list(dict.fromkeys(label for task in every for label in task.curves))
    rows: list[dict[str, Any]] = []
    for method in methods:
        for retention in retentions:
            parts = {name: [task.at(method, retention) for task in members] for name, members in tasks.items()}
            for name, pairs in [*((name, {name: pairs}) for name, pairs in parts.items()), ("", parts)]:
                score = average([[score for score, _ in group] for group in pairs.values()])
                difference = average([[difference for _, difference in group] for group in pairs.values()])
                row = {"method": method, "retention": retention, "group": name}
                rows.append({**row, **columns(score, difference)})
    scores = pd.DataFrame(rows)
    known: dict[tuple[str, float], float] = {
        (row["method"], row["retention"]): row["score"]
        for row in rows
        if row["group"] == "" and math.isfinite(row["score"])
    }
    able = [method for method in methods if any((method, retention) in known for retention in retentions)]
    compared = [at for at in retentions if able and all((method, at) in known for method in able)]
    means = {method: fmean(known[method, at] for at in compared) for method in able} if compared else {}
    best = sorted(methods, key=lambda method: -means.get(method, -math.inf))
    return Ranking(
        scores,
        best,
        means,
        compared,
        summarize(average([[task.full for task in members] for members in tasks.values()])),
        {name: sum(task.examples for task in members) for name, members in tasks.items()},
    )


class _Task:
    """One task's curves: for each method its retentions, and at each the draws of score and difference."""

    def __init__(self, result: TaskResult) -> None:
        """Draw the task's resamples once."""
        full = full_cache(result.cells)
        assert full is not None
        self._draws, self._full = TaskDraws(result), full.cell
        self.full, self.examples = self._draws.score(full.cell), len(full.done)
        # A share of a prompt is rounded to whole entries, so that retentions this close are the same.
        self._same = max((0.5 / r.prompt_tokens for r in full.done if r.prompt_tokens), default=0.0)
        self.curves: dict[str, list[tuple[float, Cell]]] = {}
        for cell in result.cells:
            share = _retention(cell)
            if math.isfinite(share) and cell.cell != full.cell and share < 1:
                self.curves.setdefault(cell.cell.label, []).append((share, cell.cell))
        for points in self.curves.values():
            points.sort(key=lambda point: point[0])

    def at(self, method: str, retention: float) -> tuple[Floats, Floats]:
        """Draws of the score and of the difference to the full cache at a retention; NaN where they are not known."""
        points = self.curves.get(method, [])
        above = [point for point in points if point[0] >= retention - self._same]
        below = [point for point in points if point[0] <= retention + self._same]
        if not (above and below):
            missing = np.full_like(self.full, np.nan)
            return missing, missing
        (low, first), (high, second) = below[-1], above[0]
        weight = (math.log(retention) - math.log(low)) / (math.log(high) - math.log(low)) if high > low else 0.0
        weight = min(max(weight, 0.0), 1.0)

        def between(one: Floats, other: Floats) -> Floats:
            return one if weight == 0 else other if weight == 1 else (1 - weight) * one + weight * other

        score, difference = self._draws.score, self._draws.difference
        return (
            between(score(first), score(second)),
            between(difference(first, self._full), difference(second, self._full)),
        )


def _retention(cell: CellResult) -> float:
    return mean(record.retention for record in cell.done)
