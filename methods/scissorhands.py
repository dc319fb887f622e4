"""Scissorhands: the tokens that recent queries attend to most, beside the first and the last ones.

Claim: what was important stays important (Liu et al., arXiv:2305.17118).
Source: Zefan-Cai/KVCache-Factory at c97f9d7, a function that no runner calls.
Differs:
    - from the paper: scored once, over the prompt, and the budget is the same in all layers.
    - from that code: its choice by chance, and its running sums while decoding, are left out.
    - budgets that leave nothing beside the last tokens are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta
from torch import Tensor

from harness.compression.attention_weights import attention_rows
from harness.compression.method import LayerState, Method, Scorer
from harness.compression.score_parts import First, forced
from harness.compression.scorers import ColumnAccumulator, Window, column_sums

History = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True)
class RecentAttention(Scorer):
    """Attention from the last queries, or from all, with the first tokens above all others.

    Attributes:
        window: number of trailing tokens that are always kept, 1 or more.
        sinks: number of first tokens that come before all other candidates, 0 or more.
        history: number of trailing queries that vote, 1 or more; None for all.

    Raises:
        ConfigError: a knob out of range.
    """

    window: Window
    sinks: First
    history: History | None

    def score(self, layer: LayerState) -> Tensor:
        """Attention received, [heads, tokens - window] in the layer's score dtype."""
        tokens = layer.keys.shape[1]
        if self.history is None or self.history >= tokens:
            return column_sums(layer, self.window, causal=True)
        queries = layer.queries[:, tokens - self.history :].to(layer.score_dtype)
        rows = attention_rows(queries, layer.keys.to(layer.score_dtype), layer.softmax, block_bytes=2**62)
        ((_, _, attention),) = rows
        return attention[:, :, : tokens - self.window].sum(dim=1)

    def accumulator(self, layer: LayerState) -> ColumnAccumulator | None:
        """A reader that sums the prefill's own weights, if all queries vote."""
        return ColumnAccumulator(layer, self.window) if self.history is None else None

    def smooth(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Force the sinks."""
        return forced(scores, first=self.sinks)


@dataclass(frozen=True)
class Scissorhands(Method):
    """Keep the first tokens, the last ones, and those that recent queries attend to most.

    Attributes:
        window: last tokens, always kept.
        sinks: first tokens, which come before all others.
        history: number of trailing queries that vote; null for all.
    """

    window: Window
    sinks: First
    history: History | None

    @property
    def scorer(self) -> RecentAttention:
        """Attention from the last queries."""
        return RecentAttention(self.window, self.sinks, self.history)
