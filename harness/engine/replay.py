"""Replays: tokens that run through the whole cache of a prompt once more, from which some scorers take their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.compression.method import LayerState, Scorer
from harness.compression.replay import Replay, Replayed, Replays
from harness.engine.attention import ENGINE, check_layers
from harness.engine.layer_forms import LayerForm, full_layers, layer_forms
from harness.engine.model_parts import ModelParts
from harness.engine.positions import last_position
from harness.engine.prefill_attention import full_attention
from harness.engine.row_lengths import changes_angles
from harness.engine.windows import WindowKV, window_attention
from harness.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Encode = Callable[[str], Sequence[int]]
"""Token ids of a text, without added special tokens."""


class _ReplayAttention:
    """The attention of tokens behind the whole cache of a prompt, which a scorer reads."""

    def __init__(
        self,
        layers: Sequence[LayerState],
        windows: Mapping[int, WindowKV],
        forms: Sequence[LayerForm],
        scorer: Replays,
        replay: Replay,
        norms: Mapping[int, Tensor],
        positions: Tensor,
    ) -> None:
        self.seen: list[int] = []
        self.scores: list[Tensor] = []
        self.forms, self.positions = forms, positions
        self._states = dict(zip(full_layers(forms), layers, strict=True))
        self._windows, self._scorer, self._replay, self._norms = windows, scorer, replay, norms

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        self.seen.append(layer)
        if layer in self._windows:
            held, softmax = self._windows[layer], self.forms[layer].softmax(scaling)
            every_key, every_value = torch.cat([held.keys, keys[0]], 1), torch.cat([held.values, values[0]], 1)
            tokens = int(self.positions[0, -1]) + 1
            out = window_attention(queries[0], every_key, every_value, softmax, held.window, tokens)
            return out.transpose(0, 1)[None]
        state = self._states[layer]
        replayed = Replayed(queries[0], keys[0], self._norms.get(layer))
        self.scores.append(self._scorer.read(state, self._replay, replayed))
        every_key, every_value = torch.cat([state.keys, keys[0]], 1), torch.cat([state.values, values[0]], 1)
        whole = replace(state, queries=queries[0], keys=every_key, values=every_value)
        return full_attention(queries[0], whole, [])[0].transpose(0, 1)[None]


def replayed_scores(
    model: PreTrainedModel,
    name: str,
    prompt: Sequence[int],
    layers: Sequence[LayerState],
    windows: Mapping[int, WindowKV],
    scorers: Sequence[Scorer],
    encode: Encode | None,
) -> dict[Scorer, list[Tensor]]:
    """Scores of every layer by scorers that read replays.

    Args:
        model: with ``attention.install`` applied.
        name: the model's name, for errors.
        prompt: token ids of what is compressed.
        layers: the states of all layers without windows after its prefill.
        windows: what the layers with windows keep of it, by their index.
        scorers: scorers that ``Replays``.
        encode: token ids of a text; None if there is no tokenizer.

    Returns:
        For each scorer, the scores [kv_heads, tokens] of each layer without a window.

    Raises:
        ConfigError: a scorer needs a tokenizer and there is none.
        ModelError: a layer did not come through the engine.
    """
    found: dict[Scorer, list[Tensor]] = {}
    positions_left = last_position(model.config)
    forms = layer_forms(model)
    for scorer in scorers:
        assert isinstance(scorer, Replays)
        found[scorer] = [
            state.keys.new_zeros(state.keys.shape[0], len(prompt), dtype=torch.float32) for state in layers
        ]
        for replay in scorer.replays(prompt, encode):
            if positions_left is not None and len(prompt) + len(replay.ids) > positions_left:
                raise ConfigError(
                    f"a replay of {len(replay.ids)} tokens behind {len(prompt)} needs more than the {positions_left} "
                    f"positions of model={name}: use smaller chunks, shorter prompts or another method"
                )
            if (changed := changes_angles(model.config, len(prompt), len(replay.ids), 0)) is not None:
                raise ConfigError(f"a replay of {len(replay.ids)} tokens behind the prompt: {changed}")
            with _hidden_norms(model, name, scorer.weighs_hidden) as norms:
                ids = torch.tensor([list(replay.ids)], device=model.device)
                positions = torch.arange(len(prompt), len(prompt) + ids.shape[1], device=model.device)[None]
                attention = _ReplayAttention(layers, windows, forms, scorer, replay, norms, positions)
                model(
                    ids, position_ids=positions, use_cache=False, past_key_values=None, logits_to_keep=1,
                    **{ENGINE: attention},
                )  # fmt: skip
            check_layers(attention.seen, len(forms), name, "a replay")
            for scores, read in zip(found[scorer], attention.scores, strict=True):
                scores[:, replay.start : replay.stop] = read
    return found


@contextmanager
def _hidden_norms(model: PreTrainedModel, name: str, wanted: bool) -> Iterator[dict[int, Tensor]]:
    """Norms [tokens] of what each layer's attention reads, by layer, of the forward in the ``with`` block."""
    norms: dict[int, Tensor] = {}

    def note(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        states: Tensor = named["hidden_states"] if "hidden_states" in named else given[0]
        norms[module.layer_idx] = states[0].float().norm(dim=-1)

    modules = ModelParts(model, name).attention.values() if wanted else ()
    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    try:
        yield norms
    finally:
        for handle in handles:
            handle.remove()
