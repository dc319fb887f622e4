"""KVCompose: the tokens that the context attends to when it is read again, and more of them where these score higher.

Claim: heads may choose their tokens apart if a layer's heads keep equally many, as the cache is then a plain one; what
    a layer keeps is its share of the best such composite tokens of the model (Akulov et al., arXiv:2509.05165).
Source: NVIDIA/kvpress 0.5.5, KVComposePress, its defaults. The paper's own numbers were not compared.
Differs:
    - ``structured=false`` drops entries, where kvpress masks them and leaves the replayed copy of the context in its
      cache.
    - each layer, or each head with ``structured=false``, keeps its first ``max(1, keep_token_lower_bound)`` composite
      tokens whatever the budget is; kvpress reads the bound alone so, and may leave a layer or a head empty.
    - composite tokens of the first layer that equal another layer's go first; in kvpress their order is arbitrary.
    - a share of the prompt is exact here, where kvpress multiplies doubles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.allocation import Allocation, Counts, Seen, Shape
from harness.compression.attention_weights import attention_rows
from harness.compression.head_budgets import shares_of_best
from harness.compression.method import LayerState, Method, Scorer
from harness.compression.replay import Replay, Replayed
from harness.compression.score_parts import value_norms
from harness.values import Refusal

Aggregation = Literal["max", "mean"]
Least = Annotated[int, Meta(ge=0), Refusal("is not a whole number of 0 or more", "kvpress uses 0")]


def aggregated(numbers: Tensor, aggregation: Aggregation) -> Tensor:
    """The largest number over the first axis, or the mean."""
    return numbers.amax(0) if aggregation == "max" else numbers.mean(0)


@dataclass(frozen=True)
class RereadContext(Scorer):
    """The attention that a token gets while the context runs through its own cache once more.

    Attributes:
        agg_task: how weights are aggregated over the tokens of the replay.
        agg_group: how scores are aggregated over the query heads of a kv head.
        add_v_norm: whether scores are multiplied by the norm of the token's value.
        add_mean_across_heads: whether the mean of the layer's kv heads is added to each.
    """

    window: ClassVar[int] = 0
    agg_task: Aggregation
    agg_group: Aggregation
    add_v_norm: bool
    add_mean_across_heads: bool

    @property
    def weighs_hidden(self) -> bool:
        """Never."""
        return False

    def replays(self, prompt: Sequence[int], encode: Callable[[str], Sequence[int]] | None) -> Sequence[Replay]:
        """The whole context, once."""
        return [Replay(tuple(prompt), 0, len(prompt))]

    def read(self, layer: LayerState, replay: Replay, replayed: Replayed) -> Tensor:
        """Scores [kv_heads, tokens]; a softmax is over the context and the replay up to its own token."""
        every_key = torch.cat([layer.keys, replayed.keys], dim=1)
        heads, rows, _ = replayed.queries.shape
        scores = every_key.new_zeros(heads, replay.stop - replay.start, dtype=layer.score_dtype)
        for _, _, weights in attention_rows(replayed.queries, every_key, layer.softmax):
            block = weights[:, :, replay.start : replay.stop]
            if self.agg_task == "max":
                scores = torch.maximum(scores, block.amax(1).to(scores.dtype))
            else:
                scores += block.sum(1, dtype=scores.dtype) / rows
        kv_heads = len(layer.keys)
        grouped = aggregated(scores.view(kv_heads, -1, scores.shape[1]).transpose(0, 1), self.agg_group)
        if self.add_v_norm:
            grouped = grouped * value_norms(layer, kv_heads)[:, replay.start : replay.stop]
        return grouped + grouped.mean(0) if self.add_mean_across_heads else grouped


@dataclass(frozen=True)
class CompositeTokens(Allocation):
    """As many entries as are among the model's best composite tokens: the i-th best scores of a layer's heads as one.

    Attributes:
        structured: whether a layer's heads keep equally many; if not, every head's own scores compete.
        agg_head: how the i-th best scores of a layer's heads become one.
        keep_token_lower_bound: the fewest entries of each layer, or of each head if not ``structured``.
    """

    structured: bool
    agg_head: Aggregation
    keep_token_lower_bound: Least

    @property
    def sees(self) -> Literal["layers"]:
        """All layers, as their composite tokens compete."""
        return "layers"

    def total(self, budget: int, shape: Shape) -> int:
        """The share, or the fewest entries of every layer or head if these are more."""
        rows, each = self._rows(shape)
        return each * max(self._chosen(rows, shape), rows * self._least(shape))

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Counts]:
        """Numbers of composite tokens in each layer, or of scores in each head."""
        falling = torch.stack([layer.scores for layer in seen]).sort(dim=-1, descending=True).values
        if self.structured:
            composite = aggregated(falling.transpose(0, 1), self.agg_head)  # [layers, tokens]
            composite[0] = composite.amax(0)
        else:
            composite = falling.flatten(0, 1)  # [layers * heads, tokens]
        least = self._least(shape)
        composite[:, :least] = torch.inf
        counts = shares_of_best(composite, self._chosen(len(composite), shape)).clamp(min=least)
        found: Sequence[Counts] = counts.tolist() if self.structured else counts.view(len(seen), -1).tolist()
        return found

    def _rows(self, shape: Shape) -> tuple[int, int]:
        """Number of layers or heads that compete, and of heads that keep the entries of one."""
        layers, heads = shape.layers, shape.cache_heads
        return (layers, heads) if self.structured else (layers * heads, 1)

    def _chosen(self, rows: int, shape: Shape) -> int:
        """Number of the best composite tokens, of ``rows`` layers or heads."""
        return min(rows * shape.tokens, max(1, int(rows * shape.tokens * shape.share)))

    def _least(self, shape: Shape) -> int:
        return min(shape.tokens, max(1, self.keep_token_lower_bound))


@dataclass(frozen=True)
class KVCompose(Method):
    """Keep the tokens that the context attends to when it is read again, more of them where these score higher.

    Attributes:
        structured: whether a layer's heads keep equally many; see ``CompositeTokens``.
        agg_task: see ``RereadContext``.
        agg_group: see ``RereadContext``.
        agg_head: see ``CompositeTokens``; without effect if not ``structured``.
        add_v_norm: see ``RereadContext``.
        add_mean_across_heads: see ``RereadContext``.
        keep_token_lower_bound: see ``CompositeTokens``.
    """

    structured: bool
    agg_task: Aggregation
    agg_group: Aggregation
    agg_head: Aggregation
    add_v_norm: bool
    add_mean_across_heads: bool
    keep_token_lower_bound: Least

    @property
    def scorer(self) -> RereadContext:
        """The attention while the context is read again."""
        return RereadContext(self.agg_task, self.agg_group, self.add_v_norm, self.add_mean_across_heads)

    @property
    def allocation(self) -> CompositeTokens:
        """The best composite tokens of the model."""
        return CompositeTokens(self.structured, self.agg_head, self.keep_token_lower_bound)
