"""Checks for numbers that are not finite, and the search for the layer where they arise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness.engine import tensor_parallel

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def first_broken(model: PreTrainedModel, forward: Callable[[], object], rows: int) -> list[str]:
    """Repeat a forward whose logits were not finite, and find the first output that is not.

    Args:
        model: the model.
        forward: the forward; repeating it must have no further effect.
        rows: number of rows in its batch.

    Returns:
        Per row, in words, which output came first: that of the embeddings, of a layer, or of what comes after them.
    """
    count = model.config.num_hidden_layers
    layers = next(
        (module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count), None
    )
    sources = ["behind the last layer"] * rows
    broken = [False] * rows

    def inspect(where: str, output: Any) -> None:
        states: Tensor = output[0] if isinstance(output, tuple) else output
        for row, good in enumerate(torch.isfinite(states).flatten(1).all(1).tolist()):
            if not good and not broken[row]:
                broken[row], sources[row] = True, where

    handles = [
        layer.register_forward_hook(
            lambda _, __, output, where=f"in the output of layer {index} (of 0 to {count - 1})": inspect(where, output)
        )
        for index, layer in enumerate(layers or ())
    ]
    embeddings = model.get_input_embeddings()
    handles.append(embeddings.register_forward_hook(lambda _, __, output: inspect("in the embeddings", output)))
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return sources


def not_finite(new_token: int, where: str | None, dtype: torch.dtype) -> str:
    """The text of an error record for logits that are not finite.

    Args:
        new_token: number of the new token, 1 first.
        where: what ``first_broken`` returned for the row; None if it is not known.
        dtype: the model's dtype.
    """
    first = f", first {where}" if where else ""
    return f"logits of new token {new_token} are not finite{first}: check the weights or use another dtype than {dtype}"


def all_finite(rows: Tensor) -> Sequence[bool]:
    """For each row of [rows, numbers], whether all of its numbers are finite."""
    # A sum is finite if all numbers are, unless it overflows; looking at every number takes twenty times as long.
    good = torch.isfinite(rows.sum(-1))
    if not bool(good.all()):
        good = torch.isfinite(rows).all(-1)
    found: list[bool] = tensor_parallel.from_first(good).tolist()
    return found
