"""L2Norm: the tokens whose keys have the smallest norms, with the first layers left whole.

Claim: a key of small norm receives much attention later on, but not in the first layers (Devoto et al.,
    arXiv:2406.11430).
Source: Zefan-Cai/KVCache-Factory at c97f9d7, whose L2NormCluster no runner calls.
Differs:
    - the first layers come on top of the budget, as there; the total exceeds budget x layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.allocation import Allocation, Seen, Shape
from harness.compression.method import LayerState, Method, Scorer

Layers = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True)
class SmallestKeys(Scorer):
    """The negated norm of each key."""

    window: ClassVar[int] = 0

    def score(self, layer: LayerState) -> Tensor:
        """-||k||, [kv_heads, tokens] in the layer's score dtype."""
        norms: Tensor = torch.linalg.vector_norm(layer.keys.to(layer.score_dtype), dim=-1)
        return -norms


@dataclass(frozen=True)
class WholeFirstLayers(Allocation):
    """The whole prompt in the first layers, the budget in the others.

    Attributes:
        layers: number of first layers, 0 or more.
    """

    layers: Layers

    def total(self, budget: int, shape: Shape) -> int:
        """More than the budget, for the first layers."""
        return sum(self.counts(budget, shape, ())) * shape.cache_heads

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[int]:
        """One number per layer."""
        return [shape.tokens if layer < self.layers else min(budget, shape.tokens) for layer in range(shape.layers)]


@dataclass(frozen=True)
class L2Norm(Method):
    """Keep the tokens whose keys have the smallest norms, and everything in the first layers.

    Attributes:
        whole_layers: number of first layers that keep the whole prompt.
    """

    whole_layers: Layers

    @property
    def scorer(self) -> SmallestKeys:
        """The negated norm of each key."""
        return SmallestKeys()

    @property
    def allocation(self) -> WholeFirstLayers:
        """The whole prompt in the first layers, the budget in the others."""
        return WholeFirstLayers(self.whole_layers)
