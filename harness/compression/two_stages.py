"""CriticalKV's scores: the best entries first, then the others by their scores times the size of their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.head_budgets import Safeguard, safeguard
from harness.compression.method import LayerState, Reranks
from harness.compression.wrappers import Rescorer
from harness.values import Refusal

FirstStage = Annotated[
    float, Meta(ge=0, le=1), Refusal("is not a number of 0 to 1", "kvpress uses first_stage_ratio=0.5")
]
Epsilon = Annotated[float, Meta(ge=0), Refusal("is not a number of 0 or more", "kvpress uses epsilon=0.0001")]


def of_cache_heads(norms: Tensor, cache_heads: int) -> Tensor:
    """Norms [heads, tokens] of query heads as means over those that share one of the cache's heads."""
    return norms.reshape(cache_heads, -1, norms.shape[1]).mean(1)


@dataclass(frozen=True)
class TwoStages(Rescorer):
    """The best by another scorer's scores, then the others by their scores times the size of their projected values.

    Attributes:
        first_stage_ratio: share of the kept entries that the other scorer alone chooses, 0 to 1.
        epsilon: what is added to a score before it is multiplied.
    """

    first_stage_ratio: FirstStage
    epsilon: Epsilon

    def rerank(self, scores: Tensor, layer: LayerState, counts: Tensor) -> Tensor:
        """Score again, with the entries of the first stage in front."""
        if isinstance(self.base, Reranks):
            scores = self.base.rerank(scores, layer, counts)
        heads, candidates = scores.shape
        norms = of_cache_heads(layer.projected_norms, heads)[:, :candidates]
        falling = scores.argsort(dim=-1, descending=True, stable=True)
        places = torch.arange(candidates, device=scores.device).expand(heads, -1)
        ranks = torch.empty_like(falling).scatter_(1, falling, places)
        again = (scores + self.epsilon) * norms
        return again.masked_fill(ranks < self.first(counts)[:, None], torch.finfo(again.dtype).max)

    def first(self, counts: Tensor) -> Tensor:
        """Numbers of entries of the first stage [cache_heads]: a share cut down, at least one unless the share is 0."""
        return (counts.double() * self.first_stage_ratio).int().clamp(min=int(self.first_stage_ratio > 0))


@dataclass(frozen=True)
class GuardedStages(TwoStages):
    """``TwoStages`` under budgets with a minimum for every head, whose entries count as the first stage's.

    Attributes:
        alpha_safeguard: share of the budget that every head keeps at least, 0 to 1.
    """

    alpha_safeguard: Safeguard

    def first(self, counts: Tensor) -> Tensor:
        """Numbers of entries of the first stage: a share cut down, or the minimum if that is more."""
        safe = safeguard(int(counts.sum()) // len(counts), self.alpha_safeguard, self.window)
        return (counts.double() * self.first_stage_ratio).int().clamp(min=safe)
