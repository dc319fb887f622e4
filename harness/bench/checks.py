"""Checks of what a device computes: attention against exact rows, rows in another order, rows alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.bench.subject import Subject, decoded, prefilled, random_layer
from harness.compression.attention_weights import causal_attention
from harness.engine.audit import audit
from harness.engine.engine import Engine
from harness.engine.prefill_attention import full_attention
from harness.engine.rows import Row


def attention_error(subject: Subject, engine: Engine, tokens: int) -> float:
    """The error of the prefill's attention in one layer of the model's shape, with random states.

    Args:
        subject: the model to measure.
        engine: the loaded subject.
        tokens: length of the prompt.

    Returns:
        The largest difference between the device's output, in the model's dtype, and exact float32 attention on a CPU,
        divided by the largest output.
    """
    state = random_layer(subject, engine, tokens)
    queries, keys, values = (states.cpu().float() for states in (state.queries, state.keys, state.values))
    exact = causal_attention(queries, keys, values, state.softmax)
    output = full_attention(state.queries, state, ())[0].float().cpu()
    return float((output - exact).abs().max() / exact.abs().max())


def row_checks(subject: Subject, engine: Engine, tokens: int, prompts: int) -> Mapping[str, Any]:
    """Decode all cells of some prompts together, together in reverse order, and each alone.

    Args:
        subject: the model and its grid.
        engine: the loaded subject.
        tokens: length of each prompt.
        prompts: number of prompts.

    Returns:
        A line of the table: the number of distinct rows; how many of them gave other tokens in reverse order, and
        alone; the largest lead of the best logit at a token that differs alone, or None if none differs; and the
        attention error.
    """
    rows: list[Row] = []
    for number in range(prompts):
        by_cell = prefilled(subject, engine, subject.prompt(tokens, number), subject.variants)
        rows += {id(row): row for row in by_cell.values()}.values()

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
