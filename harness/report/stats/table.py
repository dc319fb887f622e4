"""The numbers of a task as a frame: one row of unrounded values per cell, the common source of tables and plots."""

from __future__ import annotations

import pandas as pd

from harness.report.stats import bootstrap
from harness.report.stats.bootstrap import TaskDraws
from harness.report.stats.means import mean, part_mean
from harness.report.stats.once import once
from harness.report.stats.summary import (
    cell_summary,
    full_cache,
    kept_total,
    off_budget,
    packs,
    percent_of,
    storage_means,
)
from harness.results import TaskResult

_SCORES = (
    "method", "budget", "score", "score_low", "score_high", "difference", "difference_low", "difference_high",
    "percent_of_full",
)  # fmt: skip
_COUNTS = (
    "n", "errors", "expected", "kept_min", "kept_mean", "kept_max", "kept_total", "off_budget", "retention",
    "retention_bytes", "prompt_tokens_mean", "alias_of", "bits", "kept_bytes",
)  # fmt: skip


@once
def table(result: TaskResult) -> pd.DataFrame:
    """One row per cell, in the order of the grid, unrounded; what is missing is NaN.

    Columns: ``method``, ``budget``; with metrics ``score`` (the headline, 0-100) with ``score_low`` and ``score_high``
    (95 % bootstrap over examples) and, only where a cell of the grid kept everything, ``difference`` to it with its
    paired interval and ``percent_of_full``; one ``mean_<metric>`` each on the published scale; ``n`` (results),
    ``errors``, ``expected`` (examples asked for); ``kept_min``, ``kept_mean``, ``kept_max`` (entries per layer and
    head, over layers and examples); ``kept_total`` (entries of a head, all layers together); ``off_budget`` (by what
    share of the budget ``kept_mean`` is above it, or below if negative; NaN for the full cache); ``retention`` and
    ``retention_bytes`` (shares of the full cache, 0-1 and above); ``prompt_tokens_mean``; ``alias_of``.
    Only where a storage packed entries of a cell: ``bits`` (for each number of a key or value) and ``kept_bytes`` (of a
    prompt).
    """
    full = full_cache(result.cells)
    draws = TaskDraws(result) if result.metrics else None
    rows, packed = [], packs(result.cells)
    for cell in result.cells:
        row = cell_summary(cell, result.metrics)
        row |= storage_means(cell.done) if packed else {}
        row |= {"kept_total": mean(map(kept_total, cell.done)), "off_budget": off_budget(cell)}
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


@once
def breakdown(result: TaskResult) -> pd.DataFrame:
    """One row per cell and value of ``result.breakdown``, unrounded: values by size, numbers before texts.

    Columns: ``method``, ``budget``, ``breakdown_name``, ``score`` (the headline, 0-100) and ``n`` (results). Of several
    keys the values are texts that begin with the key. If there are scores named ``<key>:<value>``, they are the values
    of that key, with scores of the headline's scale.
    """
    assert result.breakdown and result.metrics
    keys, column, metric = result.breakdown.split(","), breakdown_name(result), result.metrics[0]
    done = [record for cell in result.cells for record in cell.done]
    named = {name for record in done for name in record.scores}
    parts: list[tuple[str, float | int | str]] = []
    for key in keys:
        own = {name.partition(":")[2] for name in named if name.startswith(f"{key}:")}
        values: set[float | int | str] = {*own} or {record.group[key] for record in done if key in record.group}
        parts += [(key, value) for value in sorted(values, key=lambda value: (isinstance(value, str), value))]
    rows = []
    for cell in result.cells:
        for key, value in parts:
            own_name = f"{key}:{value}"
            scores = [
                record.scores.get(own_name if own_name in named else metric.name)
                for record in cell.done
                if (own_name in record.scores if own_name in named else record.group.get(key) == value)
            ]
            shown, part = part_mean(scores, metric.maximum), value if len(keys) == 1 else f"{key} {value}"
            rows.append(
                {"method": cell.cell.label, "budget": cell.cell.budget, column: part, "score": shown, "n": len(scores)}
            )
    return pd.DataFrame(rows, columns=["method", "budget", column, "score", "n"])


def breakdown_name(result: TaskResult) -> str:
    """The name of the column of ``breakdown`` that has the values: the key, or ``part`` if there are several."""
    assert result.breakdown
    return "part" if "," in result.breakdown else result.breakdown
