"""Exact softmax attention by blocks of rows: O(block x T) memory, no fused kernel, the published code's rounding.

The one place where attention weights are computed: rankings sum them, and the prefill on a CPU multiplies them with the values.
Shapes: H query heads, Hk kv heads, T prompt tokens, D head_dim.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# A block may hold this many bytes of float32 logits; the softmax needs as much again. On a CPU a block must stay in the cache
# (benchmarks/prefill_blocks.py); on a GPU it must be large enough to fill the card.
_BLOCK_BYTES = {"cpu": 4 * 2**20}
_BLOCK_BYTES_ELSEWHERE = 256 * 2**20


def attention_rows(
    queries: Tensor, keys: Tensor, scaling: float, masked_from: int = 0, block_bytes: int | None = None
) -> Iterator[tuple[int, int, Tensor]]:
    """Attention weights of consecutive queries, the last of which stands at the last key.

    Logits are computed in the queries' dtype and divided by 1 / scaling rather than multiplied by scaling, the softmax is float32 and
    is rounded to the queries' dtype: so does the published code.

    Args:
        queries: [H, rows, D] at positions T - rows to T - 1.
        keys: [Hk, T, D].
        scaling: of the query-key products.
        masked_from: a query at this position or later sees no later token; an earlier one sees all T (0 is ordinary causal attention).
        block_bytes: float32 logits held at once; None for what suits the device.

    Yields:
        (start, stop, weights): positions of the block's queries and their weights [H, stop - start, seen] over the first ``seen`` keys.
    """
    heads, rows, dim = queries.shape
    kv_heads, tokens, _ = keys.shape
    first = tokens - rows
    block_bytes = block_bytes or _BLOCK_BYTES.get(keys.device.type, _BLOCK_BYTES_ELSEWHERE)
    block = max(1, block_bytes // (4 * heads * tokens))
    # The first masked row starts a block, so that a block is masked as a whole or not at all.
    starts = sorted({*range(first, tokens, block), max(first, min(masked_from, tokens - 1))})
    for start, stop in zip(starts, [*starts[1:], tokens], strict=True):
        masked = start >= masked_from
        seen = stop if masked else tokens
        grouped = queries[:, start - first : stop - first].reshape(kv_heads, -1, dim)
        logits = (grouped @ keys[:, :seen].transpose(1, 2)).div_(1 / scaling).view(heads, stop - start, seen)
        if masked:
            later = torch.ones(stop - start, stop - start, dtype=torch.bool, device=logits.device).triu_(1)
            logits[:, :, start:].masked_fill_(later, torch.finfo(logits.dtype).min)
        yield start, stop, logits.softmax(-1, dtype=torch.float32).to(queries.dtype)


def causal_attention(queries: Tensor, keys: Tensor, values: Tensor, scaling: float, block_bytes: int | None = None) -> Tensor:
    """Attention output [H, T, D] of queries [H, T, D], keys and values [Hk, T, D]; ``block_bytes`` as in ``attention_rows``."""
    heads, _, dim = queries.shape
    kv_heads = keys.shape[0]
    out = torch.empty_like(queries)
    for start, stop, weights in attention_rows(queries, keys, scaling, block_bytes=block_bytes):
        seen = weights.shape[-1]
        grouped = weights.view(kv_heads, -1, seen) @ values[:, :seen]
        out[:, start:stop] = grouped.view(heads, stop - start, dim)
    return out
