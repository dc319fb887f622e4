"""Exact softmax attention by blocks of rows: O(block x T) memory, no fused kernel, the published code's rounding.

This is the one place where attention weights are computed. Scorers sum them, and the prefill on a CPU multiplies them
with the values. Shapes: H query heads, Hk kv heads, T prompt tokens, D head_dim.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

# Bytes of float32 logits in a block at most. On a CPU a block must stay in the processor's cache
# (benchmarks/prefill_blocks.py); on a GPU it must be large enough to fill the card.
_BLOCK_BYTES = {"cpu": 4 * 2**20}
_BLOCK_BYTES_ELSEWHERE = 256 * 2**20
# Keys that lie dimension by dimension make a product a fifth faster, which pays for laying them out from so many rows
# on. Products of a few rows would round otherwise then.
_ROWS_WORTH_TURNING, _ROWS_OF_SAME_BITS = 1024, 16


@dataclass(frozen=True, eq=False)
class Softmax:
    """How a layer turns query-key products into attention weights.

    Attributes:
        scaling: factor on the products, which makes them logits.
        softcap: logits become softcap * tanh(logit / softcap); None leaves them as they are.
        sinks: a logit per query head, [H], that takes its share of the weights and has no value; None for none.
    """

    scaling: float
    softcap: float | None = None
    sinks: Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is an ordinary softmax, which fused kernels compute."""
        return self.softcap is None and self.sinks is None

    def of(self, heads: slice) -> Softmax:
        """That of some of the query heads."""
        return self if self.sinks is None else replace(self, sinks=self.sinks[heads])

    def capped_(self, logits: Tensor) -> Tensor:
        """Cap scaled logits in place; without a cap they stay as they are."""
        return logits if self.softcap is None else logits.div_(self.softcap).tanh_().mul_(self.softcap)

    def weights(self, logits: Tensor) -> Tensor:
        """The weights of logits [..., H, rows, seen] that are scaled, capped and masked, in the dtype of the logits.

        The softmax is float32. With sinks, the weights of a row come to less than 1.
        """
        if self.sinks is None:
            return logits.softmax(-1, dtype=torch.float32).to(logits.dtype)
        sinks = self.sinks.to(logits.dtype).view(-1, 1, 1).expand(*logits.shape[:-1], 1)
        return torch.cat([logits, sinks], -1).softmax(-1, dtype=torch.float32)[..., :-1].to(logits.dtype)


class WeightReader(Protocol):
    """Reads the attention weights of a layer, block by block."""

    def read(self, weights: Tensor) -> None:
        """Read one block.

        Args:
            weights: [H, rows, seen] of consecutive queries over the first ``seen`` keys. The memory is reused after the
                call.
        """
        ...


