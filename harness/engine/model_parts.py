"""Parts of a model that some scorers need: output projections, and the angles of the rotary embedding."""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PROJECTIONS = ("o_proj", "out_proj", "dense", "c_proj", "wo")


class ModelParts:
    """Finds parts of a model when they are first asked for; see ``compression.method.Parts``."""

    def __init__(self, model: PreTrainedModel, name: str) -> None:
        """Take the model.

        Args:
            model: the model.
            name: its name, for errors.
        """
        self._model, self._name = model, name

    def output_projection(self, layer: int) -> Tensor:
        """The weight [heads, head_dim, hidden] by which a layer's attention output is multiplied, head by head.

        Raises:
            ModelError: the model's layers have no such weight.
        """
        heads = self._model.config.num_attention_heads
        attention = self.attention.get(layer)
        for name in _PROJECTIONS:
            projection = getattr(attention, name, None)
            if isinstance(projection, nn.Linear) and projection.in_features % heads == 0:
                weight: Tensor = projection.weight  # [hidden, heads * head_dim]
                return weight.T.reshape(heads, -1, weight.shape[0])
        raise ModelError(
            f"model={self._name}: layer {layer} has no output projection of its attention ({', '.join(_PROJECTIONS)}): "
            "leave out the methods that weigh values by it, or use another family"
        )

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [positions, rotated dimensions] of the rotary embedding; see ``Parts``.

        Raises:
            ModelError: the model has no such embedding, or one of another form.
        """
        embedding = self._rotary
        with torch.inference_mode():
            # Of the second argument only the dtype and the device are used.
            cosines, sines = embedding(torch.zeros(1, device=positions.device), positions[None])
        return cosines[0], sines[0]

    @cached_property
    def attention(self) -> dict[int, nn.Module]:
        """Attention modules by the index of their layer."""
        found = {}
        for module in self._model.modules():
            index = getattr(module, "layer_idx", None)
            if isinstance(index, int) and any(hasattr(module, name) for name in _PROJECTIONS):
                found[index] = module
        return found

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


def _turns_halves(rotate_half: object) -> bool:
    """Whether a family's ``rotate_half`` gives (-second half, first half)."""
    assert callable(rotate_half)
    given = torch.arange(4.0)
    return bool(torch.equal(rotate_half(given), torch.tensor([-2.0, -3.0, 0.0, 1.0])))
