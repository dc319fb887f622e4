"""A prefill's attention, layer by layer: full causal attention, and every plan's entries while the layer is at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.compression.attention_weights import causal_attention
from harness.compression.grid import Plan
from harness.compression.method import LayerState, Ranking, ReadsWeights, ScoreReader
from harness.compression.selection import Order, Selection, kept_indices, order_of
from harness.engine import tensor_parallel
from harness.engine.attention import fused_attention
from harness.engine.cache import LayerKV
from harness.engine.time_limit import TimeLimit
from harness.kernels import Kernels

# The published code multiplies a prompt's weights and values at once; so do we with ``ties=torch``, up to this many
# bytes of logits.
_PUBLISHED_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class LayerPast:
    """One layer of a beginning: what later tokens attend to, and what rankings need of it."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    readers: Mapping[Ranking, ScoreReader]


@dataclass(frozen=True)
class Past:
    """The beginning of a prompt, prefilled. Prompts that begin alike can go on from it.

    It holds the queries, keys and values of all layers, so that every ranking can be computed when the prompt is whole.

    Attributes:
        ids: its tokens, 1 or more.
        layers: one entry per layer.
        broken: where its numbers stopped being finite, if they did.
    """

    ids: tuple[int, ...]
    layers: tuple[LayerPast, ...]
    broken: str | None

    def begins(self, prompt: Sequence[int]) -> bool:
        """Whether it is the beginning of a longer prompt."""
        return len(self.ids) < len(prompt) and tuple(prompt[: len(self.ids)]) == self.ids


@dataclass
class Growing:
    """What a plan has kept so far: entries, their indices of all heads (None for everything), and tied heads. Nothing in it waits for the
    device."""

    layers: list[LayerKV] = field(default_factory=list)
    indices: list[Tensor | None] = field(default_factory=list)
    ties: list[Tensor] = field(default_factory=list)


class PrefillAttention:
    """Computes full causal attention and lets every plan take its entries while the layer is at hand."""

    def __init__(
        self,
        plans: Sequence[Plan],
        layers: int,
        selection: Selection,
        past: Past | None,
        whole: bool,
        kernels: Kernels = "torch",
    ) -> None:
        """Take what all layers share.

        Args:
            plans: what to keep when the prompt is whole.
            layers: of the model.
            selection: how entries are picked.
            past: what was prefilled before.
            whole: False where more of the prompt is to come: then everything is kept, and nothing is picked.
            kernels: see ``EngineSettings``.
        """
        self.seen: list[int] = []
        self.full_bytes = 0
        self.growing = {plan: Growing() for plan in plans}
        self.held: list[LayerPast] = []
        self._layers = layers
        self._selection = selection
        self._past = past
        self._whole = whole
        self._kernels = kernels

    def idle(self) -> PrefillAttention:
        """One that computes the same attention and keeps nothing."""
        return PrefillAttention((), self._layers, self._selection, self._past, whole=True)

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        self.seen.append(layer)
        new, past = queries[0], self._past.layers[layer] if self._past is not None else None
        score_dtype = torch.float32 if self._selection.dtype == "float32" else queries.dtype
        every_query, every_key, every_value = new, keys[0], values[0]
        if past is not None:
            every_query = torch.cat([past.queries, every_query], dim=1)
            every_key, every_value = (
                torch.cat([past.keys, every_key], dim=1),
                torch.cat([past.values, every_value], dim=1),
            )
        state = LayerState(
            every_query, every_key, every_value, layer, self._layers, scaling, score_dtype, self._kernels
        )
        self.full_bytes += tensor_parallel.count() * (state.keys.nbytes + state.values.nbytes)
        readers = self._readers(state, past)
        out = self._attention(new, state, list(readers.values()))
        if self._whole:
            raw = {ranking: reader.scores() for ranking, reader in readers.items()}
            orders: dict[Ranking, Order] = {}
            for plan, growing in self.growing.items():
                self._take(plan, growing, state, raw, orders)
        else:
            self.held.append(LayerPast(state.queries, state.keys, state.values, readers))
        return out.transpose(0, 1)[None]

    def _readers(self, state: LayerState, past: LayerPast | None) -> dict[Ranking, ScoreReader]:
        """Rankings of this layer that can be computed from the attention's own weights, where it has any and of the scores' dtype."""
        if state.queries.device.type != "cpu" or state.score_dtype != state.queries.dtype:
            return {}
        tokens = state.keys.shape[1]
        found: dict[Ranking, ScoreReader] = {}
        for plan in self.growing:
            ranking = plan.ranking
            if (
                not isinstance(ranking, ReadsWeights)
                or ranking in found
                or (past is not None and ranking not in past.readers)
            ):
                continue
            if self._whole and not ranking.window < plan.keep[state.index] < tokens:
                continue
            reader = ranking.reader(state)
            if reader is not None:
                if past is not None:
                    reader.resume(past.readers[ranking])
                found[ranking] = reader
        return found

    def _attention(self, queries: Tensor, state: LayerState, readers: Sequence[ScoreReader]) -> Tensor:
        """[H, rows, D] of the last queries."""
        keys, values = state.keys, state.values
        if queries.device.type == "cpu":
            # Slower than the fused kernel, but rounds as the published code does, which decides near-ties in the layers
            # above; and always this one, so that a cell's numbers do not depend on which others are in the grid.
            block_bytes = _PUBLISHED_BLOCK_BYTES if self._selection.ties == "torch" else None
            return causal_attention(queries, keys, values, state.scaling, block_bytes, readers)
        rows, tokens = queries.shape[1], keys.shape[1]
        from torch.nn.attention.bias import causal_lower_right  # here, as it brings the compiler

        options: dict[str, Any] = (
            {"is_causal": True} if rows == tokens else {"attn_mask": causal_lower_right(rows, tokens)}
        )
        copies = queries.shape[0] // keys.shape[0]
        if copies > 1 and keys.dtype.itemsize > 2:
            # Without copies nothing fused takes these, and all weights would be made at once.
            keys, values, copies = keys.repeat_interleave(copies, dim=0), values.repeat_interleave(copies, dim=0), 1
        return fused_attention(
            queries[None], keys[None], values[None], scale=state.scaling, enable_gqa=copies > 1, **options
        )[0]

    def _take(
        self,
        plan: Plan,
        growing: Growing,
        state: LayerState,
        raw: Mapping[Ranking, Tensor],
        orders: dict[Ranking, Order],
    ) -> None:
        kv_heads, tokens, _ = state.keys.shape
        keep = plan.keep[state.index]
        if keep >= tokens or plan.ranking is None:
            growing.layers.append(LayerKV(state.keys, state.values))
            growing.indices.append(None)
            return
        ranking = plan.ranking
        order = None
        if keep > ranking.window:
            order = orders.get(ranking)
            if order is None:
                try:
                    order = orders[ranking] = order_of(ranking, state, self._selection, raw.get(ranking))
                except TimeLimit as over:
                    over.at = ranking
                    raise
        copies = state.queries.shape[0] // kv_heads if self._selection.granularity == "query_head" else 1
        heads = kv_heads * copies
        indices = kept_indices(order, keep, ranking.window, tokens, heads, state.keys.device)
        if order is not None:
            growing.ties.append(order.tied_heads(indices[:, : keep - ranking.window]))
        source = torch.arange(heads, device=indices.device)[:, None] // copies
        growing.layers.append(LayerKV(state.keys[source, indices], state.values[source, indices]))
        growing.indices.append(tensor_parallel.all_heads(indices.to(torch.int32)))
