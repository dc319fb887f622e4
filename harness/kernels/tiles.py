"""Tile sizes for all kernels, and a minimal kernel that shows that kernels run."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# Bytes of a tile at most, so that several fit into a card's shared memory.
_BYTES = 32768
_MIN_SIDE = 16  # of the rows, the columns and the inner dimension of a product


def padded(size: int) -> int:
    """``size`` padded to a dimension that a product can have: a power of two, 16 or more."""
    return max(_MIN_SIDE, int(triton.next_power_of_2(size)))


def product_dtype(dtype: torch.dtype) -> tl.dtype:
    """The dtype in which numbers of a dtype are multiplied: their own, but that the interpreter has no 16-bit products.

    Products of 16-bit numbers are exact in float32, too, in which both add up.
    """
    if triton.knobs.runtime.interpret:
        return tl.float32
    return {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}.get(dtype, tl.float32)


def product_bytes(dtype: torch.dtype) -> int:
    """Bytes of a number of a dtype where it is multiplied: 2, or 4 for all that are not 16-bit."""
    return 2 if dtype.itemsize == 2 else 4


def tile_tokens(dim: int, maximum: int, dtype: torch.dtype = torch.float32) -> int:
    """Number of tokens in a tile, 16 or more.

    Args:
        dim: numbers per token.
        maximum: largest number of tokens, 16 or more.
        dtype: of the numbers.
    """
    return max(_MIN_SIDE, min(maximum, _BYTES // (padded(dim) * product_bytes(dtype))))


def write_one(device: torch.device) -> None:
    """Compile and launch the smallest kernel.

    Raises:
        RuntimeError: it cannot run, or wrote the wrong number.
    """
    out = torch.zeros(1, device=device)
    with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]
        _write_one[1,](out)
    if float(out) != 1:
        raise RuntimeError("a kernel that writes 1 wrote something else")


@triton.jit  # type: ignore[untyped-decorator]
def _write_one(out: tl.tensor) -> None:
    tl.store(out, 1.0)
