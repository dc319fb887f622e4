"""Scissorhands while decoding: sums of recent attention that fade, beside the first and the last tokens.

Claim: what was important stays important (Liu et al., arXiv:2305.17118).
Source: Zefan-Cai/KVCache-Factory at c97f9d7, functions that no runner calls.
Differs:
    - from the paper: the budget is the same in all layers, and weights are summed, not counted below a threshold.
    - from that code: its choice by chance is left out, and budgets that leave nothing beside first and last tokens are
      refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.attention_weights import attention_rows
from harness.compression.eviction import Entries, Every, Evictor
from harness.compression.method import LayerState, Method, Scorer, require_above
from harness.compression.score_parts import First, forced
from harness.compression.scorers import ColumnAccumulator, Window, column_sums

History = Annotated[int, Meta(ge=1)]
Decay = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True)
class RecentSums(Scorer):
    """Attention from the last queries, or from all, of every token; first and last tokens come before all others.

    Attributes:
        recent: number of last tokens that come before all others.
        sinks: number of first tokens that come before all others.
        history: number of trailing queries that vote; None for all.
    """

    window: ClassVar[int] = 0
    recent: Window
    sinks: First
    history: History | None

    def score(self, layer: LayerState) -> Tensor:
        """Attention received, [heads, tokens]."""
        tokens = layer.keys.shape[1]
        if self.history is None or self.history >= tokens:
            return column_sums(layer, 0, causal=True)
        queries = layer.queries[:, tokens - self.history :].to(layer.score_dtype)
        rows = attention_rows(queries, layer.keys.to(layer.score_dtype), layer.softmax, block_bytes=2**62)
        ((_, _, attention),) = rows
        return attention.sum(dim=1)

    def accumulator(self, layer: LayerState) -> ColumnAccumulator | None:
        """A reader that sums the prefill's own weights, if all queries vote."""
        return ColumnAccumulator(layer, 0) if self.history is None else None

    def smooth(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Force the first and the last tokens."""
        return forced(scores, self.sinks, self.recent)


@dataclass(frozen=True)
class FadingSums(Evictor):
    """Attention received so far, where each call makes what was before count less.

    Attributes:
        recent: number of newest entries that are never dropped.
        sinks: number of first tokens that are never dropped.
        history: number of queries of a call that vote, the last ones; None for all.
        decay: what earlier sums are multiplied by at each call, 0-1.
    """

    reads: ClassVar[bool] = True
    carries: ClassVar[bool] = True
    recent: Window
    sinks: First
    history: History | None
    decay: Decay

    def reading(self, weights: Tensor) -> Tensor:
        """The sum over the last queries."""
        return super().reading(weights if self.history is None else weights[..., -self.history :, :])

    def updated(self, statistic: Tensor, reading: Tensor) -> Tensor:
        """Faded sums and new ones."""
        return statistic * self.decay + reading

    def scores(self, entries: Entries) -> Tensor:
        """The sums, [rows, cache_heads, entries]."""
        spared = (entries.age < self.recent) | (entries.positions < self.sinks)
        return entries.grouped.masked_fill(spared, torch.inf)


@dataclass(frozen=True)
class ScissorhandsDecode(Method):
    """Keep the first tokens, the last ones, and those that were attended to most of late, at every new token.

    Attributes:
        window: last tokens, always kept.
        sinks: first tokens, always kept.
        history: number of trailing queries of the prompt, or of a question, that vote; null for all.
        decay: what earlier sums are multiplied by at each new token.
        evict_every: new tokens from one eviction to the next.
    """

    window: Window
    sinks: First
    history: History | None
    decay: Decay
    evict_every: Every

    @property
    def scorer(self) -> RecentSums:
        """Attention from the last queries of the prompt."""
        return RecentSums(self.window, self.sinks, self.history)

    @property
    def evictor(self) -> FadingSums:
        """Attention received so far, with a decay."""
        return FadingSums(self.evict_every, self.window, self.sinks, self.history, self.decay)

    def check_budget(self, budget: int) -> None:
        """Refuse a budget that is not above ``sinks`` and ``window`` together."""
        require_above(budget, "sinks+window", self.sinks + self.window, self.label)
