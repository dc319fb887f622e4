"""Memory: what is free, what was held at most, how many rows fit, and that it ran out."""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from harness.compression.grid import Plan
from harness.compression.selection import Selection
from harness.engine import tensor_parallel
from harness.engine.model_spec import entry_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# More gain next to nothing, and a crash loses what is being decoded.
_MOST_ROWS = 256


class PrefillMemoryError(MemoryError):
    """It ran out during a prefill."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of any device says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # Of the CPU's allocator, of a graph or a library on a CUDA device, of triton.
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "out of memory")
    )


def reason_of(error: BaseException) -> str:
    """Its first line."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def free_bytes(device: torch.device) -> int:
    """What a device could still hold; of a CPU, what the system has available."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        available = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        available = None
    return int(available[1]) * 1024 if available else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def reset_peak(device: torch.device) -> None:
    """Let ``held_at_most`` begin at what is held now; of a process it cannot."""
    if device.type == "cuda":
        for card in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(card)


def held_at_most(device: torch.device) -> int:
    """Bytes held at most: of all CUDA devices together, or of the process on any other."""
    if device.type == "cuda":
        return sum(torch.cuda.max_memory_allocated(card) for card in range(torch.cuda.device_count()))
    try:
        # ru_maxrss would begin at what the parent held.
        peak = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8"), re.MULTILINE)
    except OSError:
        peak = None
    if peak:
        return int(peak[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def row_bytes(model: PreTrainedModel, plans: Sequence[Plan], tokens: int, new_tokens: int, selection: Selection) -> int:
    """Bytes of keys and values that the rows of a prompt need in one process while they decode, on average.

    Args:
        model: the model.
        plans: what its rows keep of the prompt, one or more.
        tokens: of the prompt.
        new_tokens: decoded at most.
        selection: how entries are picked.
    """
    each, heads, kv_heads = entry_bytes(model.config, model.dtype)
    compressed = heads if selection.granularity == "query_head" else kv_heads
    entries = sum(
        (kv_heads if keep >= tokens else compressed) * (keep + new_tokens) for plan in plans for keep in plan.keep
    )
    return each * entries // len(plans) // tensor_parallel.count()


def rows_that_fit(free: int, each: int) -> int:
    """How many rows of so many bytes fit into half of what is free, 1 at least: the other half is for prefills."""
    return max(1, min(_MOST_ROWS, free // 2 // each))


def release() -> None:
    """Give back what a device's allocator holds unused."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
