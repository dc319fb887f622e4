"""Scores of keys that need no later query: approximate leverage, and attention within chunks without a mask.

Shapes: H query heads, Hk kv heads, T tokens, D head_dim.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from harness.compression.score_parts import for_heads


@lru_cache(maxsize=256)
def sketch(seed: int, layer: int, kv_heads: int, head_dim: int, size: int) -> Tensor:
    """A Gaussian projection [Hk, D, size] for one layer, divided by the root of its size.

    It is drawn on the CPU, layer after layer, from one generator.

    Args:
        seed: the generator's seed.
        layer: index of the layer.
        kv_heads: number of kv heads.
        head_dim: dimensions of a key.
        size: dimensions of the projection.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(layer + 1):
        drawn = torch.randn(kv_heads, head_dim, size, generator=generator)
    return torch.div(drawn, size**0.5)


def leverage_scores(keys: Tensor, projection: Tensor, ridge: float = 0.01) -> Tensor:
    """Leverage of each key among all keys of its head, after a projection; [Hk, T] in float32, 0 or more.

    Args:
        keys: [Hk, T, D], as they were before the rotary embedding.
        projection: [Hk, D, size].
        ridge: added to the diagonal of the projected keys' products.
    """
    centred = keys - keys.mean(dim=1, keepdim=True)
    rows = (centred @ projection.to(keys)).double()  # large keys of a short prompt are not positive definite in float32
    products = rows.transpose(1, 2) @ rows
    products = products + ridge * torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device)
    solved = torch.cholesky_solve(rows.transpose(1, 2), torch.linalg.cholesky(products))
    return (rows * solved.transpose(1, 2)).sum(dim=-1).clamp(min=0).float()


def chunk_attention(queries: Tensor, keys: Tensor, chunk: int) -> Tensor:
    """Attention that each key receives from all queries of its chunk, later keys included; [H, T] in float32.

    As in kvpress, logits are not scaled, and the last chunk is filled up with queries and keys whose logits are 0, or
    close to it: they take part in the softmax and in the sums.

    Args:
        queries: [H, T, D], after the rotary embedding.
        keys: [Hk, T, D], after the rotary embedding.
        chunk: tokens in a chunk.
    """
    heads, tokens, _ = queries.shape
    missing = -tokens % chunk
    whole = tokens + missing
    chunked_queries, chunked_keys = (
        functional.pad(states, (0, 0, 0, missing)).reshape(len(states), -1, chunk, states.shape[-1])
        for states in (queries, keys)
    )
    real = torch.arange(whole - chunk, whole, device=queries.device) < tokens
    sums = queries.new_zeros(heads, whole // chunk, chunk, dtype=torch.float32)
    # Chunk by chunk, so that memory does not grow with the square of the prompt, and in one memory for all chunks.
    logits = queries.new_empty(heads, chunk, chunk)
    for index in range(whole // chunk):
        torch.bmm(chunked_queries[:, index], for_heads(chunked_keys[:, index], heads).transpose(1, 2), out=logits)
        if missing and index == whole // chunk - 1:
            logits.masked_fill_(~real, -1e-9)
        if logits.dtype == torch.float32:
            sums[:, index] = torch.softmax(logits, -1, out=logits).sum(dim=1)
        else:
            sums[:, index] = logits.softmax(dim=-1, dtype=torch.float32).sum(dim=1)
    return sums.flatten(1)[:, :tokens]
