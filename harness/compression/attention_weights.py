"""Exact softmax attention by blocks of rows: O(block x T) memory, no fused kernel, the published code's rounding.

The one place where attention weights are computed: rankings sum them, and the prefill on a CPU multiplies them with the
values. Shapes: H query heads, Hk kv heads, T prompt tokens, D head_dim.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

# A block may hold this many bytes of float32 logits. On a CPU a block must stay in the cache
# (benchmarks/prefill_blocks.py); on a GPU it must be large enough to fill the card.
_BLOCK_BYTES = {"cpu": 4 * 2**20}
_BLOCK_BYTES_ELSEWHERE = 256 * 2**20


class WeightReader(Protocol):
    """What wants to see every block of a layer's attention weights."""

    def read(self, weights: Tensor) -> None:
        """Weights [H, rows, seen] of consecutive queries over the first ``seen`` keys; they are gone after the call."""
        ...


def attention_rows(
    queries: Tensor, keys: Tensor, scaling: float, masked_from: int = 0, block_bytes: int | None = None
) -> Iterator[tuple[int, int, Tensor]]:
    """Attention weights of consecutive queries, the last of which stands at the last key.

    Logits are computed in the queries' dtype and divided by 1 / scaling rather than multiplied by scaling, the softmax
    is float32 and is rounded to the queries' dtype: so does the published code.

    Args:
        queries: [H, rows, D] at positions T - rows to T - 1.
        keys: [Hk, T, D].
        scaling: of the query-key products.
        masked_from: a query at this position or later sees no later token; an earlier one sees all T (0 is ordinary
            causal attention).
        block_bytes: float32 logits held at once; None for what suits the device.

    Yields:
        (start, stop, weights): positions of the block's queries and their weights [H, stop - start, seen] over the
        first ``seen`` keys.
    """
    heads, rows, dim = queries.shape
    kv_heads, tokens, _ = keys.shape
    first = tokens - rows
    # The first masked row starts a block, so that a block is masked as a whole or not at all. The last token has no
    # later one.
    masked_from = min(masked_from, tokens - 1)
    logits_held = (block_bytes or _BLOCK_BYTES.get(keys.device.type, _BLOCK_BYTES_ELSEWHERE)) // (4 * heads)
    # A power of two, as for 64 dimensions, scales the queries exactly, and spares a pass over the logits.
    exact = math.frexp(scaling)[0] == 0.5
    queries = queries * scaling if exact else queries
    start = first
    while start < tokens:
        masked = start >= masked_from
        stop = min(
            tokens if masked else masked_from, start + _rows_held(logits_held, start if masked else None, tokens)
        )
        seen = stop if masked else tokens
        grouped = queries[:, start - first : stop - first].reshape(kv_heads, -1, dim)
        logits = (grouped @ keys[:, :seen].transpose(1, 2)).view(heads, stop - start, seen)
        if not exact:
            logits.div_(1 / scaling)
        if masked:
            later = torch.ones(stop - start, stop - start, dtype=torch.bool, device=logits.device).triu_(1)
            logits[:, :, start:].masked_fill_(later, torch.finfo(logits.dtype).min)
        if logits.dtype == torch.float32:
            torch.softmax(logits, -1, out=logits)  # in place: a block is read and written while it is in the cache
        else:
            logits = logits.softmax(-1, dtype=torch.float32).to(queries.dtype)
        yield start, stop, logits
        start = stop


def _rows_held(logits: int, start: int | None, tokens: int) -> int:
    """How many rows fit into so many logits of one head: rows from ``start`` that see what precedes them, or (None) all tokens."""
    if start is None:
        return max(1, logits // tokens)
    return max(1, (math.isqrt(start * start + 4 * logits) - start) // 2)  # rows * (start + rows) <= logits


def causal_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    scaling: float,
    block_bytes: int | None = None,
    readers: Sequence[WeightReader] = (),
) -> Tensor:
    """Attention output [H, rows, D] of queries [H, rows, D], the last of which stands at the last of the keys and values [Hk, T, D].

    Args:
        queries, keys, values, scaling: of one layer.
        block_bytes: see ``attention_rows``.
        readers: see the weights that the output is made of.
    """
    heads, rows, dim = queries.shape
    kv_heads, first = keys.shape[0], keys.shape[1] - rows
    out = torch.empty_like(queries)
    for start, stop, weights in attention_rows(queries, keys, scaling, block_bytes=block_bytes):
        seen = weights.shape[-1]
        for reader in readers:
            reader.read(weights)
        grouped = weights.view(kv_heads, -1, seen) @ values[:, :seen]
        out[:, start - first : stop - first] = grouped.view(heads, stop - start, dim)
    return out
