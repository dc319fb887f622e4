"""CurDKV: the tokens of large keys and values, by approximate leverage scores of a CUR decomposition.

Claim: rows of large leverage keep the product of attention and values (Sengupta et al., arXiv:2509.15038).
Source: kvpress 0.5.5, CURPress.
Differs:
    - from kvpress: the random projection, which is off there by default, is left out; and a share of the prompt is
      rounded to a whole number, not cut down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor
from torch.nn import functional

from harness.compression.method import LayerState, Method, Scorer
from harness.compression.score_parts import First

Leverage = Literal["key", "value", "kv_product", "kv_avg"]
Block = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True)
class SquaredNorms(Scorer):
    """Squared norms of keys and values, as shares of their sums.

    Attributes:
        sinks: number of first tokens that are always kept, 0 or more.
        leverage: what is scored: keys, values, the product of both or their mean.
        block: tokens over which norms are divided by their sum, 1 or more; None for no such blocks.

    Raises:
        ConfigError: a knob out of range.
    """

    window: ClassVar[int] = 0
    sinks: First
    leverage: Leverage
    block: Block | None

    def score(self, layer: LayerState) -> Tensor:
        """[kv_heads, tokens] in the layer's score dtype, from 0 to 1, which the sinks get."""
        keys, values = (self._shares(states.to(layer.score_dtype)) for states in (layer.keys, layer.values))
        scores = {"key": keys, "value": values, "kv_product": keys * values, "kv_avg": (keys + values) / 2}[
            self.leverage
        ]
        scores = scores / scores.sum(dim=-1, keepdim=True)
        scores[:, : self.sinks] = 1.0
        return scores

    def _shares(self, states: Tensor) -> Tensor:
        """Squared norms [kv_heads, tokens], each as a share of its block."""
        squares: Tensor = torch.linalg.vector_norm(states, dim=-1) ** 2
        if self.block is None:
            return squares
        tokens = squares.shape[1]
        blocks = functional.pad(squares, (0, -tokens % self.block)).reshape(len(squares), -1, self.block)
        return (blocks / blocks.sum(dim=-1, keepdim=True)).flatten(1)[:, :tokens]


@dataclass(frozen=True)
class CurDKV(Method):
    """Keep the tokens of large keys and values.

    Attributes:
        sinks: first tokens, always kept.
        leverage: ``key``, ``value``, ``kv_product`` or ``kv_avg``.
        block: tokens over which norms are divided by their sum; null for no such blocks.
    """

    sinks: First
    leverage: Leverage
    block: Block | None

    @property
    def scorer(self) -> SquaredNorms:
        """Squared norms as shares of their sums."""
        return SquaredNorms(self.sinks, self.leverage, self.block)