def attention_rows(
    queries: Tensor,
    keys: Tensor,
    softmax: Softmax,
    masked_from: int = 0,
    block_bytes: int | None = None,
    after: int = 0,
) -> Iterator[tuple[int, int, Tensor]]:
    """Attention weights of consecutive queries, the last of which stands at the last key.

    As in the published code, logits are computed in the queries' dtype and divided by 1 / scaling rather than
    multiplied by scaling, and the softmax is float32, rounded to the queries' dtype.

    Args:
        queries: [H, rows, D] at positions T - rows to T - 1.
        keys: [Hk, T, D].
        softmax: how products become weights, ``LayerState.softmax``.
        masked_from: a query at this position or later sees no later token; an earlier one sees all T. 0 is ordinary
            causal attention.
        block_bytes: bytes of float32 logits held at once; None for what suits the device.
        after: blocks all of whose queries stand before this position are left out.

    Yields:
        (start, stop, weights): positions of the block's queries and their weights [H, stop - start, seen] over the
        first ``seen`` keys. The memory of the weights is that of the next block's.
    """
    heads, rows, dim = queries.shape
    kv_heads, tokens, _ = keys.shape
    first = tokens - rows
    # The first masked row starts a block, so that a block is masked as a whole or not at all. The last token sees
    # everything with or without a mask.
    masked_from = min(masked_from, tokens - 1)
    logits_held = (block_bytes or _BLOCK_BYTES.get(keys.device.type, _BLOCK_BYTES_ELSEWHERE)) // (4 * heads)
    scaling = softmax.scaling
    # A power of two, as with 64 dimensions, scales the queries exactly, which saves a pass over the logits.
    exact = math.frexp(scaling)[0] == 0.5
    queries = queries * scaling if exact else queries
    # One memory for all blocks: fetching new pages from the system for each took a quarter of the time.
    memory = queries.new_empty(heads * max(tokens, min(logits_held, rows * tokens)))
    across = turned = keys.transpose(1, 2)
    if keys.device.type == "cpu" and keys.dtype == torch.float32 and heads * rows >= _ROWS_WORTH_TURNING * kv_heads:
        turned = across.contiguous()
    caps = _caps(0, keys)
    start = first
    while start < tokens:
        masked = start >= masked_from
        stop = min(
            tokens if masked else masked_from, start + _rows_held(logits_held, start if masked else None, tokens)
        )
        if stop <= after:
            start = stop
            continue
        seen = stop if masked else tokens
        grouped = queries[:, start - first : stop - first].reshape(kv_heads, -1, dim)
        logits = memory[: heads * (stop - start) * seen].view(heads, stop - start, seen)
        laid_out = turned if grouped.shape[1] >= _ROWS_OF_SAME_BITS else across
        torch.bmm(grouped, laid_out[:, :, :seen], out=logits.view(kv_heads, -1, seen))
        if not exact:
            logits.div_(1 / scaling)
        logits = softmax.capped_(logits)
        if masked:
            if len(caps) < stop - start:  # seldom: blocks become smaller
                caps = _caps(stop - start, logits)
            own = logits[:, :, start:]
            torch.minimum(own, caps[: stop - start, : stop - start], out=own)
        if logits.dtype == torch.float32 and softmax.sinks is None:
            torch.softmax(logits, -1, out=logits)  # in place, while the block is in the cache
        else:
            logits = softmax.weights(logits)
        yield start, stop, logits
        start = stop


def _caps(rows: int, like: Tensor) -> Tensor:
    """The most that the logits of consecutive queries over their own keys may be, [rows, rows], which masks later keys.

    Taking the smaller one is several times faster than ``masked_fill_`` and makes the same logits.
    """
    later = torch.ones(rows, rows, dtype=torch.bool, device=like.device).triu_(1)
    return like.new_full((rows, rows), torch.inf).masked_fill_(later, torch.finfo(like.dtype).min)


def _rows_held(logits: int, start: int | None, tokens: int) -> int:
    """Number of rows, 1 or more, that fit into a number of logits of one head.

    Args:
        logits: number of logits.
        start: position of the first row, each of which sees the tokens up to its own; None if rows see all tokens.
        tokens: number of all tokens.
    """
    if start is None:
        return max(1, logits // tokens)
    return max(1, (math.isqrt(start * start + 4 * logits) - start) // 2)  # rows * (start + rows) <= logits


def causal_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    softmax: Softmax,
    block_bytes: int | None = None,
    readers: Sequence[WeightReader] = (),
    last: int | None = None,
) -> Tensor:
    """Causal attention of consecutive queries, the last of which stands at the last key.

    Args:
        queries: [H, rows, D] at positions T - rows to T - 1.
        keys: [Hk, T, D].
        values: [Hk, T, D].
        softmax: how products become weights, ``LayerState.softmax``.
        block_bytes: see ``attention_rows``.
        readers: read the attention weights of all queries, block by block.
        last: number of the last queries whose output is wanted, 1 or more; None for all.

    Returns:
        [H, rows, D]; zeros in blocks without a query whose output is wanted.
    """
    heads, rows, dim = queries.shape
    kv_heads, tokens = keys.shape[:2]
    first, wanted = tokens - rows, tokens - min(rows, last or rows)
    after = 0 if readers else wanted
    out = torch.zeros_like(queries)
    for start, stop, weights in attention_rows(queries, keys, softmax, block_bytes=block_bytes, after=after):
        seen = weights.shape[-1]
        for reader in readers:
            reader.read(weights)
        if stop <= wanted:
            continue
        grouped = weights.view(kv_heads, -1, seen) @ values[:, :seen]
        out[:, start - first : stop - first] = grouped.view(heads, stop - start, dim)
    return out
