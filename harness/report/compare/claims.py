"""Budgets as shares of the prompt: what texts say, and what our records say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from harness.compression.budget import FULL, OWN, parse_budget
from harness.report.columns import number_column, share_columns
from harness.report.compare.differences import ComparedMethod, Comparison
from harness.report.compare.published import Claim, claims
from harness.report.document import Column, Document, Table, budgets, number_cell, texts
from harness.report.format import DASH, percent
from harness.report.notes import bytes_notes
from harness.report.stats.means import mean
from harness.results import Record

_SAYS = "papers say"


def claims_document(comparison: Comparison) -> Document | None:
    """One line per cell of ours, and one per budget that a text speaks of; None where none speaks of this suite."""
    said = claims(comparison.table.suite)
    if not said:
        return None
    raw = _raw(comparison, said)
    sizes = list(raw["budget"])
    columns = [
        texts("method", [DASH if pd.isna(label) else label for label in raw["method"]]),
        budgets(sizes),
        texts(_SAYS, [_text([claim for claim in said if claim.budget == budget]) for budget in sizes]),
        number_column("prompt tokens", raw["prompt_tokens_mean"], 0),
        number_column("before cutting", raw["tokens_before_truncation_mean"], 0),
        Column("budget / prompt %", [number_cell(share, percent(share)) for share in raw["budget_share"]]),
        *share_columns(raw),
    ]
    starts = frozenset(place for place, budget in enumerate(sizes) if place and budget != sizes[place - 1])
    title = f"What share of the cache a budget is: {comparison.suite} on {comparison.ours}"
    return Document(
        title, "claims", [Table("Shares", columns, 3, starts)], _notes(comparison, said, raw), {"claims": raw}
    )


def _raw(comparison: Comparison, said: Sequence[Claim]) -> pd.DataFrame:
    """One row per cell of ours, and per budget that only a text speaks of.

    Columns: ``method`` (our label), ``budget``, ``papers_say`` (percent), ``prompt_tokens_mean``,
    ``tokens_before_truncation_mean``, ``budget_share`` (of the mean prompt), ``retention`` and ``retention_bytes``
    (measured), all shares 0-1; ``n``.
    """
    examples = {
        (name, record.example_id): record
        for name, grid in comparison.grids.items()
        for cell in grid.result.cells
        for record in cell.done
        if record.prompt_tokens is not None
    }
    tokens = mean(record.prompt_tokens for record in examples.values())
    before = mean(record.tokens_before_truncation for record in examples.values())
    rows: list[tuple[str | None, str, list[Record]]] = [
        (row.cell.label, row.budget, _records(comparison, row)) for row in comparison.rows if row.cell
    ]
    rows += [
        (None, budget, [])
        for budget in dict.fromkeys(claim.budget for claim in said)
        if budget not in {row[1] for row in rows}
    ]
    # Stable: our cells keep the order of the comparison.
    sizes = {row[1]: _share(row[1], 1e9) for row in rows} | {FULL.text: math.inf, OWN.text: 2.0}
    rows.sort(key=lambda row: sizes[row[1]])
    return pd.DataFrame(
        [
            {
                "method": label,
                "budget": budget,
                "papers_say": " ".join(f"{claim.percent:g}" for claim in said if claim.budget == budget) or None,
                "prompt_tokens_mean": tokens,
                "tokens_before_truncation_mean": before,
                "budget_share": _share(budget, tokens),
                "retention": mean(record.retention for record in records),
                "retention_bytes": mean(record.retention_bytes for record in records),
                "n": len(records),
            }
            for label, budget, records in rows
        ]
    )


def _records(comparison: Comparison, row: ComparedMethod) -> list[Record]:
    return [
        r
        for grid in comparison.grids.values()
        for cell in grid.result.cells
        if cell.cell == row.cell
        for r in cell.done
    ]


def _share(budget: str, tokens: float) -> float:
    """A budget as a share of a prompt, 1 at most; NaN for entries of an unknown one, and for ``own``."""
    size = parse_budget(budget)
    if size.tokens is not None:
        return size.tokens / max(tokens, size.tokens) if math.isfinite(tokens) else math.nan
    if size.share is not None:
        return float(size.share)
    return 1.0 if size == FULL else math.nan


def _text(said: Sequence[Claim]) -> str:
    """Each claim with the length at which it holds."""
    return (
        "; ".join(f"{claim.text} (of {100 * int(claim.budget) / claim.percent:.0f} tokens)" for claim in said) or DASH
    )


def _notes(comparison: Comparison, said: Sequence[Claim], raw: pd.DataFrame) -> list[str]:
    expected = {name: max(cell.expected for cell in grid.result.cells) for name, grid in comparison.grids.items()}
    counted = ", ".join(f"{comparison.titles[name]} {count}" for name, count in expected.items())
    return [
        f"{_SAYS}: the share that a text gives for this budget, and the length of prompt of which it is that share.",
        (
            f"prompt tokens: mean over our examples ({counted or 'none'}), as they were evaluated and before their "
            f"middle "
            f"was cut."
        ),
        (
            "budget / prompt: the budget in percent of that mean. entries %, bytes %: measured, mean over examples, "
            "which "
            "short prompts raise."
        ),
        *bytes_notes(raw["retention_bytes"]),
        *(f"{claim.text} at {claim.budget}: {claim.source}; {claim.note}." for claim in said),
    ]
