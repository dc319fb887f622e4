"""Methods ranked over several tasks, at equal retention: what they really kept, not the budget that they were given.

A method's scores over its budgets form a curve over retention. Between two of its points the score is interpolated on
the logarithm of retention, as the curves are drawn; beyond them nobody knows it. The bootstrap draws of a task serve
all of its cells, so that interpolated scores and their differences to the full cache and to another method keep paired
intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.report.stats.bootstrap import NONE, Floats, TaskDraws, average, columns, summarize
from harness.report.stats.means import mean
from harness.report.stats.summary import full_cache
from harness.results import Cell, CellResult, TaskResult

Groups = Mapping[str, Sequence[TaskResult]]
"""Tasks by the name under which they count once: a suite's tasks together, any other task alone."""

_DRAWN = range(3)
"""What is drawn at a point: the score, the difference to the full cache, the gain over another method."""
_NEARLY_ALL = 0.9
"""Of the methods, the share that must reach the retentions by which they are ranked: an odd one takes none from all."""


@dataclass(frozen=True)
class Ranking:
    """Methods ranked at several retentions.

    Attributes:
        scores: one row per method, retention and group, and per method and retention over all groups (``group`` is
            ""): ``method``, ``retention`` (0-1), ``group``, ``n`` (examples), ``score`` (0-100), ``difference`` to the
            full cache and ``gain`` over ``against``, each with its interval; NaN where the method's budgets do not
            reach the retention.
        methods: the methods from the best to the worst, by ``means``; then those without a rank.
        means: of each method with a rank, the mean of its scores over ``compared``.
        overall: of the same methods the same numbers as in ``scores``, as means over ``compared`` and all groups.
        compared: the retentions that all ranked methods reach in every task.
        full: the score of the full cache by group and, as "", over all groups, with its interval.
        examples: examples of each group, of the cell that kept everything.
        reaches: of each method the least and the largest retention, 0-1, that its budgets reach in every task; None if
            they have none in common.
        against: the method that others are held against, besides the full cache; "" for none.
    """

    scores: pd.DataFrame
    methods: Sequence[str]
    means: Mapping[str, float]
    overall: Mapping[str, Mapping[str, float]]
    compared: Sequence[float]
    full: Mapping[str, tuple[float, float, float]]
    examples: Mapping[str, int]
    reaches: Mapping[str, tuple[float, float] | None]
    against: str = ""


def rank(groups: Groups, retentions: Sequence[float], against: str = "") -> Ranking:
    """Rank the methods of one model.

    Args:
        groups: tasks with metrics, each with a cell that kept everything.
        retentions: shares of the full cache at which methods are compared, above 0 and below 1.
        against: a method that the others are held against; "" for none.
    """
    tasks = {name: [_Task(result) for result in results] for name, results in groups.items()}
    every = [task for members in tasks.values() for task in members]
    methods = list(dict.fromkeys(label for task in every for label in task.curves))
    rows: list[dict[str, Any]] = []
    drawn: dict[tuple[str, float], list[Floats]] = {}
    for method in methods:
        for retention in retentions:
            parts = {name: [task.at(method, retention, against) for task in members] for name, members in tasks.items()}
            for name, points in [*((name, {name: points}) for name, points in parts.items()), ("", parts)]:
                means_of = [average([[point[what] for point in group] for group in points.values()]) for what in _DRAWN]
                row = {"method": method, "retention": retention, "group": name}
                row["n"] = sum(task.count(method) for group in points for task in tasks[group])
                rows.append(row | _numbers(means_of, against in methods))
            if math.isfinite(means_of[0][0]):
                drawn[method, retention] = means_of  # of the last one, all groups
    compared = _compared({method: [at for at in retentions if (method, at) in drawn] for method in methods})
    ranked = [method for method in methods if compared and all((method, at) in drawn for at in compared)]
    overall = {
        method: _numbers(
            [average([[drawn[method, at][what] for at in compared]]) for what in _DRAWN], against in methods
        )
        for method in ranked
    }
    means = {method: numbers["score"] for method, numbers in overall.items()}
    full = {name: average([[task.full for task in members]]) for name, members in tasks.items()}
    return Ranking(
        pd.DataFrame(rows),
        sorted(methods, key=lambda method: -means.get(method, -math.inf)),
        means,
        overall,
        compared,
        {name: summarize(draws) for name, draws in {**full, "": average([[draws] for draws in full.values()])}.items()},
        {name: sum(task.examples for task in members) for name, members in tasks.items()},
        {method: _common(method, every) for method in methods},
        against if against in methods else "",
    )


