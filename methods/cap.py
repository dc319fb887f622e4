"""CAP: the tokens whose values stand out in the span of all values, weighted by how expected queries see their keys.

Claim: weighted leverage of values keeps the capacity of the cache.
Source: kvpress 0.5.5, CapPress.
Differs:
    - queries before the rotary embedding are got by turning the rotated ones back, which rounds once more.
    - from kvpress: a share of the prompt is rounded to a whole number, not cut down.
    - a prompt that is no longer than the sinks keeps its newest tokens; kvpress refuses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from msgspec import Meta
from torch import Tensor
from torch.nn import functional

from harness.compression.future_queries import mean_rotation, unrotated_queries
from harness.compression.method import LayerState, Method, Scorer
from harness.compression.score_parts import First, for_heads, forced

Tau = Annotated[float, Meta(gt=0)]
Positions = Annotated[int, Meta(ge=1)]
Epsilon = Annotated[float, Meta(ge=0)]


@dataclass(frozen=True)
class WeightedLeverage(Scorer):
    """Leverage of values, weighted by the cosine between their keys and the mean query to come.

    Attributes:
        sinks: number of first tokens that are always kept and left out, 0 or more.
        tau: factor on the cosine in the exponent of the weights, above 0.
        future_positions: number of positions over which the rotary embedding is averaged, 1 or more.
        epsilon: added to the weights in the sum over values, 0 or more.

    Raises:
        ConfigError: a knob out of range.
    """

    window: ClassVar[int] = 0
    sinks: First
    tau: Tau
    future_positions: Positions
    epsilon: Epsilon

    def score(self, layer: LayerState) -> Tensor:
        """[heads, tokens] in float32, 0 for the sinks."""
        heads, tokens, size = layer.queries.shape
        scores = torch.zeros(heads, tokens, device=layer.queries.device)
        if tokens <= self.sinks:
            return scores
        mean = unrotated_queries(layer, self.sinks).mean(dim=1, keepdim=True)
        mean = mean @ mean_rotation(layer, self.future_positions).T
        keys, values = (
            for_heads(states[:, self.sinks :].to(layer.score_dtype), heads) for states in (layer.keys, layer.values)
        )
        logits = self.tau * functional.cosine_similarity(keys, mean, dim=-1)
        weights = (logits - logits.amax(dim=-1, keepdim=True)).exp().float()
        values = values.float()
        products = (values * (weights + self.epsilon)[..., None]).transpose(1, 2) @ values
        products = products + torch.eye(size, device=values.device)
        solved = torch.linalg.solve(products, values.transpose(1, 2)).transpose(1, 2)
        scores[:, self.sinks :] = weights * (values * solved).sum(dim=-1)
        return scores

    def smooth(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Force the sinks."""
        return forced(scores, first=self.sinks)


@dataclass(frozen=True)
class Cap(Method):
    """Keep the tokens whose values stand out, weighted by their keys.

    Attributes:
        sinks: first tokens, always kept.
        tau: factor on the cosine between keys and the mean query to come.
        future_positions: positions over which the rotary embedding is averaged.
        epsilon: added to the weights in the sum over values.
    """

    sinks: First
    tau: Tau
    future_positions: Positions
    epsilon: Epsilon

    @property
    def scorer(self) -> WeightedLeverage:
        """Weighted leverage of values."""
        return WeightedLeverage(self.sinks, self.tau, self.future_positions, self.epsilon)
