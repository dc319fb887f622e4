"""Where a model's numbers stop being finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness.engine import tensor_parallel

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def first_broken(model: PreTrainedModel, again: Callable[[], object], rows: int) -> list[str]:
    """Do a forward again whose logits were not finite, and watch the layers.

    Args:
        model: the model.
        again: the forward; it changes nothing that a second time would not.
        rows: of its batch.

    Returns:
        Per row, what came out not finite first: the embeddings, a layer, or what stands behind the layers.
    """
    count = model.config.num_hidden_layers
    layers = next(
        (module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count), None
    )
    found = ["behind the last layer"] * rows
    broken = [False] * rows

    def see(where: str, output: Any) -> None:
        states: Tensor = output[0] if isinstance(output, tuple) else output
        for row, good in enumerate(torch.isfinite(states).flatten(1).all(1).tolist()):
            if not good and not broken[row]:
                broken[row], found[row] = True, where

    handles = [
        layer.register_forward_hook(
            lambda _, __, output, where=f"in the output of layer {place} (of 0 to {count - 1})": see(where, output)
        )
        for place, layer in enumerate(layers or ())
    ]
    embeddings = model.get_input_embeddings()
    handles.append(embeddings.register_forward_hook(lambda _, __, output: see("in the embeddings", output)))
    try:
        again()
    finally:
        for handle in handles:
            handle.remove()
    return found


def not_finite(new_token: int, where: str | None, dtype: torch.dtype) -> str:
    """What an error record says of it; ``where`` as ``first_broken`` says it, or None."""
    first = f", first {where}" if where else ""
    return f"logits of new token {new_token} are not finite{first}: check the weights or use another dtype than {dtype}"


def all_finite(rows: Tensor) -> Sequence[bool]:
    """Of [rows, numbers], which rows are."""
    good: list[bool] = tensor_parallel.from_first(torch.isfinite(rows).all(-1)).tolist()
    return good
