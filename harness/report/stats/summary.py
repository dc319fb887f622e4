"""What the records of cells say by themselves: unrounded numbers, without pandas.

Error records count as errors and enter no mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from harness.compression.budget import FULL, Budget, parse_budget
from harness.report.stats.means import MISSING, mean, score_mean
from harness.results import CellResult, Record, by_head, layer_means
from harness.task import Metric


def score(cell: CellResult, metric: Metric) -> float:
    """Mean of a metric on the scale 0-100; NaN without results."""
    return score_mean((r.scores.get(metric.name) for r in cell.done), metric.maximum)


def _metric_mean(cell: CellResult, metric: Metric) -> float:
    """Mean of a metric on its own scale, of examples that weigh what the metric says; NaN without results."""
    if metric.weight is None:
        return mean(r.scores.get(metric.name) for r in cell.done)
    weights = [r.scores.get(metric.weight, 0) for r in cell.done]
    weighed = (
        None if (score := r.scores.get(metric.name)) is None else score * weight
        for r, weight in zip(cell.done, weights, strict=True)
    )
    heavy = mean(weights)
    return mean(weighed) / heavy if heavy else MISSING


def alias_of(cell: CellResult) -> str | None:
    """The cell that stands behind every result of this one, or None."""
    names = {r.alias_of for r in cell.done}
    return names.pop() if len(names) == 1 else None


def full_cache(cells: Sequence[CellResult]) -> CellResult | None:
    """The cell that kept everything as it was in every example, whatever its name; an alias if no other cell did."""
    full = [cell for cell in cells if cell.done and all(r.retention == 1.0 and r.bits is None for r in cell.done)]
    return min(full, key=lambda cell: alias_of(cell) is not None, default=None)


def percent_of(cell: CellResult, full: CellResult, metric: Metric) -> float:
    """The cell's score in percent of the full cache's, over the examples that both have.

    So a partial cell stays comparable. NaN where they share no example or the full cache scores 0 on those.
    """
    theirs = {r.example_id: r.scores.get(metric.name) for r in full.done}
    ours = {r.example_id: r.scores.get(metric.name) for r in cell.done if r.example_id in theirs}
    reference = mean(theirs[example] for example in ours)
    return 100 * mean(ours.values()) / reference if reference else MISSING


def nominal(budget: Budget, record: Record) -> float | None:
    """Entries per head and layer that a budget names for a record's prompt, unrounded; None for the full cache."""
    if record.compressed_tokens is None or not record.kept:
        return None
    if budget.tokens is not None:
        return float(min(budget.tokens, record.compressed_tokens))
    return None if budget.share is None else float(budget.share) * record.compressed_tokens


def misses(off: float) -> bool:
    """Whether a mean misses its budget by more than 1 %.

    Args:
        off: ``off_budget`` of ``table``.
    """
    return abs(off) > 0.01


def off_budget(cell: CellResult) -> float:
    """By what share of its budget a cell kept more, on average over its results; NaN without a budget."""
    budget = parse_budget(cell.cell.budget)
    if budget == FULL:
        return MISSING
    named = mean(nominal(budget, record) for record in cell.done)
    kept = Counter(record.kept for record in cell.done)
    entries = sum(mean(layer_means(one)) * times for one, times in kept.items())
    return entries / len(cell.done) / named - 1 if named > 0 else MISSING


def kept_total(record: Record) -> float | None:
    """Entries of a head, of all layers together; None for a text that was imported."""
    return sum(layer_means(record.kept)) if record.kept else None


def packs(cells: Iterable[CellResult]) -> bool:
    """Whether a storage packed the entries of any of these cells."""
    return any(record.bits is not None for cell in cells for record in cell.done)


def storage_means(records: Sequence[Record]) -> dict[str, float]:
    """Bits for each number of a kept key or value, NaN where all are stored as they are, and bytes kept of a prompt."""
    return {"bits": mean(r.bits for r in records), "kept_bytes": mean(r.kept_bytes for r in records)}


def cell_summary(cell: CellResult, metrics: Sequence[Metric]) -> dict[str, Any]:
    """What a cell's records say, by the columns of ``table`` and unrounded; None where nothing is known."""
    row: dict[str, Any] = {"method": cell.cell.label, "budget": cell.cell.budget}
    if metrics:
        row["score"] = score(cell, metrics[0])
        row |= {f"mean_{m.name}": _metric_mean(cell, m) for m in metrics}
    kept = Counter(r.kept for r in cell.done if r.kept)  # most records of a cell kept the same
    heads = [count for layers in kept for counts in layers for count in by_head(counts)]
    entries = sum(len(layers) * times for layers, times in kept.items())
    row |= {
        "n": len(cell.done),
        "errors": cell.errors,
        "expected": cell.expected,
        "kept_min": min(heads, default=None),
        "kept_mean": sum(sum(layer_means(one)) * times for one, times in kept.items()) / entries
        if entries
        else MISSING,
        "kept_max": max(heads, default=None),
        "retention": mean(r.retention for r in cell.done),
        "retention_bytes": mean(r.retention_bytes for r in cell.done),
        "prompt_tokens_mean": mean(r.prompt_tokens for r in cell.done),
        "alias_of": alias_of(cell),
        **(storage_means(cell.done) if packs([cell]) else {}),
    }
    return {name: None if value != value else value for name, value in row.items()}
