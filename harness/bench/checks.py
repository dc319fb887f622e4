"""What a device computes against what it should: attention against exact rows, rows in another order, rows alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.bench.subject import Subject, decoded, prefilled, random_layer
from harness.compression.attention_weights import causal_attention
from harness.compression.grid import Plan
from harness.compression.selection import Selection
from harness.engine.audit import audit
from harness.engine.decode import Row
from harness.engine.engine import Engine
from harness.engine.prefill_attention import PrefillAttention

_STABLE = Selection("kv_head", "mean", "stable", "float32")


def attention_error(subject: Subject, engine: Engine, tokens: int) -> float:
    """Largest difference of the prefill's attention, in the model's dtype on its device, from exact float32 rows on a CPU, over the
    largest output; one layer of the model's shape, random states."""
    state = random_layer(subject, engine, tokens)
    queries, keys, values = (states.cpu().float() for states in (state.queries, state.keys, state.values))
    exact = causal_attention(queries, keys, values, state.scaling)
    attention = PrefillAttention((Plan((tokens,), None),), 1, _STABLE, None, whole=True)
    found = attention._attention(state.queries, state, ()).float().cpu()
    return float((found - exact).abs().max() / exact.abs().max())


def row_checks(subject: Subject, engine: Engine, tokens: int, prompts: int) -> Mapping[str, Any]:
    """All cells of some prompts, decoded together, together in reverse order, and each alone.

    Returns:
        Distinct rows; how many of them gave other tokens in reverse order, and alone; the largest lead of the best
        logit at a token that is another one alone, None where all are the same.
    """
    rows: list[Row] = []
    for place in range(prompts):
        found = prefilled(subject, engine, subject.prompt(tokens, place), subject.variants)
        rows += {id(row): row for row in found.values()}.values()

    def copies() -> list[Row]:
        return [replace(row, layers=list(row.layers)) for row in rows]

    wide = decoded(subject, engine, copies())
    reverse = decoded(subject, engine, copies()[::-1])[::-1]
    audits = [audit(engine, row, outcome, subject.limits) for row, outcome in zip(copies(), wide, strict=True)]
    margins = [each.margin for each in audits if each.margin is not None]
    return {
        "tokens": tokens,
        "rows": len(rows),
        "other in reverse order": sum(one.tokens != other.tokens for one, other in zip(wide, reverse, strict=True)),
        "other alone": sum(not each.same for each in audits),
        "largest margin": max(margins, default=None),
        "attention error": attention_error(subject, engine, tokens),
    }
