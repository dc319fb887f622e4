"""One prompt through the model once: the first token's logits and the kept entries of every variant."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from harness.attention import ENGINE, check_layers
from harness.method import LayerState, Ranking, ReadsWeights, ScoreReader
from harness.pool import LayerKV
from harness.ranking import Order, kept_indices, order_of
from harness.rows import causal_attention
from harness.schema import Selection

# The published code multiplies a prompt's weights and values at once; so do we with ``ties=torch``, up to this many bytes of logits.
_PUBLISHED_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Plan:
    """What a variant keeps of one prompt. Equal plans keep the same entries.

    Attributes:
        keep: entries per layer, the window included, at most the prompt's tokens.
        ranking: which of the candidates survive; None when every layer keeps everything.
    """

    keep: tuple[int, ...]
    ranking: Ranking | None


@dataclass(frozen=True)
class Kept:
    """The entries that a plan kept.

    Attributes:
        layers: one ``LayerKV`` per layer; emptied when decoding takes them over.
        entries: kept entries per layer.
        bytes: of all kept keys and values.
        sha256: hash of the kept indices of all layers and heads; "everything" is one hash whatever the heads.
        tied_heads: how many (layer, head) cuts fell between equal scores.
    """

    layers: list[LayerKV]
    entries: tuple[int, ...]
    bytes: int
    sha256: str
    tied_heads: int


@dataclass(frozen=True)
class Prefilled:
    """A prompt after its prefill.

    Attributes:
        logits: float32 logits of the first new token, [vocabulary].
        kept: what each plan kept, in the order of the plans. Plans that kept the same indices share one object.
        full_bytes: bytes of the stock full cache.
    """

    logits: Tensor
    kept: tuple[Kept, ...]
    full_bytes: int


@dataclass
class _Growing:
    layers: list[LayerKV] = field(default_factory=list)
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    ties: list[Tensor] = field(default_factory=list)


class _PrefillEngine:
    """Computes full causal attention and lets every plan take its entries while the layer is at hand."""

    def __init__(self, plans: Sequence[Plan], layers: int, selection: Selection) -> None:
        self.seen: list[int] = []
        self.full_bytes = 0
        self.growing = {plan: _Growing() for plan in plans}
        self._layers = layers
        self._selection = selection

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        self.seen.append(layer)
        self.full_bytes += keys.nbytes + values.nbytes
        score_dtype = torch.float32 if self._selection.dtype == "float32" else queries.dtype
        state = LayerState(queries[0], keys[0], values[0], layer, self._layers, scaling, score_dtype)
        readers = self._readers(state)
        out = self._attention(state, list(readers.values()))
        raw = {ranking: reader.scores() for ranking, reader in readers.items()}
        orders: dict[Ranking, Order] = {}
        for plan, growing in self.growing.items():
            self._take(plan, growing, state, raw, orders)
        return out.transpose(0, 1)[None]

    def _readers(self, state: LayerState) -> dict[Ranking, ScoreReader]:
        """Rankings of this layer that can be computed from the attention's own weights, where it has any and of the scores' dtype."""
        if state.queries.device.type != "cpu" or state.score_dtype != state.queries.dtype:
            return {}
        tokens, found = state.keys.shape[1], {}
        for plan in self.growing:
            ranking = plan.ranking
            if isinstance(ranking, ReadsWeights) and ranking not in found and ranking.window < plan.keep[state.index] < tokens:
                found[ranking] = ranking.reader(state)
        return {ranking: reader for ranking, reader in found.items() if reader is not None}

    def _attention(self, state: LayerState, readers: Sequence[ScoreReader]) -> Tensor:
        """[H, T, D]."""
        queries, keys, values = state.queries, state.keys, state.values
        if queries.device.type == "cpu":
            # Slower than the fused kernel, but rounds as the published code does, which decides near-ties in the layers above; and always
            # this one, so that a cell's numbers do not depend on which others are in the grid.
            block_bytes = _PUBLISHED_BLOCK_BYTES if self._selection.ties == "torch" else None
            return causal_attention(queries, keys, values, state.scaling, block_bytes, readers)
        gqa = queries.shape[0] != keys.shape[0]
        return functional.scaled_dot_product_attention(
            queries[None], keys[None], values[None], is_causal=True, scale=state.scaling, enable_gqa=gqa
        )[0]

    def _take(self, plan: Plan, growing: _Growing, state: LayerState, raw: Mapping[Ranking, Tensor], orders: dict[Ranking, Order]) -> None:
        kv_heads, tokens, _ = state.keys.shape
        keep = plan.keep[state.index]
        if keep >= tokens or plan.ranking is None:
            growing.layers.append(LayerKV(state.keys, state.values))
            growing.digest.update(b"all")
            return
        ranking = plan.ranking
        order = None
        if keep > ranking.window:
            order = orders.get(ranking)
            if order is None:
                order = orders[ranking] = order_of(ranking, state, self._selection, raw.get(ranking))
        copies = state.queries.shape[0] // kv_heads if self._selection.granularity == "query_head" else 1
        heads = kv_heads * copies
        indices = kept_indices(order, keep, ranking.window, tokens, heads, state.keys.device)
        if order is not None:
            growing.ties.append(order.tied_heads(indices[:, : keep - ranking.window]))
        source = torch.arange(heads, device=indices.device)[:, None] // copies
        growing.layers.append(LayerKV(state.keys[source, indices], state.values[source, indices]))
        growing.digest.update(indices.to(torch.int32).cpu().numpy().tobytes())


@torch.inference_mode()
def prefill(model: PreTrainedModel, name: str, prompt: Sequence[int], plans: Sequence[Plan], selection: Selection) -> Prefilled:
    """Run the prompt once and keep every plan's entries.

    Args:
        model: with ``attention.install`` applied.
        name: the model's name, for errors.
        prompt: token ids, 1 or more.
        plans: what to keep; equal plans are computed once.
        selection: how entries are picked.

    Raises:
        ModelError: a layer did not come through the engine.
    """
    layers = model.config.num_hidden_layers
    engine = _PrefillEngine(plans, layers, selection)
    ids = torch.tensor([list(prompt)], device=model.device)
    output = model(ids, use_cache=False, past_key_values=None, logits_to_keep=1, **{ENGINE: engine})
    check_layers(engine.seen, layers, name, "prefill")
    by_digest: dict[str, Kept] = {}
    kept: dict[Plan, Kept] = {}
    for plan, growing in engine.growing.items():
        sha256 = growing.digest.hexdigest()
        if sha256 not in by_digest:
            by_digest[sha256] = Kept(
                layers=growing.layers,
                entries=tuple(layer.keys.shape[1] for layer in growing.layers),
                bytes=sum(layer.bytes for layer in growing.layers),
                sha256=sha256,
                tied_heads=int(sum(int(ties) for ties in growing.ties)),
            )
        kept[plan] = by_digest[sha256]
    return Prefilled(output.logits[0, -1].float(), tuple(kept[plan] for plan in plans), engine.full_bytes)
