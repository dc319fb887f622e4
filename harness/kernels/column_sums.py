"""Column sums of causal attention in Triton: the result of ``scorers.column_sums``, without weights in memory.

There are two passes over tiles of logits. The first, with one program per query head and tile of queries, computes the
logarithm of each query's sum of exponentials. The second, with one program per query head and tile of keys, sums
exp(logit - that logarithm) over the queries that see the key. No two programs write to the same address. Logits are
computed twice; beyond queries and keys, 8 bytes per query head and token are held.

Everything is float32, as when torch computes scores in float32. 16-bit numbers are multiplied as TF32, which represents
them exactly, so that products are exact and tensor cores can be used. float32 numbers are multiplied as float32.

Shapes: H query heads, Hk kv heads, T tokens, D head_dim.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.kernels.tiles import padded, precision_of, tile_tokens

# Largest tiles that fit into registers for compute capability 8.0, as ptxas reports, with tensor cores or without.
_TILE_TOKENS = {"tf32": 64, "ieee": 32}


def causal_column_sums(queries: Tensor, keys: Tensor, scaling: float, window: int) -> Tensor:
    """Attention that each token but the last ``window`` receives from all queries.

    Args:
        queries: [H, T, D], any strides.
        keys: [Hk, T, D], any strides; T is above ``window``.
        scaling: factor on query-key products.
        window: number of trailing tokens that get no score; their queries still vote.

    Returns:
        [H, T - window] in float32.
    """
    heads, tokens, dim = queries.shape
    candidates = tokens - window
    precision = precision_of(queries.dtype)
    tile = tile_tokens(dim, _TILE_TOKENS[precision])
    log_sums = torch.empty(heads, tokens, dtype=torch.float32, device=queries.device)
    sums = torch.empty(heads, candidates, dtype=torch.float32, device=queries.device)
    strides = (*queries.stride(), *keys.stride())
    constants = (heads // keys.shape[0], dim, padded(dim), tile, precision)
    with torch.cuda.device_of(queries):  # type: ignore[no-untyped-call]  # layers may lie on different cards
        _log_sums[triton.cdiv(tokens, tile), heads](queries, keys, log_sums, tokens, scaling, *strides, *constants)
        _sums[triton.cdiv(candidates, tile), heads](
            queries, keys, log_sums, sums, tokens, candidates, scaling, *strides, *constants
        )
    return sums


@triton.jit  # type: ignore[untyped-decorator]
def _vectors(
    at: tl.tensor,
    token_stride: tl.tensor,
    dim_stride: tl.tensor,
    left: tl.tensor,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    TILE: tl.constexpr,
) -> tl.tensor:
    """[TILE, PADDED] in float32: the ``left`` vectors that begin at the address ``at``, then zeros."""
    offsets, dims = tl.arange(0, TILE)[:, None], tl.arange(0, PADDED)[None, :]
    return tl.load(at + offsets * token_stride + dims * dim_stride, mask=(offsets < left) & (dims < DIM), other=0.0).to(
        tl.float32
    )


@triton.jit  # type: ignore[untyped-decorator]
def _log_sums(
    queries: tl.tensor,
    keys: tl.tensor,
    log_sums: tl.tensor,
    tokens: tl.tensor,
    scaling: tl.tensor,
    query_head: tl.tensor,
    query_token: tl.tensor,
    query_dim: tl.tensor,
    key_head: tl.tensor,
    key_token: tl.tensor,
    key_dim: tl.tensor,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    TILE: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Store log(sum of exp(logit) over the keys that it sees) of each query of a tile."""
    first, head = tl.program_id(0) * TILE, tl.program_id(1).to(tl.int64)
    offsets = tl.arange(0, TILE)
    queries += head * query_head + first.to(tl.int64) * query_token
    keys += head // GROUP * key_head
    voters = _vectors(queries, query_token, query_dim, tokens - first, DIM, PADDED, TILE)
    largest = tl.full([TILE], float("-inf"), tl.float32)
    total = tl.zeros([TILE], tl.float32)
    for start in range(0, first + TILE, TILE):
        seen = _vectors(keys, key_token, key_dim, tokens - start, DIM, PADDED, TILE)
        logits = tl.dot(voters, tl.trans(seen), input_precision=PRECISION) * scaling
        logits = tl.where(start + offsets[None, :] <= first + offsets[:, None], logits, float("-inf"))
        # Every query sees the first key, so after the first tile no largest logit is -inf.
        larger = tl.maximum(largest, tl.max(logits, 1))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(logits - larger[:, None]), 1)
        largest = larger
        keys += TILE * key_token
    tl.store(log_sums + head * tokens + first + offsets, largest + tl.log(total), mask=first + offsets < tokens)


@triton.jit  # type: ignore[untyped-decorator]
def _sums(
    queries: tl.tensor,
    keys: tl.tensor,
    log_sums: tl.tensor,
    sums: tl.tensor,
    tokens: tl.tensor,
    candidates: tl.tensor,
    scaling: tl.tensor,
    query_head: tl.tensor,
    query_token: tl.tensor,
    query_dim: tl.tensor,
    key_head: tl.tensor,
    key_token: tl.tensor,
    key_dim: tl.tensor,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    TILE: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Store the weights that each key of a tile receives, summed over all queries that see it."""
    first, head = tl.program_id(0) * TILE, tl.program_id(1).to(tl.int64)
    offsets = tl.arange(0, TILE)
    queries += head * query_head + first.to(tl.int64) * query_token
    keys += head // GROUP * key_head + first.to(tl.int64) * key_token
    log_sums += head * tokens
    seen = _vectors(keys, key_token, key_dim, tokens - first, DIM, PADDED, TILE)
    received = tl.zeros([TILE], tl.float32)
    for start in range(first, tokens, TILE):
        voters = _vectors(queries, query_token, query_dim, tokens - start, DIM, PADDED, TILE)
        logits = tl.dot(seen, tl.trans(voters), input_precision=PRECISION) * scaling
        # Padding after the last query votes with a weight of exp(-inf).
        log_sum = tl.load(log_sums + start + offsets, mask=start + offsets < tokens, other=float("inf"))
        visible = first + offsets[:, None] <= start + offsets[None, :]
        received += tl.sum(tl.exp(tl.where(visible, logits - log_sum[None, :], float("-inf"))), 1)
        queries += TILE * query_token
    tl.store(sums + head * candidates + first + offsets, received, mask=first + offsets < candidates)
