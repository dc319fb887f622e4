"""What all kernels share: the sizes of tiles, and a kernel to see that kernels run."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# Numbers in a tile at most, so that two in float32 fit into a card's shared memory.
_NUMBERS = 8192
_LEAST = 16  # rows, columns and the inner dimension of a product


def padded(size: int) -> int:
    """A dimension of a product that is at least ``size``: a power of two."""
    return max(_LEAST, int(triton.next_power_of_2(size)))


def precision_of(dtype: torch.dtype) -> str:
    """How numbers are multiplied, as float32: those of 16 bits as TF32, which holds them exactly; others as they are."""
    return "tf32" if dtype.itemsize == 2 else "ieee"


def tile_tokens(dim: int, most: int) -> int:
    """Tokens of a tile with ``dim`` numbers each, ``most`` at most."""
    return max(_LEAST, min(most, _NUMBERS // padded(dim)))


def write_one(device: torch.device) -> None:
    """Compile and launch the smallest kernel.

    Raises:
        RuntimeError: it did not write what it should have.
    """
    out = torch.zeros(1, device=device)
    with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]
        _write_one[1,](out)
    if float(out) != 1:
        raise RuntimeError("a kernel that writes 1 wrote something else")


@triton.jit  # type: ignore[untyped-decorator]
def _write_one(out: tl.tensor) -> None:
    tl.store(out, 1.0)
