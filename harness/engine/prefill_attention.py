"""The attention of a prefill, layer by layer: full causal attention, and the selection of every plan's entries."""

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
from harness.engine.failures import RankingFailed, is_of_the_prompt
from harness.engine.time_limit import TimeLimit
from harness.kernels import Kernels

# The published code multiplies all weights of a prompt with the values at once; with ``ties=torch`` so does this file,
# up to this many bytes of logits.
_PUBLISHED_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class LayerPast:
    """One layer of a prefilled beginning: what later tokens attend to, and what rankings need of it.

    Attributes:
        queries: [heads, tokens, head_dim].
        keys: [kv_heads, tokens, head_dim].
        values: [kv_heads, tokens, head_dim].
        readers: scores read so far, for rankings that read the attention's own weights.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    readers: Mapping[Ranking, ScoreReader]


@dataclass(frozen=True)
class Past:
    """The prefilled beginning of a prompt, from which all prompts that begin like this can go on.

    It holds the queries, keys and values of all layers, so that every ranking can be computed once the prompt is
    complete.

    Attributes:
        ids: its token ids, 1 or more.
        layers: one ``LayerPast`` per layer.
        broken: where its numbers stopped being finite; None if they did not.
    """

    ids: tuple[int, ...]
    layers: tuple[LayerPast, ...]
    broken: str | None

    def begins(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt begins like this and is longer."""
        return len(self.ids) < len(prompt) and tuple(prompt[: len(self.ids)]) == self.ids


@dataclass
class Growing:
    """What a plan has kept of the layers so far. Filling it never waits for the device.

    Attributes:
        layers: kept entries, one ``LayerKV`` per layer.
        indices: [heads, entries] of all heads, one per layer; None for a layer that keeps everything.
        ties: numbers of heads with ties, as 0-d tensors, for layers in which candidates were ranked.
    """

    layers: list[LayerKV] = field(default_factory=list)
    indices: list[Tensor | None] = field(default_factory=list)
    ties: list[Tensor] = field(default_factory=list)


class PrefillAttention:
    """Computes full causal attention, and selects the entries of every plan in each layer as it comes.

    Attributes:
        seen: indices of the layers that have come, in order.
        full_bytes: bytes of the full cache, of the layers so far.
        growing: what each plan has kept so far.
        held: with ``whole=False``, one ``LayerPast`` per layer so far.
    """

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
            plans: what to keep when the prompt is complete.
            layers: number of layers of the model.
            selection: how entries are selected.
            past: the part of the prompt that is prefilled already.
            whole: whether this forward completes the prompt. If not, everything is held and nothing is selected.
            kernels: what computes scores; see ``EngineSettings``.
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
        """A ``PrefillAttention`` that computes the same attention and keeps nothing."""
        return PrefillAttention((), self._layers, self._selection, self._past, whole=True)

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """Compute one layer's attention and select its entries; see ``LayerAttention``."""
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
        """Readers for the rankings of this layer that can be computed from the attention's own weights.

        There are weights on a CPU alone, and they serve if the attention's dtype is that of the scores.
        """
        if state.queries.device.type != "cpu" or state.score_dtype != state.queries.dtype:
            return {}
        tokens = state.keys.shape[1]
        readers: dict[Ranking, ScoreReader] = {}
        for plan in self.growing:
            ranking = plan.ranking
            if (
                not isinstance(ranking, ReadsWeights)
                or ranking in readers
                or (past is not None and ranking not in past.readers)
            ):
                continue
            if self._whole and not ranking.window < plan.keep[state.index] < tokens:
                continue
            reader = ranking.reader(state)
            if reader is not None:
                if past is not None:
                    reader.resume(past.readers[ranking])
                readers[ranking] = reader
        return readers

    def _attention(self, queries: Tensor, state: LayerState, readers: Sequence[ScoreReader]) -> Tensor:
        """The attention output [H, rows, D] of queries that stand at the last positions."""
        keys, values = state.keys, state.values
        if queries.device.type == "cpu":
            # Slower than the fused kernel, but it rounds as the published code does, which decides near-ties in the
            # layers above. It is used always, so that a cell's numbers do not depend on the other cells of the grid.
            block_bytes = _PUBLISHED_BLOCK_BYTES if self._selection.ties == "torch" else None
            return causal_attention(queries, keys, values, state.scaling, block_bytes, readers)
        rows, tokens = queries.shape[1], keys.shape[1]
        from torch.nn.attention.bias import causal_lower_right  # not above: it imports the compiler

        options: dict[str, Any] = (
            {"is_causal": True} if rows == tokens else {"attn_mask": causal_lower_right(rows, tokens)}
        )
        copies = queries.shape[0] // keys.shape[0]
        if copies > 1 and keys.dtype.itemsize > 2:
            # No fused kernel takes grouped heads in float32; without copies all weights would be in memory at once.
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
        """Add what a plan keeps of this layer; ``orders`` shares the orders of rankings among plans."""
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
                except TimeLimit as expired:
                    expired.at = ranking
                    raise
                except Exception as error:
                    if is_of_the_prompt(error):
                        raise RankingFailed(ranking) from error
                    raise
        copies = state.queries.shape[0] // kv_heads if self._selection.granularity == "query_head" else 1
        heads = kv_heads * copies
        indices = kept_indices(order, keep, ranking.window, tokens, heads, state.keys.device)
        if order is not None:
            growing.ties.append(order.tied_heads(indices[:, : keep - ranking.window]))
        source = torch.arange(heads, device=indices.device)[:, None] // copies
        growing.layers.append(LayerKV(state.keys[source, indices], state.values[source, indices]))
        growing.indices.append(tensor_parallel.all_heads(indices.to(torch.int32)))
