"""H2O as in its paper: the heavy hitters of prompt and answer, chosen anew at every token, and a recent window.

Claim: a small set of tokens carries most of the attention, and sums over the queries so far tell which (Zhang et al.,
    arXiv:2306.14048).
Source: https://github.com/FMInference/H2O at ac75c2a, utils_real_drop.
Differs:
    - from that code: queries of one kv head can share a set (``selection.granularity=kv_head``); there, models with
      grouped queries fail.
    - of its other readings: one that only hides entries behind a mask, and keeps all, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.compression.eviction import ALL_ENTRIES, Entries, Every, Evictor
from harness.compression.method import LayerState, Method, Scorer, require_above
from harness.compression.score_parts import forced
from harness.compression.scorers import ColumnAccumulator, Window, column_sums


@dataclass(frozen=True)
class AllColumnSums(Scorer):
    """Attention received from the whole prompt, of every token; the recent ones come before all others.

    Attributes:
        recent: number of trailing tokens that come before all others.
    """

    window: ClassVar[int] = 0
    recent: Window

    def score(self, layer: LayerState) -> Tensor:
        """Attention received from all queries, [H, tokens]."""
        return column_sums(layer, 0, causal=True)

    def accumulator(self, layer: LayerState) -> ColumnAccumulator:
        """A reader that sums the prefill's own weights."""
        return ColumnAccumulator(layer, 0)

    def smooth(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Force the recent tokens."""
        return forced(scores, last=self.recent)


@dataclass(frozen=True)
class HeavyHitters(Evictor):
    """Attention received so far, from prompt and answer, per query head. What was dropped is forgotten.

    Attributes:
        recent: number of newest entries that are never dropped.
        rolling: whether distances are those within the cache.
    """

    reads: ClassVar[bool] = True
    carries: ClassVar[bool] = True
    recent: Window
    rolling: bool

    @property
    def rerotated(self) -> int:
        """All entries, if positions roll."""
        return ALL_ENTRIES if self.rolling else 0

    def scores(self, entries: Entries) -> Tensor:
        """The sums, [rows, cache_heads, entries]."""
        return entries.grouped.masked_fill(entries.age < self.recent, torch.inf)


@dataclass(frozen=True)
class H2ODecode(Method):
    """Keep the tokens that have received most attention so far, and the most recent ones, at every new token.

    Attributes:
        window: recent tokens always kept; the rest of the budget are heavy hitters.
        evict_every: new tokens from one eviction to the next.
        rolling: whether positions are those within the cache, as for endless texts, and not the tokens' own.
    """

    window: Window
    evict_every: Every
    rolling: bool

    @property
    def scorer(self) -> AllColumnSums:
        """Attention received from the whole prompt."""
        return AllColumnSums(self.window)

    @property
    def evictor(self) -> HeavyHitters:
        """Attention received from all tokens so far."""
        return HeavyHitters(self.evict_every, self.window, self.rolling)

    def check_budget(self, budget: int) -> None:
        """Refuse a budget that is not above ``window``."""
        require_above(budget, "window", self.window, self.label)
