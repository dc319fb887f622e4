"""Allocations over the heads of a layer, by the layer's own scores (AdaKV and its readings)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.allocation import Allocation, Counts, Seen, Shape
from harness.values import Refusal

Floor = Annotated[float, Meta(ge=0, le=1), Refusal("is not a number of 0 to 1", "the published tables use floor=0.2")]
Safeguard = Annotated[float, Meta(ge=0, le=1), Refusal("is not a number of 0 to 1", "kvpress uses alpha_safeguard=0.2")]
SkippedLayers = Annotated[
    int, Meta(ge=0), Refusal("is not a whole number of 0 or more", "the published code uses skip=0")
]
Beta = Annotated[int, Meta(ge=1), Refusal("is not a whole number of 1 or more", "the published tables use beta=20")]


def shares_of_best(scores: Tensor, count: int) -> Tensor:
    """How many of a layer's best scores lie in each head.

    Args:
        scores: [heads, candidates].
        count: how many of the best are looked at, up to heads * candidates.

    Returns:
        Whole numbers [heads], with the sum ``count``. Among equal scores the first head's win, then the lowest index.
    """
    heads, candidates = scores.shape
    best = scores.flatten().sort(descending=True, stable=True).indices[:count]
    return torch.bincount(best // candidates, minlength=heads)


def mixed_counts(scores: Tensor, chosen: int, floor: float, normalise: bool) -> list[int]:
    """Numbers of candidates that heads keep: a mix of equal parts and of shares of the layer's best scores.

    Args:
        scores: [heads, candidates].
        chosen: number of candidates that a head keeps on average, up to all.
        floor: share of equal parts.
        normalise: see ``AdaptiveHeads``.
    """
    if normalise:
        falling = scores.sort(dim=-1, descending=True).values
        scores = scores * (falling[:, :chosen].sum(-1, keepdim=True) / falling.sum(-1, keepdim=True))
    shares = shares_of_best(scores, len(scores) * chosen)
    # torch rounds half to even, as the published code does.
    counts: list[int] = (shares.float() * (1 - floor) + int(chosen * floor)).round().int().tolist()
    return counts


@dataclass(frozen=True)
class AdaptiveHeads(Allocation):
    """Numbers that are a mix of equal parts and of shares of a layer's best scores, as AdaKV publishes it.

    Attributes:
        floor: share of equal parts, 0 to 1.
        normalise: whether a head's scores are first multiplied by the share of them that its budget would keep.
        skip: number of first layers in which all heads keep the budget.
    """

    floor: Floor
    normalise: bool
    skip: SkippedLayers

    @property
    def sees(self) -> Literal["layer"]:
        """The scores of the layer."""
        return "layer"

    def total(self, budget: int, shape: Shape) -> int:
        """The budget, and half an entry per head more where all of them round up."""
        return sum(at_most(each, shape) for each in self.layer_budgets(budget, shape))

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Counts]:
        """Numbers of the one layer that was seen."""
        layer, window = seen[0].layer, shape.window
        chosen, candidates = self.layer_budgets(budget, shape)[layer] - window, shape.tokens - window
        if chosen > candidates:
            return [shape.tokens]
        if layer < self.skip:
            return [chosen + window]
        counts = mixed_counts(seen[0].scores, chosen, self.floor, self.normalise)
        return [[max(1, count + window) for count in counts]]

    def layer_budgets(self, budget: int, shape: Shape) -> Sequence[int]:
        """The mean of each layer's heads, window included: the budget."""
        return [budget] * shape.layers


@dataclass(frozen=True)
class AdaptivePyramid(AdaptiveHeads):
    """``AdaptiveHeads`` with more entries in the lower layers and fewer in the upper ones, as Ada-PyramidKV has it.

    Attributes:
        beta: the top layer gets 1 / beta of an even share.
    """

    beta: Beta

    def layer_budgets(self, budget: int, shape: Shape) -> Sequence[int]:
        """Numbers that fall by equal steps, floored to whole ones."""
        layers, share, most = shape.layers, budget - shape.window, shape.tokens - shape.window
        lowest = share // self.beta
        highest = 2 * share - lowest
        if highest >= most:
            highest, lowest = most, 2 * share - most
        step = (highest - lowest) // (layers - 1) if layers > 1 else 0
        if layers == 1:
            highest = share
        return [highest - layer * step + shape.window for layer in range(layers)]


@dataclass(frozen=True)
class SafeguardedHeads(Allocation):
    """Numbers that are shares of a layer's best scores, above a minimum for every head, as kvpress reads AdaKV.

    Attributes:
        alpha_safeguard: share of the budget that is every head's minimum, 0 to 1.
    """

    alpha_safeguard: Safeguard

    @property
    def sees(self) -> Literal["layer"]:
        """The scores of the layer."""
        return "layer"

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Counts]:
        """Numbers of the one layer that was seen, with the sum budget * heads."""
        scores, window = seen[0].scores, shape.window
        heads = len(scores)
        chosen = min(budget, shape.tokens) - window
        safe = safeguard(chosen, self.alpha_safeguard, window)
        best = scores.topk(safe, dim=-1).indices
        guarded = scores.scatter(-1, best, torch.inf)
        return [[count + window for count in shares_of_best(guarded, heads * chosen).tolist()]]


def safeguard(chosen: int, alpha: float, window: int) -> int:
    """Number of candidates that every head keeps.

    Args:
        chosen: number that a head keeps on average.
        alpha: share of them.
        window: size of the window; without one no head may be empty.
    """
    return max(0 if window else 1, int(chosen * alpha))


def at_most(budget: int, shape: Shape) -> int:
    """The most entries of a layer whose heads round their numbers, of ``budget`` entries each on average."""
    return min(budget * shape.cache_heads + shape.cache_heads // 2, shape.tokens * shape.cache_heads)
