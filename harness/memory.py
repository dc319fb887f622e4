"""Memory that runs out."""

from __future__ import annotations

import torch


class PrefillMemoryError(MemoryError):
    """It ran out during a prefill."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of any device says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def reason_of(error: BaseException) -> str:
    """Its first line."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def release() -> None:
    """Give back what a device's allocator holds unused."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
