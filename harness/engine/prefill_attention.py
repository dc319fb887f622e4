"""The attention of a prefill, layer by layer: full causal attention, and the selection of every plan's entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from harness.compression.attention_weights import Softmax, causal_attention
from harness.compression.grid import Plan
from harness.compression.method import Accumulates, Accumulator, LayerState, Parts, Scorer
from harness.compression.scorers import ColumnAccumulator
from harness.compression.selection import Selection
from harness.compression.wrappers import Rescorer
from harness.engine import tensor_parallel
from harness.engine.fused_causal import fused_causal
from harness.engine.keeping import Keeping
from harness.engine.layer_forms import LayerForm, Window, full_layers
from harness.engine.windows import WindowKV, window_attention
from harness.kernels import Kernels

# The published code multiplies all weights of a prompt with the values at once; with ``ties=torch`` so does this file,
# up to this many bytes of logits.
_PUBLISHED_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class LayerPast:
    """One layer of a prefilled beginning: what later tokens attend to, and what scorers need of it.

    Attributes:
        queries: [heads, tokens, head_dim]; of no token in a layer with a window.
        keys: [kv_heads, tokens, head_dim]; in a layer with a window, of the tokens that later ones still see.
        values: the same shape.
        log_sums: see ``LayerState``, of these tokens; None in a layer with a window.
        readers: scores read so far, for scorers that read the attention's own weights.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    log_sums: Tensor | None
    readers: Mapping[Scorer, Accumulator]


@dataclass(frozen=True)
class Past:
    """The prefilled beginning of a prompt, from which all prompts that begin like this can go on.

    It holds the queries, keys and values of all layers, so that every scorer can be computed once the prompt is
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


class PrefillAttention:
    """Computes full causal attention, and selects the entries of every plan in each layer as it comes.

    Attributes:
        seen: indices of the layers that have come, in order.
        full_bytes: bytes of the full cache, of the layers so far; a layer with a window has what the window needs.
        forms: see ``LayerAttention``.
        positions: see ``LayerAttention``.
        last_rows: number of the last rows of the last layer that are computed; None for all.
        windows: with ``whole=True``, what the layers with windows so far keep, by their index.
        keeping: what each plan has kept so far.
        held: with ``whole=False``, one ``LayerPast`` per layer so far.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        forms: Sequence[LayerForm],
        selection: Selection,
        past: Past | None,
        whole: bool,
        kernels: Kernels = "torch",
        parts: Parts | None = None,
    ) -> None:
        """Take what all layers share.

        Args:
            plans: what to keep when the prompt is complete.
            forms: the form of each layer of the model.
            selection: how entries are selected.
            past: the part of the prompt that is prefilled already.
            whole: whether this forward completes the prompt. If not, everything is held and nothing is selected.
            kernels: what computes; see ``EngineSettings``.
            parts: parts of the model that some scorers need.
        """
        self.seen: list[int] = []
        self.full_bytes = 0
        self.keeping = Keeping(plans, selection)
        self.held: list[LayerPast] = []
        self.forms = forms
        self.positions = torch.empty(0)
        self.last_rows: int | None = None
        self.windows: dict[int, WindowKV] = {}
        self._accumulating = _accumulating(self.keeping.growing)
        self._indices = {layer: index for index, layer in enumerate(full_layers(forms))}
        self._selection = selection
        self._past = past
        self._whole = whole
        self._kernels = kernels
        self._parts = parts

    def idle(self) -> PrefillAttention:
        """A ``PrefillAttention`` that computes the same attention and keeps nothing."""
        idle = PrefillAttention((), self.forms, self._selection, self._past, whole=True)
        idle.positions = self.positions
        return idle

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """Compute one layer's attention and select its entries; see ``LayerAttention``."""
        self.seen.append(layer)
        new, past = queries[0], self._past.layers[layer] if self._past is not None else None
        window, form = self.forms[layer].window, self.forms[layer]
        if window is not None:
            return self._attend_window(layer, window, new, keys[0], values[0], form.softmax(scaling))
        score_dtype = torch.float32 if self._selection.dtype == "float32" else queries.dtype
        every_query, every_key, every_value = new, keys[0], values[0]
        if past is not None:
            every_query = torch.cat([past.queries, every_query], dim=1)
            every_key, every_value = (
                torch.cat([past.keys, every_key], dim=1),
                torch.cat([past.values, every_value], dim=1),
            )
        state = LayerState(
            every_query, every_key, every_value, self._indices[layer], len(self._indices), scaling, score_dtype,
            self._kernels, self._parts, form.softcap, form.sinks,
        )  # fmt: skip
        self.full_bytes += tensor_parallel.count() * (state.keys.nbytes + state.values.nbytes)
        readers = self._readers(state, past)
        # Column sums are the same whatever becomes of them: the first of their readers reads for all.
        summing = [scorer for scorer, reader in readers.items() if type(reader).read is ColumnAccumulator.read]
        reading = [scorer for scorer in readers if scorer not in summing[1:]]
        if past is not None:
            for scorer in reading:
                readers[scorer].resume(past.readers[scorer])
        last = self.last_rows if layer == len(self.forms) - 1 else None
        out, log_sums = full_attention(new, state, [readers[each] for each in reading], self._selection.ties, last)
        for scorer in summing[1:]:
            readers[scorer].resume(readers[summing[0]])
        if log_sums is not None and past is not None:
            log_sums = torch.cat([past.log_sums, log_sums], dim=1) if past.log_sums is not None else None
        queries, keys, values = map(_alone, (state.queries, state.keys, state.values))
        if keys.device.type == "cpu":  # rows may share them, and need them head by head
            keys, values = keys.contiguous(), values.contiguous()
        state = replace(state, queries=queries, keys=keys, values=values, log_sums=log_sums)
        if self._whole:
            self.keeping.take(state, {scorer: reader.scores() for scorer, reader in readers.items()})
        else:
            self.held.append(LayerPast(queries, keys, values, log_sums, readers))
        return out.transpose(0, 1)[None]

    def _attend_window(
        self, layer: int, window: Window, queries: Tensor, keys: Tensor, values: Tensor, softmax: Softmax
    ) -> Tensor:
        """The attention of a layer with a window, and what it keeps."""
        tokens = keys.shape[1]
        if self._past is not None:
            past = self._past.layers[layer]
            keys, values = torch.cat([past.keys, keys], dim=1), torch.cat([past.values, values], dim=1)
            tokens += len(self._past.ids)
        out = window_attention(queries, keys, values, softmax, window, tokens)
        kept = WindowKV.of(keys, values, window, tokens)
        self.full_bytes += tensor_parallel.count() * kept.bytes
        if self._whole:
            self.windows[layer] = kept
        else:
            self.held.append(LayerPast(queries[:, :0].clone(), kept.keys, kept.values, None, {}))
        return out.transpose(0, 1)[None]

    def _readers(self, state: LayerState, past: LayerPast | None) -> dict[Scorer, Accumulator]:
        """Readers for the scorers of this layer that can be computed from the attention's own weights.

        There are weights on a CPU alone, and they serve if the attention's dtype is that of the scores.
        """
        if state.queries.device.type != "cpu" or state.score_dtype != state.queries.dtype:
            return {}
        tokens = state.keys.shape[1]
        readers: dict[Scorer, Accumulator] = {}
        for scorer, (accumulates, plans) in self._accumulating.items():
            if past is not None and scorer not in past.readers:
                continue
            if self._whole and all(_is_unread(plan, state.index, scorer.window, tokens) for plan in plans):
                continue
            reader = accumulates.accumulator(state)
            if reader is not None:
                readers[scorer] = reader
        return readers


