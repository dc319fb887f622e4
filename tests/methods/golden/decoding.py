"""Recorded decoding of one layer: its prompt is prefilled, and further tokens run through the engine's own bucket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from harness.compression.budget import Budget
from harness.compression.grid import Variant
from harness.compression.method import LayerState, Method
from harness.compression.selection import Selection
from harness.engine.buckets import Joining
from harness.engine.evicting import EvictingBucket, EvictingKV
from harness.engine.keeping import Keeping
from harness.engine.prefill_attention import full_attention
from harness.results import Cell
from tests.methods.golden.papers import Case, shape_of

KV_HEADS = Selection("kv_head", "mean", "stable", "float32")


class Rope:
    """A rotary embedding of halves, of base 10000."""

    def __init__(self, dim: int) -> None:
        self._frequencies = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float32) / dim)

    def output_projection(self, layer: int) -> Tensor:
        raise NotImplementedError

    def rotary(self, layer: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        angles = positions[:, None].float() * self._frequencies
        return torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()


def layers_of(case: Case, rotate: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """All queries, keys and values of a case with one layer; turned to their positions if ``rotate``."""
    queries, keys, values = (case.input(part)[0] for part in "qkv")
    if rotate:
        positions = torch.arange(queries.shape[1])
        empty = LayerState(queries, keys, values, 0, 1, 1.0, torch.float32, parts=Rope(queries.shape[-1]))
        queries, keys = (empty.moved(part, positions.expand(part.shape[0], -1)) for part in (queries, keys))
    return queries, keys, values


def start(method: Method, budget: int, state: LayerState, selection: Selection = KV_HEADS) -> tuple[EvictingKV, Tensor]:
    """What a method keeps of a prompt in one layer, and the attention output [H, D] of the last query."""
    shape = shape_of([state], selection)
    plan = Variant(Cell(method.label, str(budget)), method, Budget(str(budget), tokens=budget)).plan(shape)
    keeping = Keeping([plan], selection)
    keeping.take(state, {})
    keeping.end()
    (kept,) = keeping.growing[plan].layers
    assert isinstance(kept, EvictingKV)
    return kept, full_attention(state.queries, state, [])[0][:, -1]


def run(kept: EvictingKV, states: Sequence[Tensor], steps: int) -> Iterator[tuple[EvictingBucket, Tensor, Tensor]]:
    """Run further tokens through what was kept of a layer, one by one.

    Args:
        kept: what was kept of the first tokens.
        states: queries [H, tokens, D], keys and values [Hk, tokens, D] of all tokens.
        steps: number of further tokens.

    Yields:
        After each step the bucket, the attention output [H, D], and the positions [heads, entries] that it saw.
    """
    bucket = EvictingBucket([kept], Joining(0, steps))
    for token in range(kept.total, kept.total + steps):
        queries, keys, values = (part[None, :, token : token + 1] for part in states)
        out = bucket.attend(queries, keys, values, kept.layer.scaling, 0)
        seen = bucket.positions[0, :, : bucket.schedule.held + 1].sort(-1).values
        bucket.advance()
        yield bucket, out[0, :, 0], seen


def state_of(case: Case, tokens: int, rotate: bool = False) -> LayerState:
    """The layer of a case after so many tokens."""
    queries, keys, values = layers_of(case, rotate)
    dim = queries.shape[-1]
    parts = (part[:, :tokens] for part in (queries, keys, values))
    return LayerState(*parts, 0, 1, dim**-0.5, torch.float32, parts=Rope(dim))


def positions(bucket: EvictingBucket) -> Tensor:
    """Positions of a row's entries, ascending, [heads, entries]."""
    return bucket.positions[0, :, : bucket.schedule.held].sort(-1).values


def by_position(bucket: EvictingBucket, values: Tensor) -> Tensor:
    """Values of a row's entries [heads, entries] in the order of their positions."""
    return values.gather(-1, bucket.positions[0, :, : bucket.schedule.held].argsort(-1))
