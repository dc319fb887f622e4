"""One forward of the model over a cache: the tokens of a step, of a question or of a continuation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from harness.engine.attention import ENGINE, check_layers
from harness.engine.layer_forms import LayerForm

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LayerAttend = Callable[[int, Tensor, Tensor, Tensor, float], Tensor]


class _CacheAttention:
    """Sends the attention of one forward over the cache there, and notes the layers."""

    def __init__(self, attend: LayerAttend, forms: Sequence[LayerForm], positions: Tensor) -> None:
        self.seen: list[int] = []
        self.forms, self.positions = forms, positions
        self._attend = attend

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        self.seen.append(layer)
        return self._attend(layer, queries, keys, values, scaling)


def run_over(
    model: PreTrainedModel,
    name: str,
    forms: Sequence[LayerForm],
    ids: Tensor,
    positions: Tensor,
    attend: LayerAttend,
    where: str,
    last: int,
) -> Tensor:
    """Run tokens over a cache.

    Args:
        model: with ``attention.install`` applied.
        name: the model's name, for errors.
        forms: the form of each layer.
        ids: token ids, [rows, tokens].
        positions: of these tokens, [rows, tokens].
        attend: the attention of a layer, over the cache.
        where: what is computed, for errors.
        last: number of the last tokens whose logits are wanted, 1 or more.

    Returns:
        Float32 logits [rows, last, vocabulary] of what comes after each of the last tokens.

    Raises:
        ModelError: a layer did not come through the engine.
    """
    attention = _CacheAttention(attend, forms, positions)
    output = model(
        ids,
        position_ids=positions,
        use_cache=False,
        past_key_values=None,
        logits_to_keep=last,
        **{ENGINE: attention},
    )
    check_layers(attention.seen, len(forms), name, where)
    logits: Tensor = output.logits[:, -last:].float()
    return logits
