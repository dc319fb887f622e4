"""Products of rows with weights, keys and values on a CPU, by torch or by oneDNN.

MKL, which torch multiplies with, does not use the widest instructions of AMD's processors. oneDNN, which torch has too,
does, and takes half the time there or less: ``benchmarks/thin_products.py``. It adds up in another order. How few kept
entries that changes, and that these are no further from what float64 keeps: ``benchmarks/rounding.py``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness.kernels import Kernels

# oneDNN holds what it compiled for each number of rows. Prompts of any length are therefore multiplied by so many rows
# at a time, and what is left by a multiple of fewer; each row's numbers are the same, whichever are beside it.
_ROWS_AT_ONCE, _ROWS_LEFT = 256, 32
# Of the trial: products of normal numbers by two libraries. Other formats or a wrong order are off by far more.
_TOLERANCE = 1e-3
_ROWS, _INPUTS, _OUTPUTS = 5, 48, 40


def times(rows: Tensor, weight: Tensor, bias: Tensor | None = None, kernels: Kernels = "torch") -> Tensor:
    """The products of rows with a weight matrix, plus a bias.

    Args:
        rows: [rows, inputs].
        weight: [outputs, inputs], contiguous itself or transposed.
        bias: [outputs], or None.
        kernels: ``onednn`` multiplies float32 numbers by it; all others are torch's.

    Returns:
        [rows, outputs].
    """
    if kernels != "onednn" or rows.dtype != torch.float32:
        return functional.linear(rows, weight, bias)
    count = len(rows)
    if count <= _ROWS_AT_ONCE:
        return _onednn(rows, weight, bias)
    out = rows.new_empty(count, len(weight))
    for start in range(0, count, _ROWS_AT_ONCE):
        left = -(-min(_ROWS_AT_ONCE, count - start) // _ROWS_LEFT) * _ROWS_LEFT
        here = slice(min(start, count - left), min(start, count - left) + left)
        out[here] = _onednn(rows[here], weight, bias)
    return out


def _onednn(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The operation that torch's own compiler calls; rows that lie apart would take it a hundred times as long."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise.default(rows.contiguous(), weight, bias, "none", [], "")
    return out


def onednn_is_faster() -> bool:
    """Whether oneDNN was measured to be faster than torch's library on such a processor."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and processor("vendor_id") == "AuthenticAMD"


def why_not_onednn(device: torch.device) -> str | None:
    """Why oneDNN cannot multiply on a device, as the end of a sentence; None if it can."""
    return _trial() if device.type == "cpu" else f"is for CPUs, and the model's device is {device}"


@cache
def _trial() -> str | None:
    made = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"generator": made, "dtype": torch.float32, "device": "cpu"}
    rows, weight, bias = (
        torch.randn(*shape, **options) for shape in ((_ROWS, _INPUTS), (_OUTPUTS, _INPUTS), (_OUTPUTS,))
    )
    try:
        expected = functional.linear(rows, weight, bias)
        found = [_onednn(rows, lies, bias) for lies in (weight, weight.t().contiguous().t())]
    except (AttributeError, RuntimeError, TypeError):
        return "needs oneDNN, which this torch is without"
    if not all(torch.allclose(each, expected, atol=_TOLERANCE) for each in found):
        return "gives wrong products with this torch"
    return None


@cache
def processor(field: str) -> str | None:
    """What the system says of its first processor, as "model name" or "vendor_id"; None if it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), None)