def _accumulating(plans: Iterable[Plan]) -> dict[Scorer, tuple[Accumulates, list[Plan]]]:
    """The scorers that can be computed from attention weights, as what they are then, with their plans."""
    found: dict[Scorer, tuple[Accumulates, list[Plan]]] = {}
    for plan in plans:
        scorer = plan.scorer.base if isinstance(plan.scorer, Rescorer) else plan.scorer
        if isinstance(scorer, Accumulates):
            found.setdefault(scorer, (scorer, []))[1].append(plan)
    return found


def _is_unread(plan: Plan, layer: int, window: int, tokens: int) -> bool:
    """Whether a plan keeps the window alone of a layer, or all of it, without looking at scores."""
    return plan.waiting is None and plan.eviction is None and plan.keep[layer] in (window, tokens)


def _alone(states: Tensor) -> Tensor:
    """States that hold no memory but their own, where a model makes queries, keys and values in one tensor."""
    return states if states.untyped_storage().nbytes() == states.nbytes else states.clone()


def full_attention(
    queries: Tensor,
    state: LayerState,
    readers: Sequence[Accumulator],
    ties: Literal["stable", "torch"] = "stable",
    last: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The attention of queries that stand at the last positions of a layer.

    Args:
        queries: [H, rows, D].
        state: the layer with the keys and values of all positions.
        readers: read the attention weights, on a CPU alone.
        ties: see ``Selection``; with ``torch`` blocks are as large as the published code's.
        last: see ``causal_attention``; a fused kernel computes all queries.

    Returns:
        The output [H, rows, D], and the ``log_sums`` [H, rows] of ``LayerState``, where a fused kernel gives them.
    """
    keys, values = state.keys, state.values
    if queries.device.type == "cpu" or not state.softmax.is_plain:
        # Slower than the fused kernel, but it rounds as the published code does, which decides near-ties in the
        # layers above. It is used always, so that a cell's numbers do not depend on the other cells of the grid.
        block_bytes = _PUBLISHED_BLOCK_BYTES if ties == "torch" else None
        return causal_attention(queries, keys, values, state.softmax, block_bytes, readers, last), None
    return fused_causal(queries, keys, values, state.scaling)
