"""Observed Attention: H2O as kvpress reads it, the mean weight of a token among the queries that could see it.

Claim: a few tokens receive most of the attention (Zhang et al., arXiv:2306.14048).
Source: kvpress 0.5.5, ObservedAttentionPress.
Differs:
    - from the paper and from ``method=h2o``: sums are divided by the number of queries that see a token, and no recent
      token is kept for being recent.
    - from kvpress: sums are exact and computed in row blocks, so that memory grows with the number of tokens, not with
      its square; and a share of the prompt is rounded to a whole number, not cut down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.compression.method import LayerState, Method, Scorer
from harness.compression.scorers import ColumnAccumulator, column_sums


@dataclass(frozen=True)
class ColumnMeans(Scorer):
    """Mean attention that each token receives from itself and all later queries."""

    window: ClassVar[int] = 0

    def score(self, layer: LayerState) -> Tensor:
        """[heads, tokens] in the layer's score dtype."""
        return _means(column_sums(layer, 0, causal=True))

    def accumulator(self, layer: LayerState) -> MeanAccumulator:
        """A reader that sums the prefill's own weights."""
        return MeanAccumulator(layer, 0)


class MeanAccumulator(ColumnAccumulator):
    """Sums the weights that each token receives, and divides them by the number of queries that saw it."""

    def scores(self) -> Tensor:
        """The means [heads, tokens] in the layer's score dtype; all queries must have been read."""
        return _means(super().scores())


def _means(sums: Tensor) -> Tensor:
    """Column sums [heads, T] divided by T - t."""
    return sums / torch.arange(sums.shape[1], 0, -1, device=sums.device)


@dataclass(frozen=True)
class ObservedAttention(Method):
    """Keep the tokens that receive most attention from the queries that could see them."""

    @property
    def scorer(self) -> ColumnMeans:
        """Mean attention received."""
        return ColumnMeans()
