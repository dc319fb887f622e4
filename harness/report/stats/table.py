"""Records to numbers: one row of unrounded values per cell, the common source of tables and plots.

Error records count as errors and enter no mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from harness.report.stats import bootstrap
from harness.report.stats.bootstrap import TaskDraws
from harness.report.stats.means import MISSING, mean, part_mean, score_mean
from harness.results import CellResult, TaskResult
from harness.task import Metric

_SCORES = (
    "method", "budget", "score", "score_low", "score_high", "difference", "difference_low", "difference_high", "percent_of_full",
)  # fmt: skip
_COUNTS = (
    "n", "errors", "expected", "kept_min", "kept_mean", "kept_max", "retention", "retention_bytes", "prompt_tokens_mean", "alias_of",
)  # fmt: skip


def score(cell: CellResult, metric: Metric) -> float:
    """Mean of a metric on the scale 0-100; NaN without results."""
    return score_mean((r.scores.get(metric.name) for r in cell.done), metric.maximum)


def alias_of(cell: CellResult) -> str | None:
    """The cell that stands behind every result of this one, or None."""
    names = {r.alias_of for r in cell.done}
    return names.pop() if len(names) == 1 else None


def full_cache(cells: Sequence[CellResult]) -> CellResult | None:
    """The cell that kept everything in every example, found by what it kept and not by its name; an alias only if nothing else did."""
    full = [cell for cell in cells if cell.done and all(r.retention == 1.0 for r in cell.done)]
    return min(full, key=lambda cell: alias_of(cell) is not None, default=None)


def percent_of(cell: CellResult, full: CellResult, metric: Metric) -> float:
    """The cell's score in percent of the full cache's, over the examples that both have, so that a partial cell stays comparable.

    NaN where they share no example or the full cache scores 0 on those.
    """
    theirs = {r.example_id: r.scores.get(metric.name) for r in full.done}
    ours = {r.example_id: r.scores.get(metric.name) for r in cell.done if r.example_id in theirs}
    reference = mean(theirs[example] for example in ours)
    return 100 * mean(ours.values()) / reference if reference else MISSING


@lru_cache(maxsize=1)  # every file of a report begins with it
def table(result: TaskResult) -> pd.DataFrame:
    """One row per cell, in the order of the grid, unrounded; what is missing is NaN.

    Columns: ``method``, ``budget``; with metrics ``score`` (the headline, 0-100) with ``score_low`` and ``score_high`` (95 % bootstrap
    over examples) and, only where a cell of the grid kept everything, ``difference`` to it with its paired interval and
    ``percent_of_full``; one ``mean_<metric>`` each on the published scale; ``n`` (results), ``errors``, ``expected`` (examples asked
    for); ``kept_min``, ``kept_mean``, ``kept_max`` (entries per layer and head, over layers and examples); ``retention`` and
    ``retention_bytes`` (shares of the full cache, 0-1 and above); ``prompt_tokens_mean``; ``alias_of``.
    """
    full = full_cache(result.cells)
    draws = TaskDraws(result) if result.metrics else None
    rows = []
    for cell in result.cells:
        row = cell_summary(cell, result.metrics)
        if draws is not None:
            difference = draws.difference(cell.cell, full.cell) if full else None
            row = bootstrap.columns(draws.score(cell.cell), difference) | row
        if result.metrics and full:
            row["percent_of_full"] = percent_of(cell, full, result.metrics[0])
        rows.append(row)
    columns = [*_SCORES, *(f"mean_{m.name}" for m in result.metrics), *_COUNTS]
    frame = pd.DataFrame(rows, columns=[name for name in columns if not rows or name in rows[0]])
    texts, whole = ("method", "budget", "alias_of"), ("n", "errors", "expected")
    types = {
        name: "Int64" if name in ("kept_min", "kept_max") else "int64" if name in whole else "float64"
        for name in frame
        if name not in texts
    }
    return frame.astype(types)


def breakdown(result: TaskResult) -> pd.DataFrame:
    """One row per cell and value of ``result.breakdown``, unrounded: values by size, numbers before texts.

    Columns: ``method``, ``budget``, the key, ``score`` (the headline, 0-100) and ``n`` (results).
    """
    assert result.breakdown and result.metrics
    key, metric = result.breakdown, result.metrics[0]
    values = sorted(
        {r.group[key] for cell in result.cells for r in cell.done if key in r.group}, key=lambda value: (isinstance(value, str), value)
    )
    rows = []
    for cell in result.cells:
        for value in values:
            scores = [r.scores.get(metric.name) for r in cell.done if r.group.get(key) == value]
            shown = part_mean(scores, metric.maximum)
            rows.append({"method": cell.cell.label, "budget": cell.cell.budget, key: value, "score": shown, "n": len(scores)})
    return pd.DataFrame(rows, columns=["method", "budget", key, "score", "n"])


def cell_summary(cell: CellResult, metrics: Sequence[Metric]) -> dict[str, Any]:
    """What a cell's records say by themselves, unrounded; None where nothing is known. The columns are those of ``table``."""
    row: dict[str, Any] = {"method": cell.cell.label, "budget": cell.cell.budget}
    if metrics:
        row["score"] = score(cell, metrics[0])
        row |= {f"mean_{m.name}": mean(r.scores.get(m.name) for r in cell.done) for m in metrics}
    kept = Counter(tuple(r.kept) for r in cell.done if r.kept)  # most records of a cell kept the same
    entries = sum(len(of) * times for of, times in kept.items())
    row |= {
        "n": len(cell.done),
        "errors": cell.errors,
        "expected": cell.expected,
        "kept_min": min(map(min, kept), default=None),
        "kept_mean": sum(sum(of) * times for of, times in kept.items()) / entries if entries else MISSING,
        "kept_max": max(map(max, kept), default=None),
        "retention": mean(r.retention for r in cell.done),
        "retention_bytes": mean(r.retention_bytes for r in cell.done),
        "prompt_tokens_mean": mean(r.prompt_tokens for r in cell.done),
        "alias_of": alias_of(cell),
    }
    return {name: None if value != value else value for name, value in row.items()}
