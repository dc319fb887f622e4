"""Tile sizes for all kernels, and a minimal kernel that shows that kernels run."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# Numbers in a tile at most, so that two tiles of float32 fit into a card's shared memory.
_NUMBERS = 8192
_MIN_SIDE = 16  # of the rows, the columns and the inner dimension of a product


def padded(size: int) -> int:
    """``size`` padded to a dimension that a product can have: a power of two, 16 or more."""
    return max(_MIN_SIDE, int(triton.next_power_of_2(size)))


def precision_of(dtype: torch.dtype) -> str:
    """The input precision of products: TF32 for 16-bit numbers, which it represents exactly, else float32."""
    return "tf32" if dtype.itemsize == 2 else "ieee"


def tile_tokens(dim: int, maximum: int) -> int:
    """Number of tokens in a tile, 16 or more.

    Args:
        dim: numbers per token.
        maximum: largest number of tokens, 16 or more.
    """
    return max(_MIN_SIDE, min(maximum, _NUMBERS // padded(dim)))


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
