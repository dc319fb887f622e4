"""The prefill of one prompt: the logits of the first new token, and the kept entries of every variant."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.compression.eviction import Eviction
from harness.compression.grid import Plan
from harness.compression.selection import Selection
from harness.engine import tensor_parallel
from harness.engine.attention import ENGINE, check_layers
from harness.engine.buckets import LayerKV
from harness.engine.finite import all_finite, first_broken
from harness.engine.last_layer import LAST_ROWS, last_rows_alone
from harness.engine.layer_forms import layer_forms, refuse_moved_keys
from harness.engine.model_parts import ModelParts
from harness.engine.prefill_attention import Past, PrefillAttention
from harness.engine.replay import Encode, replayed_scores
from harness.engine.seen_layer import failing_as
from harness.kernels import Kernels

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Kept:
    """The entries that a plan kept.

    Attributes:
        layers: one ``LayerKV`` per layer, of this process's heads; the other fields count all heads. The list is
            emptied when decoding takes it over.
        entries: number of kept entries for each layer without a window: one number for all heads, or one for each.
        bytes: bytes of all kept keys and values, of layers with windows too.
        sha256: hash of the kept indices of all layers without windows and all heads. A layer that keeps everything
            hashes the same whatever its heads are.
        tied_heads: number of (layer, head) pairs in which the cut fell between equal scores.
        bits: bits of memory for each number of a key or a value, on average; None if entries are stored as they are.
        positions: number of positions that the entries take, where keys were turned to new ones; None where every key
            has the position that it had.
        eviction: how rows of it go on while decoding; None if they drop nothing.
        evicting_bytes: bytes of the layers whose entries are evicted then.
    """

    layers: list[LayerKV]
    entries: tuple[int | tuple[int, ...], ...]
    bytes: int
    sha256: str
    tied_heads: int
    positions: int | None = None
    bits: float | None = None
    eviction: Eviction | None = None
    evicting_bytes: int = 0

    def first_new(self, context: int, question: int) -> int:
        """The position of the first new token, behind a context and a question of so many tokens."""
        return (context if self.positions is None else self.positions) + question


@dataclass(frozen=True)
class Prefilled:
    """A prompt after its prefill.

    Attributes:
        logits: float32 logits of the first new token, [vocabulary].
        kept: what each plan kept, in the order of the plans. Plans that kept the same indices share one object.
        full_bytes: bytes of the full cache as transformers stores it.
        broken: where its numbers stopped being finite; None if they did not.
    """

    logits: Tensor
    kept: tuple[Kept, ...]
    full_bytes: int
    broken: str | None


@torch.inference_mode()
def extend(
    model: PreTrainedModel,
    name: str,
    beginning: Sequence[int],
    plans: Sequence[Plan],
    selection: Selection,
    past: Past | None = None,
) -> Past:
    """Prefill the beginning of a prompt without selecting entries.

    Args:
        model: with ``attention.install`` applied.
        name: the model's name, for errors.
        beginning: 1 or more token ids.
        plans: plans of the prompts that begin like this. Only their scorers are used.
        selection: how entries are selected.
        past: the part that is prefilled already; shorter than the beginning.

    Raises:
        ModelError: a layer did not come through the engine.
    """
    attention = PrefillAttention(plans, layer_forms(model), selection, past, whole=False)
    _, broken = _forward(model, name, beginning, attention, past, LAST_ROWS)
    return Past(tuple(beginning), tuple(attention.held), broken)


@torch.inference_mode()
def prefill(
    model: PreTrainedModel,
    name: str,
    prompt: Sequence[int],
    plans: Sequence[Plan],
    selection: Selection,
    past: Past | None = None,
    kernels: Kernels = "torch",
    encode: Encode | None = None,
    last_rows: int = LAST_ROWS,
) -> Prefilled:
    """Run a prompt once and keep the entries of every plan.

    Args:
        model: with ``attention.install`` applied.
        name: the model's name, for errors.
        prompt: 1 or more token ids.
        plans: what to keep; equal plans are computed once.
        selection: how entries are selected.
        past: its beginning, if that is prefilled already. The same entries are kept; logits agree up to rounding.
        kernels: what computes; see ``EngineSettings``.
        encode: token ids of a text, for scorers that replay one; None if there is no tokenizer.
        last_rows: number of the last rows that the last layer computes behind its attention; see ``last_rows_alone``.

    Raises:
        ConfigError: a plan turns kept keys to new positions, and the model has layers with windows.
        ModelError: a layer did not come through the engine.
    """
    for plan in plans:
        refuse_moved_keys(model.config, plan)
    parts = ModelParts(model, name, len(prompt))
    attention = PrefillAttention(plans, layer_forms(model), selection, past, True, kernels, parts)
    logits, broken = _forward(model, name, prompt, attention, past, last_rows)
    if replaying := attention.keeping.replaying:
        held = attention.keeping.held_states
        for scorer in replaying:
            with failing_as(scorer):
                scores = replayed_scores(model, name, prompt, held, attention.windows, [scorer], encode)
            attention.keeping.score(scorer, scores[scorer])
    attention.keeping.end()
    growing_plans = attention.keeping.growing
    by_digest: dict[str, Kept] = {}
    kept: dict[Plan, Kept] = {}
    windows = attention.windows
    hashes = _hashes([growing.indices for growing in growing_plans.values()])
    for (plan, growing), sha256 in zip(growing_plans.items(), hashes, strict=True):
        if plan.rerotates:  # the same entries with other keys
            sha256 = hashlib.sha256(f"{sha256} rerotated".encode()).hexdigest()
        if growing.eviction is not None:  # the same entries, which others take the place of
            state = f"{sha256} {growing.eviction} {plan.scorer}"
            sha256 = hashlib.sha256(state.encode()).hexdigest()
        if not plan.storage.exact:  # the same entries in another form
            sha256 = hashlib.sha256(f"{sha256} {plan.storage.form}".encode()).hexdigest()
        if sha256 not in by_digest:
            compressed = iter(growing.layers)
            every = [windows[index] if index in windows else next(compressed) for index in range(len(attention.forms))]
            by_digest[sha256] = Kept(
                layers=every,
                entries=tuple(growing.entries),
                bytes=tensor_parallel.count() * sum(layer.bytes for layer in every),
                sha256=sha256,
                tied_heads=tensor_parallel.total(int(_joined(growing.ties).sum())),
                positions=plan.positions,
                bits=_bits(growing.layers) if plan.storage.packs else None,
                eviction=growing.eviction,
                evicting_bytes=0 if plan.eviction is None else sum(layer.bytes for layer in growing.layers),
            )
        kept[plan] = by_digest[sha256]
    return Prefilled(logits, tuple(kept[plan] for plan in plans), attention.full_bytes, broken)


def _bits(layers: Sequence[LayerKV]) -> float:
    return 8 * sum(layer.bytes for layer in layers) / sum(layer.numbers for layer in layers)


def _hashes(kept: Sequence[Sequence[Tensor | None]]) -> list[str]:
    """For each plan, the hash of the kept indices of all layers. All indices leave the device in one copy."""
    tensors = [indices for layers in kept for indices in layers if indices is not None]
    on_host = iter(torch.split(_joined(tensors).cpu(), [indices.numel() for indices in tensors]))
    hashes = []
    for layers in kept:
        digest = hashlib.sha256()
        for indices in layers:
            digest.update(b"all" if indices is None else next(on_host).numpy().tobytes())
        hashes.append(digest.hexdigest())
    return hashes


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """All numbers of these tensors as one vector; the tensors may lie on different cards."""
    return (
        torch.cat([tensor.flatten().to(tensors[0].device) for tensor in tensors])
        if tensors
        else torch.zeros(0, dtype=torch.int32)
    )


def _forward(
    model: PreTrainedModel,
    name: str,
    prompt: Sequence[int],
    attention: PrefillAttention,
    past: Past | None,
    last_rows: int,
) -> tuple[Tensor, str | None]:
    """Run the tokens after the past at their positions.

    Returns:
        Float32 logits of the last token, and where numbers stopped being finite, or None.
    """
    assert past is None or past.begins(prompt)
    first = len(past.ids) if past is not None else 0
    ids = torch.tensor([list(prompt[first:])], device=model.device)
    positions = torch.arange(first, len(prompt), device=model.device)[None]
    attention.positions = positions

    def run(attention: PrefillAttention, rows: int | None) -> Tensor:
        with last_rows_alone(model, name, ids.shape[1], rows) as attention.last_rows:
            output = model(
                ids, position_ids=positions, use_cache=False, past_key_values=None, logits_to_keep=1,
                **{ENGINE: attention},
            )  # fmt: skip
        last: Tensor = output.logits[0, -1].float()
        return last

    logits = run(attention, last_rows)
    check_layers(attention.seen, model.config.num_hidden_layers, name, "prefill")
    broken = past.broken if past is not None else None
    if broken is None and not all(all_finite(logits[None])):
        (broken,) = first_broken(model, lambda: run(attention.idle(), None), 1)
    return logits, broken
