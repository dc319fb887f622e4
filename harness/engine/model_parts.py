"""Parts of a model that some scorers need: output projections, and the angles of the rotary embedding."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from harness.engine.attention import ENGINE
from harness.engine.blocked_linear import BlockedLinear
from harness.engine.layer_forms import LayerForm, full_layers, layer_forms, layer_types
from harness.engine.row_lengths import angles, scaled_beyond
from harness.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WITHOUT_POSITIONS: WeakKeyDictionary[PreTrainedModel, frozenset[int]] = WeakKeyDictionary()
_PROJECTIONS = ("o_proj", "out_proj", "dense", "c_proj", "wo")


class ModelParts:
    """Finds parts of a model when they are first asked for; see ``compression.method.Parts``.

    Layers are numbered among those that are compressed.
    """

    def __init__(self, model: PreTrainedModel, name: str, tokens: int = 1) -> None:
        """Take the model.

        Args:
            model: the model.
            name: its name, for errors.
            tokens: length of the prompt whose layers are looked at.
        """
        self._model, self._name, self._tokens = model, name, tokens

    def output_projection(self, layer: int) -> Tensor:
        """The weight [heads, head_dim, hidden] by which a layer's attention output is multiplied, head by head.

        Raises:
            ModelError: the model's layers have no such weight.
        """
        heads = self._model.config.num_attention_heads
        attention = self.attention.get(self._compressed[layer])
        projection = projection_of(attention)
        if projection is not None and projection.in_features % heads == 0:
            weight: Tensor = projection.weight  # [hidden, heads * head_dim]
            return weight.T.reshape(heads, -1, weight.shape[0])
        raise ModelError(
            f"model={self._name}: layer {layer} has no output projection of its attention ({', '.join(_PROJECTIONS)}): "
            "leave out the methods that weigh values by it, or use another family"
        )

    def rotary(self, layer: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [positions, rotated dimensions] of a layer's rotary embedding; see ``Parts``.

        Raises:
            ModelError: the model has no such embedding, or one of another form.
        """
        index = self._compressed[layer]
        if index in self._without_positions:
            ones = torch.ones(len(positions), 2, device=positions.device)
            return ones, torch.zeros_like(ones)
        embedding = self._rotary
        kind = {"layer_type": layer_types(self._model.config)[index]} if self._has_kinds else {}
        with torch.inference_mode():
            # Of the first argument only the dtype and the device are used.
            states = torch.zeros(1, device=positions.device)
            if scaled_beyond(self._model.config) is not None:
                cosines, sines = angles(embedding, states, positions[None], self._tokens, **kind)
            else:
                cosines, sines = embedding(states, positions[None], **kind)
        return cosines[0], sines[0]

    @cached_property
    def _compressed(self) -> tuple[int, ...]:
        """Index of each layer that is compressed among all layers."""
        return full_layers(layer_forms(self._model))

    @property
    def _without_positions(self) -> frozenset[int]:
        """Indices of the layers, among all, whose keys do not depend on positions; found once for a model."""
        if self._model not in _WITHOUT_POSITIONS:
            _WITHOUT_POSITIONS[self._model] = _layers_without_positions(self._model)
        return _WITHOUT_POSITIONS[self._model]

    @cached_property
    def attention(self) -> dict[int, nn.Module]:
        """Attention modules by the index of their layer, among all layers."""
        found = {}
        for module in self._model.modules():
            index = getattr(module, "layer_idx", None)
            if isinstance(index, int) and any(hasattr(module, name) for name in _PROJECTIONS):
                found[index] = module
        return found

    @cached_property
    def _has_kinds(self) -> bool:
        """Whether the rotary embedding has other angles for other kinds of layers."""
        return "layer_type" in inspect.signature(self._rotary.forward).parameters

    @cached_property
    def _rotary(self) -> nn.Module:
        """The model's rotary embedding, which must turn the halves of a head against each other."""
        embedding: nn.Module | None = getattr(self._model.base_model, "rotary_emb", None)
        apply = getattr(inspect.getmodule(type(self._model)), "rotate_half", None)
        # Families that turn neighbouring dimensions (2i, 2i + 1) write their rotate_half with strides of two.
        if embedding is None or apply is None or not _turns_halves(apply):
            raise ModelError(
                f"model={self._name} has no rotary embedding of halves: "
                "leave out the methods that look at queries or keys before it, or use another family"
            )
        return embedding


def projection_of(attention: nn.Module | None) -> nn.Linear | BlockedLinear | None:
    """The output projection of an attention module; None if it has none, or not as a linear layer."""
    found = (getattr(attention, name, None) for name in _PROJECTIONS)
    return next((projection for projection in found if isinstance(projection, nn.Linear | BlockedLinear)), None)


class _KeysOfOneToken:
    """Notes the keys of prompts of one token in every layer. It sees itself alone, so that its output is its value."""

    def __init__(self, forms: Sequence[LayerForm], positions: Tensor) -> None:
        self.forms, self.positions = forms, positions
        self.keys: dict[int, Tensor] = {}

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        self.keys[layer] = keys
        return values.repeat_interleave(queries.shape[1] // values.shape[1], dim=1).transpose(1, 2)


def _layers_without_positions(model: PreTrainedModel) -> frozenset[int]:
    """Layers in which tokens have the same keys at position 0 and at position 1."""
    forms, found = layer_forms(model), []
    ids = torch.arange(min(8, model.config.vocab_size), device=model.device)[:, None]  # padding may be embedded as 0
    for position in (0, 1):
        positions = torch.full_like(ids, position)
        found.append(_KeysOfOneToken(forms, positions))
        with torch.inference_mode():
            model(
                ids, position_ids=positions, use_cache=False, past_key_values=None,
                **{ENGINE: found[-1]},
            )  # fmt: skip
    first, second = (one.keys for one in found)
    return frozenset(layer for layer, keys in first.items() if torch.equal(keys, second[layer]))


def _turns_halves(rotate_half: object) -> bool:
    """Whether a family's ``rotate_half`` gives (-second half, first half)."""
    assert callable(rotate_half)
    given = torch.arange(4.0)
    return bool(torch.equal(rotate_half(given), torch.tensor([-2.0, -3.0, 0.0, 1.0])))