def _common(method: str, tasks: Sequence[_Task]) -> tuple[float, float] | None:
    """The least and the largest retention that a method's curves reach in every task; None if there are none."""
    curves = [(task.curves.get(method, []), task.same) for task in tasks]
    if not all(points for points, _ in curves):
        return None
    low, above = max((points[0][0], same) for points, same in curves)
    high, below = min((points[-1][0], same) for points, same in curves)
    return (min(low, high), high) if low <= high + above + below else None


def _numbers(means: Sequence[Floats], against: bool) -> dict[str, float]:
    """Score, difference to the full cache and, ``against`` another method, gain over it, with their intervals."""
    score, difference, gain = means
    named = columns(score, difference)
    if against:
        named |= zip(("gain", "gain_low", "gain_high"), summarize(gain), strict=True)
    return named


def _compared(reached: Mapping[str, Sequence[float]]) -> Sequence[float]:
    """The most retentions that nearly all methods reach, or else those that most methods do.

    Args:
        reached: by method, the retentions that its budgets reach in every task, in one order for all.
    """
    able = [set(places) for places in reached.values() if places]
    every = [list(places) for places in reached.values()]
    common: set[tuple[float, ...]] = {tuple([at for at in one if at in other]) for one in every for other in every}
    common.discard(())
    if not common:
        return []
    count = {places: sum(set(places) <= other for other in able) for places in common}
    enough = [places for places in common if count[places] >= _NEARLY_ALL * len(able)]

    def reach(places: tuple[float, ...]) -> tuple[float, ...]:
        return (len(places), count[places], *places) if enough else (count[places], len(places), *places)

    best = max(enough or common, key=reach)
    return list(best)


class _Task:
    """One task's curves: for each method its retentions, and at each the draws of score and difference."""

    def __init__(self, result: TaskResult) -> None:
        """Draw the task's resamples once."""
        full = full_cache(result.cells)
        assert full is not None
        self._draws, self._full = TaskDraws(result), full.cell
        self.full, self.examples = self._draws.score(full.cell), len(full.done)
        # A share of a prompt is rounded to whole entries, so that retentions this close are the same.
        self.same = max((0.5 / r.compressed_tokens for r in full.done if r.compressed_tokens), default=0.0)
        self._results = {cell.cell: len(cell.done) for cell in result.cells}
        self.curves: dict[str, list[tuple[float, Cell]]] = {}
        for cell in result.cells:
            share = _retention(cell)
            if math.isfinite(share) and cell.cell != full.cell and share < 1:
                self.curves.setdefault(cell.cell.label, []).append((share, cell.cell))
        for points in self.curves.values():
            points.sort(key=lambda point: point[0])

    def count(self, method: str) -> int:
        """Examples that a method's cells have a result of: those of the cell with the fewest."""
        return min((self._results[cell] for _, cell in self.curves.get(method, [])), default=0)

    def at(self, method: str, retention: float, against: str) -> tuple[Floats, Floats, Floats]:
        """Draws of the score, of the difference to the full cache and of that to another method at a retention.

        NaN where they are not known.
        """
        place = self._place(method, retention)
        if place is None:
            return NONE, NONE, NONE
        (first, second), weight = place
        base = self._place(against, retention) if method != against else None

        def between(one: Floats, other: Floats, weight: float) -> Floats:
            return one if weight == 0 else other if weight == 1 else (1 - weight) * one + weight * other

        def to(reference: Cell) -> Floats:
            difference = self._draws.difference
            return between(difference(first, reference), difference(second, reference), weight)

        score = between(self._draws.score(first), self._draws.score(second), weight)
        gain = NONE if base is None else between(to(base[0][0]), to(base[0][1]), base[1])
        return score, to(self._full), gain

    def _place(self, method: str, retention: float) -> tuple[tuple[Cell, Cell], float] | None:
        """Between which cells of a method a retention lies, and the weight of the second; None if beyond them."""
        points = self.curves.get(method, [])
        above = [point for point in points if point[0] >= retention - self.same]
        below = [point for point in points if point[0] <= retention + self.same]
        if not (above and below):
            return None
        (low, first), (high, second) = below[-1], above[0]
        weight = (math.log(retention) - math.log(low)) / (math.log(high) - math.log(low)) if high > low else 0.0
        return (first, second), min(max(weight, 0.0), 1.0)


def _retention(cell: CellResult) -> float:
    return mean(record.retention for record in cell.done)
