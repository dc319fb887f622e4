"""Column sums of causal attention in Triton: the result of ``scorers.column_sums``, without weights in memory.

One pass over tiles of logits, with one program per query head and tile of keys, sums exp(logit - log_sum) over the
queries that see the key, where a query's log_sum is the logarithm of its sum of exponentials. The attention of a
prefill knows these logarithms; where it does not give them, a pass before, with one program per query head and tile of
queries, computes them. No two programs write to the same address. Beyond queries and keys, 8 bytes per query head and
token are held.

Sums are float32, as when torch computes scores in float32. 16-bit numbers are multiplied on tensor cores and added up
in float32, so that every product is exact. float32 numbers are multiplied as float32.

Shapes: H query heads, Hk kv heads, T tokens, D head_dim.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.kernels.tiles import padded, product_bytes, product_dtype, tile_tokens

# Most tokens of the tile that a program has, and of the tiles that come by, for products of numbers of so many bytes.
# They fit into the registers of compute capability 8.0 and 9.0, as ptxas reports. A program reads all that comes by, so
# that half of its own tile would be twice the traffic.
_TILE_TOKENS = {2: (128, 64), 4: (32, 32)}
_WARPS = {2: 8, 4: 4}


def causal_column_sums(
    queries: Tensor, keys: Tensor, scaling: float, window: int, log_sums: Tensor | None = None
) -> Tensor:
    """Attention that each token but the last ``window`` receives from all queries.

    Args:
        queries: [H, T, D], any strides.
        keys: [Hk, T, D], any strides; T is above ``window``.
        scaling: factor on query-key products.
        window: number of trailing tokens that get no score; their queries still vote.
        log_sums: natural logarithm of each query's sum of exponentials, [H, T] in float32; None to compute them.

    Returns:
        [H, T - window] in float32.
    """
    heads, tokens, dim = queries.shape
    candidates = tokens - window
    size = product_bytes(queries.dtype)
    own, tile = (tile_tokens(dim, most, queries.dtype) for most in _TILE_TOKENS[size])
    sums = torch.empty(heads, candidates, dtype=torch.float32, device=queries.device)
    strides = (*queries.stride(), *keys.stride())
    constants = (heads // keys.shape[0], dim, padded(dim), own, tile, product_dtype(queries.dtype))
    with torch.cuda.device_of(queries):  # type: ignore[no-untyped-call]  # layers may lie on different cards
        if log_sums is None:
            log_sums = torch.empty(heads, tokens, dtype=torch.float32, device=queries.device)
            _log_sums[triton.cdiv(tokens, own), heads](
                queries, keys, log_sums, tokens, scaling, *strides, *constants, num_warps=_WARPS[size]
            )
        _sums[triton.cdiv(candidates, own), heads](
            queries,
            keys,
            log_sums.contiguous(),
            sums,
            tokens,
            candidates,
            scaling,
            *strides,
            *constants,
            num_warps=_WARPS[size],
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
    PRODUCT: tl.constexpr,
) -> tl.tensor:
    """[TILE, PADDED] in the dtype of products: the ``left`` vectors that begin at the address ``at``, then zeros."""
    offsets, dims = tl.arange(0, TILE)[:, None], tl.arange(0, PADDED)[None, :]
    return tl.load(at + offsets * token_stride + dims * dim_stride, mask=(offsets < left) & (dims < DIM), other=0.0).to(
        PRODUCT
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
    OWN: tl.constexpr,
    TILE: tl.constexpr,
    PRODUCT: tl.constexpr,
) -> None:
    """Store log(sum of exp(logit) over the keys that it sees) of each query of a tile."""
    first, head = tl.program_id(0) * OWN, tl.program_id(1).to(tl.int64)
    own, offsets = tl.arange(0, OWN), tl.arange(0, TILE)
    queries += head * query_head + first.to(tl.int64) * query_token
    keys += head // GROUP * key_head
    voters = _vectors(queries, query_token, query_dim, tokens - first, DIM, PADDED, OWN, PRODUCT)
    largest = tl.full([OWN], float("-inf"), tl.float32)
    total = tl.zeros([OWN], tl.float32)
    for start in range(0, first + OWN, TILE):
        seen = _vectors(keys, key_token, key_dim, tokens - start, DIM, PADDED, TILE, PRODUCT)
        logits = tl.dot(voters, tl.trans(seen), input_precision="ieee") * scaling
        logits = tl.where(start + offsets[None, :] <= first + own[:, None], logits, float("-inf"))
        # Every query sees the first key, so after the first tile no largest logit is -inf.
        larger = tl.maximum(largest, tl.max(logits, 1))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(logits - larger[:, None]), 1)
        largest = larger
        keys += TILE * key_token
    tl.store(log_sums + head * tokens + first + own, largest + tl.log(total), mask=first + own < tokens)


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
    OWN: tl.constexpr,
    TILE: tl.constexpr,
    PRODUCT: tl.constexpr,
) -> None:
    """Store the weights that each key of a tile receives, summed over all queries that see it."""
    first, head = tl.program_id(0) * OWN, tl.program_id(1).to(tl.int64)
    own, offsets = tl.arange(0, OWN), tl.arange(0, TILE)
    queries += head * query_head + first.to(tl.int64) * query_token
    keys += head // GROUP * key_head + first.to(tl.int64) * key_token
    log_sums += head * tokens
    seen = _vectors(keys, key_token, key_dim, tokens - first, DIM, PADDED, OWN, PRODUCT)
    received = tl.zeros([OWN], tl.float32)
    for start in range(first, tokens, TILE):
        voters = _vectors(queries, query_token, query_dim, tokens - start, DIM, PADDED, TILE, PRODUCT)
        logits = tl.dot(seen, tl.trans(voters), input_precision="ieee") * scaling
        # Padding after the last query votes with a weight of exp(-inf).
        log_sum = tl.load(log_sums + start + offsets, mask=start + offsets < tokens, other=float("inf"))
        visible = first + own[:, None] <= start + offsets[None, :]
        received += tl.sum(tl.exp(tl.where(visible, logits - log_sum[None, :], float("-inf"))), 1)
        queries += TILE * query_token
    tl.store(sums + head * candidates + first + own, received, mask=first + own < candidates)
