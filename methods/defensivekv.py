"""DefensiveKV: tokens by the worst case of their future attention and their values' weight, over all heads of a layer.

Claim: a mean over the last queries hides tokens that one of them needs; the maximum, never below a prior, is a defence
    (Feng et al., arXiv:2510.13334).
Source: FFY0/DefensiveKV at 9251b95, a fork of NVIDIA/kvpress; ``across: layers`` is its Layer-DefensiveKV.
Differs:
    - from the authors' code: the number of tokens that are safe in the first stage is never negative; there a negative
      one would count from the end.
    - the window is always kept; there it has the largest score of its layer, as the safe tokens have.
    - with ``granularity=query_head`` the query heads of a kv head have its scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.allocation import Allocation, Seen, Shape
from harness.compression.attention_weights import attention_rows
from harness.compression.method import LayerState, Method, Scorer
from harness.compression.scorers import Kernel, Window, pool
from harness.values import Refusal

SafeShare = Annotated[float, Meta(ge=0, le=1), Refusal("is not a number from 0 to 1", "the authors use safe_share=0.9")]
Across = Literal["heads", "layers"]


@dataclass(frozen=True)
class WorstCase(Scorer):
    """The largest attention from any of the last queries and heads of a group, times the value's share of output.

    Attributes:
        window: number of trailing queries that vote, 1 or more; these tokens are always kept.
        kernel: width of the average pooling.
        safe_share: see ``DefensiveKV``.
        most_safe: the most tokens of a head that are safe, by the budget.

    Raises:
        ConfigError: a knob out of range.
    """

    window: Window
    kernel: Kernel
    safe_share: SafeShare
    most_safe: int

    def score(self, layer: LayerState) -> Tensor:
        """[kv_heads, candidates]; safe tokens have the largest score of the layer."""
        tokens, kv_heads = layer.keys.shape[1], layer.keys.shape[0]
        candidates = tokens - self.window
        queries, keys = layer.queries[:, candidates:].to(layer.score_dtype), layer.keys.to(layer.score_dtype)
        ((_, _, weights),) = attention_rows(queries, keys, layer.softmax, block_bytes=2**62)
        attention = weights[:, :, :candidates]  # [heads, window, candidates]
        rows = attention.reshape(-1, candidates)
        pooled = pool(rows, self.kernel, "avgpool")
        pooled = pooled * (rows.sum(-1, keepdim=True) / _above_zero(pooled.sum(-1, keepdim=True)))
        worst = pooled.reshape(kv_heads, -1, candidates).amax(1)
        norms = self._norms(layer, candidates)
        scores = torch.maximum(worst, worst.mean(-1, keepdim=True)) * norms / _above_zero(norms.sum(0, keepdim=True))
        return torch.where(self._safe(attention.reshape(kv_heads, -1, candidates).mean(1)), scores.max(), scores)

    def _norms(self, layer: LayerState, candidates: int) -> Tensor:
        """Mean over the group of the sizes [kv_heads, candidates] of what values add to the layer's output."""
        kv_heads, projection = layer.values.shape[0], layer.output_projection.to(layer.score_dtype)
        projection = projection.reshape(kv_heads, -1, *projection.shape[1:])  # [kv_heads, group, head_dim, hidden]
        values = layer.values[:, :candidates].to(layer.score_dtype)
        # Head after head, since the outputs of all heads together are large.
        sizes = [(values @ projection[:, head]).abs_().sum(-1) for head in range(projection.shape[1])]
        return torch.stack(sizes).mean(0)

    def _safe(self, attention: Tensor) -> Tensor:
        """Which candidates are safe: the first ones by mean attention [kv_heads, candidates], up to a share of it."""
        bias = attention[:, -self.window :].sum(-1).mean()
        ordered = attention.sort(dim=-1, descending=True, stable=True)
        shares = ordered.values.cumsum(-1) / ordered.values.sum(-1, keepdim=True)
        within = shares < self.safe_share - bias
        within[:, self.most_safe :] = False
        return torch.zeros_like(within).scatter(1, ordered.indices, within)


@dataclass(frozen=True)
class BestOfAll(Allocation):
    """The best scores of all heads of a layer, or of all layers.

    Attributes:
        across: ``heads`` or ``layers``.
    """

    across: Across

    @property
    def sees(self) -> Literal["layer", "layers"]:
        """The layer in question, or all of them."""
        return "layer" if self.across == "heads" else "layers"

    def total(self, budget: int, shape: Shape) -> int:
        """The budget in every head and layer."""
        return self._entries(shape, 1) * shape.layers if self.across == "heads" else self._entries(shape, shape.layers)

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Sequence[int]]:
        """How many of the best lie in each head, and the window."""
        rows = torch.cat([layer.scores for layer in seen])
        chosen = self._entries(shape, len(seen)) - shape.window * len(rows)
        best = rows.flatten().topk(min(chosen, rows.numel()), sorted=False).indices // rows.shape[1]
        counts: list[list[int]] = torch.bincount(best, minlength=len(rows)).reshape(len(seen), -1).tolist()
        return [[count + shape.window for count in layer] for layer in counts]

    def _entries(self, shape: Shape, layers: int) -> int:
        """Entries of some layers together, their windows included; cut down to a whole number."""
        heads = shape.cache_heads * layers
        return max(shape.window * heads, int(shape.tokens * shape.share * heads))


@dataclass(frozen=True)
class DefensiveKV(Method):
    """Keep the tokens that the last queries may need most in the worst case, wherever in the layer or model they are.

    Attributes:
        window: trailing queries that vote; their tokens are always kept.
        kernel: width of the average pooling over neighbouring positions.
        safe_share: in each head the tokens of most attention are safe up to this share of it.
        across: whether all ``heads`` of a layer, or those of all ``layers``, share the entries.
    """

    window: Window
    kernel: Kernel
    safe_share: SafeShare
    across: Across

    @property
    def scorer(self) -> WorstCase:
        """The worst case, with no token safe."""
        return WorstCase(self.window, self.kernel, self.safe_share, 0)

    def scorer_for(self, shape: Shape) -> WorstCase:
        """The worst case, with as many safe tokens at most as the budget has room for."""
        room = int((shape.tokens - self.window) * shape.share - self.window)
        return replace(self.scorer, most_safe=max(0, room))

    @property
    def allocation(self) -> BestOfAll:
        """The best of all heads, or of all layers."""
        return BestOfAll(self.across)


def _above_zero(sums: Tensor) -> Tensor:
    """Sums of numbers of 0 or more as divisors: where there is nothing to divide, nothing is left."""
    return sums.clamp(min=torch.finfo(sums.dtype).tiny)
