"""Fused causal attention of a prefill on a card, with the sums of exponentials that its kernel knows.

FlashAttention, which torch takes for 16-bit numbers, gives the logarithm of each query's sum of exponentials beside the
output. H2O's column sums need it, and without it compute all logits once more. torch's public function drops it, so the
operation beneath is called, as torch's own biases do. Before its first use, a device is asked for a small attention: if
the operation is not there, or its numbers are others, the public function is used and the logarithms are not known.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from harness.engine.attention import fused_attention

# Of the trial: outputs are 16-bit, logarithms float32. Another base, scale or mask is off by far more.
_OUTPUT_TOLERANCE, _LOG_TOLERANCE = 3e-2, 1e-3
_QUERIES, _KEYS = 24, 40


def fused_causal(queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> tuple[Tensor, Tensor | None]:
    """Causal attention of queries that stand at the last positions.

    Args:
        queries: [H, rows, D].
        keys: [Hk, T, D].
        values: [Hk, T, D].
        scaling: factor on query-key products.

    Returns:
        The output [H, rows, D]; and the natural logarithm of each query's sum of exponentials, [H, rows] in float32,
        or None if it is not known.
    """
    (heads, rows, dim), tokens = queries.shape, keys.shape[1]
    copies = heads // keys.shape[0]
    if gives_log_sums(queries.device, queries.dtype, copies, dim):
        return _flash(queries, keys, values, scaling)
    options: dict[str, Any] = {"is_causal": True}
    if rows < tokens:
        from torch.nn.attention.bias import causal_lower_right  # not above: it imports the compiler

        options = {"attn_mask": causal_lower_right(rows, tokens)}
    if copies > 1 and keys.dtype.itemsize > 2:
        # No fused kernel takes grouped heads in float32; without copies all weights would be in memory at once.
        keys, values, copies = keys.repeat_interleave(copies, dim=0), values.repeat_interleave(copies, dim=0), 1
    out = fused_attention(queries[None], keys[None], values[None], scale=scaling, enable_gqa=copies > 1, **options)
    return out[0], None


def _flash(queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Output and log sums of FlashAttention, whose last query stands at the last key."""
    out, log_sums = torch.ops.aten._scaled_dot_product_flash_attention(
        queries[None], keys[None], values[None], 0.0, is_causal=True, return_debug_mask=False, scale=scaling
    )[:2]
    return out[0], log_sums[0]


@cache
def gives_log_sums(device: torch.device, dtype: torch.dtype, copies: int, dim: int) -> bool:
    """Whether FlashAttention runs on a device and gives the logarithms of the sums of exponentials.

    It is tried once, with a small attention whose logarithms are also computed here.

    Args:
        device: the device of a layer.
        dtype: of its queries, keys and values.
        copies: number of query heads of a kv head.
        dim: numbers per head and token.
    """
    if dtype.itemsize != 2 or dim % 8:
        return False  # torch takes another kernel, or copies everything to a multiple of 8
    generator = torch.Generator().manual_seed(0)
    queries, keys = (
        torch.randn(heads, tokens, dim, generator=generator).to(dtype)
        for heads, tokens in ((2 * copies, _QUERIES), (2, _KEYS))
    )
    logits = queries.double() @ keys.double().repeat_interleave(copies, dim=0).transpose(1, 2) * dim**-0.5
    later = torch.ones(_QUERIES, _KEYS, dtype=torch.bool).triu(_KEYS - _QUERIES + 1)
    logits = logits.masked_fill(later, -torch.inf)
    values = keys.flip(1)
    mixed = logits.softmax(-1) @ values.double().repeat_interleave(copies, dim=0)
    try:
        found = _flash(queries.to(device), keys.to(device), values.to(device), dim**-0.5)
    except (RuntimeError, TypeError, AttributeError):
        return False
    return all(
        one.shape == exact.shape and torch.allclose(one.cpu().double(), exact, rtol=tolerance, atol=tolerance)
        for one, exact, tolerance in zip(
            found, (mixed, logits.logsumexp(-1)), (_OUTPUT_TOLERANCE, _LOG_TOLERANCE), strict=True
        )
    )
