"""What the last layer of a prefill need not compute: all rows but the last ones, behind its queries, keys and values.

Of a prefill one row of logits is wanted, that of the last token. Every layer but the last hands all rows on; behind the
attention of the last one, each token is on its own, and nobody reads the others. So the output projection and the
linear layers of the MLP see the last rows alone, and rows of zeros stand for the others. Some more rows than the one
that is wanted are computed, because BLAS takes other kernels for a few rows, which round otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.engine import tensor_parallel
from harness.engine.blocked_linear import BlockedLinear
from harness.engine.model_parts import ModelParts, projection_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LAST_ROWS = 256
"""Rows of the last layer that are computed of a longer prompt. oneDNN rounds each row as if it were alone. With fewer
than 192, MKL does not round as with all rows where a linear layer has 1,408 inputs or more. With 256 it does, up to
5,632 inputs with one thread and to 1,536 with two, if the widths are multiples of 32, as torch computes the end of
other activations number by number."""


@contextmanager
def last_rows_alone(model: PreTrainedModel, name: str, tokens: int, rows: int | None) -> Iterator[int | None]:
    """Compute the last rows alone, behind the attention of the last layer, in forwards of the ``with`` block.

    All rows are computed where something else may read them or fewer rows would round otherwise: unless the weights of
    the last layer are float32 on a CPU, and all of it but its attention consists of norms and plain linear layers.
    Nothing is left out where modules of the layer have hooks, nor with tensor parallelism.

    Args:
        model: the model.
        name: its name, for errors.
        tokens: number of tokens of the forwards.
        rows: number of the last rows that are computed, 1 or more; None for all.

    Yields:
        The number of rows that are computed; None for all.
    """
    modules = () if rows is None or tokens <= rows else _token_wise(model, name)
    if rows is None or not modules:
        yield None
        return
    handles = [
        handle
        for module in modules
        for handle in (
            module.register_forward_pre_hook(partial(_cut, tokens, rows)),
            module.register_forward_hook(partial(_put_back, tokens, rows)),
        )
    ]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def _cut(tokens: int, rows: int, _: nn.Module, given: tuple[Tensor, ...]) -> Tensor | None:
    """The last rows of what a module is given, if it is given the states of all tokens."""
    return given[0][..., -rows:, :] if len(given) == 1 and given[0].shape[-2] == tokens else None


def _put_back(tokens: int, rows: int, _: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
    """What a module gave for the last rows, behind rows of zeros."""
    if len(given) != 1 or given[0].shape[-2] != rows:
        return None
    every = output.new_zeros(*output.shape[:-2], tokens, output.shape[-1])
    every[..., -rows:, :] = output
    return every


def _token_wise(model: PreTrainedModel, name: str) -> Sequence[nn.Module]:
    """The modules of the last layer that need the last rows alone; none if all rows are computed."""
    attention = ModelParts(model, name).attention.get(model.config.num_hidden_layers - 1)
    if attention is None:
        return ()
    layer = next(module for module in model.modules() if attention in module.children())
    if tensor_parallel.count() > 1 or any(map(_is_hooked, layer.modules())):
        return ()
    if any(weight.dtype != torch.float32 or weight.device.type != "cpu" for weight in layer.parameters()):
        return ()
    projection, others = projection_of(attention), [child for child in layer.children() if child is not attention]
    if projection is None or not _is_linear(projection):
        return ()
    if not all(_is_plain(part) for child in others for part in child.modules()):
        return ()
    return (projection, *(child for child in others if any(map(_is_linear, child.modules()))))


def _is_hooked(module: nn.Module) -> bool:
    """Whether others may read what comes into a module or out of it."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or hasattr(module, "_hf_hook")


def _is_plain(part: nn.Module) -> bool:
    """Whether a module is a linear layer, a norm, or has no weights of its own and is no list, as experts are."""
    flat = all(weight.ndim < 2 for weight in part.parameters(recurse=False))
    return _is_linear(part) or (flat and not isinstance(part, nn.ModuleList))


def _is_linear(part: nn.Module | None) -> bool:
    return type(part) in (nn.Linear, BlockedLinear)
