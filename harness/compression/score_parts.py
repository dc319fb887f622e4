"""What methods share besides attention of a window: forced tokens, norms of values, standardised scores, TOVA's.

Shapes: H query heads, Hk kv heads, T prompt tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.attention_weights import attention_rows
from harness.compression.method import LayerState, Scorer
from harness.compression.scorers import Kernel, Pooling, Window, pool, window_attention

First = Annotated[int, Meta(ge=0)]
"""Number of first tokens ("attention sinks") that are always kept."""


def forced(scores: Tensor, first: int = 0, last: int = 0) -> Tensor:
    """Scores [heads, T] in which the first and the last tokens stand above all others of the layer.

    As in kvpress, they get the largest score of all heads, plus 1. There, an arbitrary part of them is kept where not
    all fit; here they rise with the position by the smallest step, so that the newest ones are.

    Args:
        scores: [heads, T]. What it says of the forced tokens is not looked at.
        first: number of first tokens.
        last: number of last tokens.
    """
    tokens = scores.shape[1]
    first, last = min(first, tokens), min(last, tokens)
    free = scores[:, first : max(first, tokens - last)]
    top = (free.amax() if free.numel() else scores.new_zeros(())) + 1
    position = torch.arange(tokens, device=scores.device)
    # Numbers of the forced tokens in their order; a step is the smallest that the dtype has.
    step = torch.where(position < first, position, first + position - (tokens - last)).clamp(min=0)
    raised = (top + top.abs() * step * torch.finfo(scores.dtype).eps).to(scores.dtype).expand_as(scores)
    return torch.where((position < first) | (position >= tokens - last), raised, scores)


def for_heads(states: Tensor, heads: int) -> Tensor:
    """Numbers [Hk, ...] of kv heads, repeated for the heads of a cache that has as many or stores query heads."""
    return states if len(states) == heads else states.repeat_interleave(heads // len(states), dim=0)


def value_norms(layer: LayerState, heads: int, order: int = 2) -> Tensor:
    """Norms of the values for each head of the cache, [heads, T] in the layer's score dtype.

    Args:
        layer: the state of the layer.
        heads: number of the cache's heads.
        order: 1 for the sum of absolute values, 2 for the Euclidean norm.
    """
    return for_heads(torch.linalg.vector_norm(layer.values.to(layer.score_dtype), ord=order, dim=-1), heads)


def standardised(scores: Tensor) -> Tensor:
    """Scores less their mean, divided by their deviation (unbiased), over all heads and positions together."""
    return (scores - scores.mean()) / scores.std().clamp(min=1e-6)


@dataclass(frozen=True)
class WindowInBudget(Scorer):
    """SnapKV's scores as kvpress reads them: the window is a part of the budget, not beside it.

    They are pooled for each query head, before heads are grouped, and the window's tokens are forced.

    Attributes:
        queries: number of trailing queries that vote, 1 or more.
        kernel: width of the pooling, 1 or more; odd.
        pooling: ``maxpool`` or ``avgpool``.

    Raises:
        ConfigError: a knob out of range.
    """

    window: ClassVar[int] = 0
    queries: Window
    kernel: Kernel
    pooling: Pooling

    @property
    def last_queries(self) -> int:
        """Those that vote."""
        return self.queries

    def score(self, layer: LayerState) -> Tensor:
        """Mean attention from the last queries, pooled; [H, T] with zeros for their own tokens."""
        tokens = layer.keys.shape[1]
        scores = layer.queries.new_zeros(layer.queries.shape[0], tokens, dtype=layer.score_dtype)
        if tokens > self.queries:
            earlier = tokens - self.queries
            scores[:, :earlier] = pool(window_attention(layer, self.queries) / self.queries, self.kernel, self.pooling)[
                :, :earlier
            ]
        return scores

    def smooth(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Force the last tokens; see ``forced``."""
        return forced(scores, last=self.queries)


@dataclass(frozen=True)
class LastQuery(Scorer):
    """Attention from the last token, averaged over all query heads of the layer.

    Attributes:
        keep_last: whether the last token itself comes before all others.
    """

    window: ClassVar[int] = 0
    keep_last: bool

    @property
    def last_queries(self) -> int:
        """The last one."""
        return 1

    def score(self, layer: LayerState) -> Tensor:
        """[1, tokens] in the layer's score dtype; the sum is 1."""
        queries, keys = layer.queries[:, -1:].to(layer.score_dtype), layer.keys.to(layer.score_dtype)
        ((_, _, attention),) = attention_rows(queries, keys, layer.softmax, block_bytes=2**62)
        return attention[:, 0].mean(dim=0, keepdim=True)

    def smooth(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Force the last token, if it is to be kept."""
        return forced(scores, last=1) if self.keep_last else scores
