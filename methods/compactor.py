"""Compactor: leverage of keys and non-causal attention together, the more leverage the more is dropped.

Claim: leverage and attention without a mask find what later questions need, whatever they ask (Chari et al.,
    arXiv:2507.08143).
Source: kvpress 0.5.5, CompactorPress.
Differs:
    - with ``blending: null`` leverage has the weight of the share that is really dropped, 1 - kept / tokens; kvpress
      takes the compression ratio that was asked for.
    - the projection is drawn from ``seed`` alone; kvpress draws it from torch's global generator, layer after layer.
    - keys before the rotary embedding are got by turning the rotated ones back, which rounds once more.
    - with ``model.tp_plan=auto`` scores are standardised over the heads of one process, which shifts the weights.
    - from kvpress: a share of the prompt is rounded to a whole number, not cut down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.leverage import chunk_attention, leverage_scores, sketch
from harness.compression.method import LayerState, Method, Scorer
from harness.compression.score_parts import First, for_heads, standardised, value_norms
from harness.compression.scorers import pool
from harness.values import LARGEST

Chunk = Annotated[int, Meta(ge=1)]
Seed = Annotated[int, Meta(ge=0, le=LARGEST)]
Size = Annotated[int, Meta(ge=1)]
Blending = Annotated[float, Meta(ge=0)]


@dataclass(frozen=True)
class Blended(Scorer):
    """Non-causal attention, and leverage times a weight, of the tokens between the first and the last ones.

    Attributes:
        first: number of first tokens that get the largest score, 0 or more.
        last: number of last tokens that do.
        chunk: tokens in a chunk of the attention, 1 or more.
        sketch: dimensions of the leverage's projection, 1 or more.
        seed: what it is drawn from.
        blending: weight of leverage, 0 or more; None for the share that is dropped.

    Raises:
        ConfigError: a knob out of range.
    """

    window: ClassVar[int] = 0
    first: First
    last: First
    chunk: Chunk
    sketch: Size
    seed: Seed
    blending: Blending | None

    def score(self, layer: LayerState) -> Tensor:
        """Attention within chunks of the tokens between, [heads, tokens]; 0 for the others."""
        scores = torch.zeros(layer.queries.shape[:2], device=layer.queries.device)
        between = self._between(layer)
        if between.stop > between.start:
            queries, keys = (states[:, between].to(layer.score_dtype) for states in (layer.queries, layer.keys))
            scores[:, between] = chunk_attention(queries, keys, self.chunk)
        return scores

    def smooth(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Finish the attention, and add leverage if its weight is known already."""
        between = self._between(layer)
        if between.stop <= between.start:
            return scores
        scores = scores.clone()
        attended = scores[:, between] * value_norms(layer, len(scores))[:, between]
        scores[:, between] = standardised(pool(attended, 3, "avgpool"))
        return self._with_leverage(scores, layer, self.blending or 0.0)

    def rerank(self, scores: Tensor, layer: LayerState, counts: Tensor) -> Tensor:
        """Add leverage by the share of the prompt that each head drops."""
        if self.blending is not None:
            return scores
        return self._with_leverage(scores, layer, 1 - counts[:, None] / layer.keys.shape[1])

    def _between(self, layer: LayerState) -> slice:
        """The tokens that are scored."""
        return slice(self.first, layer.keys.shape[1] - self.last)

    def _with_leverage(self, scores: Tensor, layer: LayerState, weight: float | Tensor) -> Tensor:
        """Scores with leverage times a weight; the first and the last tokens get the largest one."""
        between = self._between(layer)
        if between.stop <= between.start:
            return scores
        scores = scores.clone()
        if isinstance(weight, Tensor) or weight:
            leverage = layer.once(("leverage", self), lambda: self._leverage(layer))
            scores[:, between] = weight * for_heads(leverage, len(scores)) + scores[:, between]
        largest = scores[:, between].amax()
        scores[:, : between.start], scores[:, between.stop :] = largest, largest
        return scores

    def _leverage(self, layer: LayerState) -> Tensor:
        """Leverage of the tokens that are scored, [kv_heads, tokens], standardised over the layer."""
        keys = layer.unrotated(layer.keys.to(layer.score_dtype))[:, self._between(layer)]
        kv_heads, _, size = keys.shape
        projection = sketch(self.seed, layer.index, kv_heads, size, self.sketch)
        return standardised(leverage_scores(keys, projection))


@dataclass(frozen=True)
class Compactor(Method):
    """Keep the first and the last tokens, and what leverage and non-causal attention choose between them.

    Attributes:
        first: first tokens that come before all others.
        last: last tokens that do.
        chunk: tokens in a chunk, within which every query attends to every key.
        sketch: dimensions of the leverage's random projection.
        seed: what it is drawn from.
        blending: weight of leverage beside attention; null for the share of the prompt that is dropped.
    """

    first: First
    last: First
    chunk: Chunk
    sketch: Size
    seed: Seed
    blending: Blending | None

    @property
    def scorer(self) -> Blended:
        """Non-causal attention and leverage."""
        return Blended(self.first, self.last, self.chunk, self.sketch, self.seed, self.blending)
