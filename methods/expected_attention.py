"""Expected Attention: the tokens that queries to come will attend to, if these are as the prompt's own queries.

Claim: queries are close to normally distributed, so the attention to come has a closed form (Devoto et al.,
    arXiv:2510.00636).
Source: kvpress 0.5.5, ExpectedAttentionPress.
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

from harness.compression.future_queries import mean_rotation, unrotated_queries
from harness.compression.method import LayerState, Method, Scorer
from harness.compression.score_parts import First, for_heads, forced, value_norms

Positions = Annotated[int, Meta(ge=1)]
Epsilon = Annotated[float, Meta(ge=0)]


@dataclass(frozen=True)
class ExpectedWeights(Scorer):
    """Expected attention weights, times the norms of values.

    Attributes:
        sinks: number of first tokens that are always kept and whose queries are left out, 0 or more.
        future_positions: number of positions over which the rotary embedding is averaged, 1 or more.
        covariance: whether the queries' covariance is used, or their mean alone.
        value_norm: whether weights are multiplied by the norms of values.
        epsilon: added to the weights before, 0 or more.

    Raises:
        ConfigError: a knob out of range.
    """

    window: ClassVar[int] = 0
    sinks: First
    future_positions: Positions
    covariance: bool
    value_norm: bool
    epsilon: Epsilon

    def score(self, layer: LayerState) -> Tensor:
        """Expected weights [heads, tokens], which are 0 for the sinks and otherwise sum to 1."""
        heads, tokens, _ = layer.queries.shape
        scores = layer.queries.new_zeros(heads, tokens, dtype=layer.score_dtype)
        if tokens <= self.sinks:
            return scores
        queries = unrotated_queries(layer, self.sinks)
        rotation = mean_rotation(layer, self.future_positions)
        mean = queries.mean(dim=1, keepdim=True)
        keys = for_heads(layer.keys.to(layer.score_dtype)[:, self.sinks :], heads)
        logits = (keys @ (mean @ rotation.T).transpose(1, 2))[..., 0] / (1 / layer.scaling)
        if self.covariance:
            centred = queries - mean
            covariance = centred.transpose(1, 2) @ centred / centred.shape[1]
            covariance = rotation @ covariance @ rotation.T
            logits = logits + ((keys @ covariance) * keys).sum(dim=-1) * (layer.scaling**2 / 2)
        scores[:, self.sinks :] = logits.softmax(dim=-1, dtype=torch.float32).to(layer.score_dtype)
        return scores

    def smooth(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Multiply by the norms of values, and force the sinks."""
        if self.value_norm:
            scores = (scores + self.epsilon) * value_norms(layer, len(scores))
        return forced(scores, first=self.sinks)


@dataclass(frozen=True)
class ExpectedAttention(Method):
    """Keep the tokens that queries to come will attend to.

    Attributes:
        sinks: first tokens, always kept; their queries are left out.
        future_positions: positions over which the rotary embedding is averaged.
        covariance: whether the queries' covariance is used, or their mean alone.
        value_norm: whether expected weights are multiplied by the norms of values.
        epsilon: added to the weights before.
    """

    sinks: First
    future_positions: Positions
    covariance: bool
    value_norm: bool
    epsilon: Epsilon

    @property
    def scorer(self) -> ExpectedWeights:
        """Expected attention weights."""
        return ExpectedWeights(self.sinks, self.future_positions, self.covariance, self.value_norm, self.epsilon)
