"""What can be said of queries to come: the prompt's own, before the rotary embedding, turned to later positions.

Shapes: H query heads, T prompt tokens, D head_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.compression.method import LayerState, rotated


def mean_rotation(layer: LayerState, positions: int) -> Tensor:
    """The matrix [D, D] by which a query turns on average over the next positions: q -> R q.

    Args:
        layer: the state of the layer.
        positions: number of positions after the prompt, 1 or more.
    """
    tokens, size = layer.queries.shape[1:]
    ahead = torch.arange(tokens, tokens + positions, device=layer.queries.device)
    cosines, sines = layer.rotary(ahead)
    identity = torch.eye(size, dtype=layer.score_dtype, device=layer.queries.device)
    return rotated(identity, cosines.mean(dim=0)[None], sines.mean(dim=0)[None]).T.to(layer.score_dtype)


def unrotated_queries(layer: LayerState, skipped: int) -> Tensor:
    """The prompt's queries before the rotary embedding but for the first ones, [H, T - skipped, D] in the score dtype.

    Args:
        layer: the state of the layer.
        skipped: number of first tokens left out, less than T; their queries are unlike all others.
    """

    def turned_back() -> Tensor:
        return layer.unrotated(layer.queries.to(layer.score_dtype)).to(layer.score_dtype)

    return layer.once("queries before the rotary embedding", turned_back)[:, skipped:]
