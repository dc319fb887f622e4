"""Rotary embeddings whose angles depend on a sequence's length (``longrope`` and ``dynamic``), each row by its own.

transformers takes the longest row of a batch for all of its rows. A hook on the embedding computes each row as if it
were alone, which is what ``generate`` does with it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_KINDS = ("longrope", "dynamic")
_HOOKED = "_kvgauge_by_row"


def scaled_beyond(config: PretrainedConfig) -> tuple[str, int] | None:
    """How angles depend on a sequence's length.

    Returns:
        The kind, ``longrope`` or ``dynamic``, and the length beyond which they differ; None if they do not depend on
        it.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    # Either one set of parameters, or one for each layer type.
    for parameters in (rope, *rope.values()):
        kind = parameters.get("rope_type") if isinstance(parameters, Mapping) else None
        if kind in _KINDS:
            original = parameters.get("original_max_position_embeddings") if kind == "longrope" else None
            return kind, original or config.max_position_embeddings
    return None


def changes_angles(config: PretrainedConfig, held: int, question: int, new_tokens: int) -> str | None:
    """Why the entries of a prompt would not be those of the longer sequence that follows; None if they are.

    ``longrope`` has other angles for all tokens of a long sequence, and so has ``dynamic`` for those that are read at
    once; the tokens that it generates one by one leave the earlier ones as they are.

    Args:
        config: the model's configuration.
        held: number of tokens whose entries are kept.
        question: number of tokens that are read at once behind them.
        new_tokens: largest number of new tokens, 1 or more; 0 if none is generated.
    """
    scaled = scaled_beyond(config)
    if scaled is None:
        return None
    kind, length = scaled
    read = held + question + (max(0, new_tokens - 1) if kind == "longrope" else 0)
    if read <= length or (held > length and (kind == "longrope" or not question)):
        return None
    if kind == "dynamic" and not question:
        return None
    return (
        f"rope_type={kind} turns all tokens of a sequence of more than {length} tokens by other angles, and with "
        f"{held} tokens kept {read} would be read: use shorter prompts, fewer new tokens, or selection.after=prompt"
    )


def follow_row_lengths(model: PreTrainedModel) -> None:
    """Make a model's rotary embedding compute each row of a batch as if it were alone."""
    if scaled_beyond(model.config) is None:
        return
    embedding: Any = getattr(model.base_model, "rotary_emb", None)
    if embedding is not None and not hasattr(embedding, _HOOKED):
        setattr(embedding, _HOOKED, embedding.register_forward_hook(_by_row, with_kwargs=True))


def angles(embedding: nn.Module, states: Tensor, positions: Tensor, length: int, **more: Any) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions [rows, tokens] in sequences of a length.

    Args:
        embedding: the rotary embedding.
        states: says dtype and device.
        positions: the positions.
        length: number of tokens of the sequences.
        **more: further arguments of the embedding, such as the type of a layer.
    """
    # The embedding keeps the angles of the last length that it saw; a short sequence makes it forget a longer one.
    for seen in (1, length):
        type(embedding).forward(embedding, states, positions.new_tensor([[seen - 1]]), **more)
    cosines, sines = inspect.unwrap(type(embedding).forward)(embedding, states, positions, **more)
    return cosines, sines


def _by_row(
    embedding: nn.Module, given: tuple[Any, ...], named: dict[str, Any], out: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """The output for each row by its own last position."""
    values = dict(zip(("x", "position_ids", "layer_type"), given, strict=False)) | named
    states, positions = values.pop("x"), values.pop("position_ids")
    lengths = positions.amax(dim=-1) + 1
    cosines, sines = (torch.empty_like(part) for part in out)
    for length in lengths.unique().tolist():
        rows = lengths == length
        cosines[rows], sines[rows] = angles(embedding, states, positions[rows], length, **values)
    return cosines, sines
