"""Products of a step's rows with weights, keys and values on a CPU, by the faster of two libraries.

MKL, which torch multiplies with, does not use the widest instructions of AMD's processors. oneDNN, which torch has too,
does, and takes half the time there: ``benchmarks/thin_products.py``. They round differently, so steps and questions
alone are computed by it, and a prefill gives the numbers that transformers gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_IN_STEP: ContextVar[bool] = ContextVar("in_step", default=False)

# Of the trial: products of normal numbers by two libraries. Other formats or a wrong order are off by far more.
_TOLERANCE = 1e-3
_ROWS, _INPUTS, _OUTPUTS = 5, 48, 40


@contextmanager
def of_step() -> Iterator[None]:
    """Compute the products of linear layers as those of a step while the body runs."""
    token = _IN_STEP.set(True)
    try:
        yield
    finally:
        _IN_STEP.reset(token)


def in_step() -> bool:
    """Whether products are those of a step, and oneDNN computes them here."""
    return _IN_STEP.get() and by_onednn()


@cache
def by_onednn() -> bool:
    """Whether oneDNN is the faster library on this machine's CPU, is there, and multiplies right."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or processor("vendor_id") != "AuthenticAMD":
        return False
    made = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"generator": made, "dtype": torch.float32, "device": "cpu"}
    rows, weight, bias = (
        torch.randn(*shape, **options) for shape in ((_ROWS, _INPUTS), (_OUTPUTS, _INPUTS), (_OUTPUTS,))
    )
    expected = functional.linear(rows, weight, bias)
    try:
        found = [_onednn(rows, lies, bias) for lies in (weight, weight.t().contiguous().t())]
    except (AttributeError, RuntimeError, TypeError):
        return False
    return all(torch.allclose(each, expected, atol=_TOLERANCE) for each in found)


def processor(field: str) -> str | None:
    """What the system says of its first processor, as "model name" or "vendor_id"; None if it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), None)


def times(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The products of rows with a weight matrix, plus a bias.

    Args:
        rows: [rows, inputs].
        weight: [outputs, inputs], contiguous itself or transposed.
        bias: [outputs], or None.

    Returns:
        [rows, outputs].
    """
    if rows.dtype == torch.float32 and rows.is_cpu and by_onednn():
        return _onednn(rows, weight, bias)
    return functional.linear(rows, weight, bias)


def _onednn(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The operation that torch's own compiler calls; rows that lie apart would take it a hundred times as long."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise.default(rows.contiguous(), weight, bias, "none", [], "")
    return out
