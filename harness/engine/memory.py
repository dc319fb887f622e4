"""Memory of a device: free bytes, peak use, the number of rows that fit, and errors that mean it ran out."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from harness.compression.grid import Plan
from harness.compression.selection import Selection
from harness.engine import tensor_parallel
from harness.engine.buckets import FIRST_SPARE
from harness.engine.layer_forms import layer_windows, window_room
from harness.engine.model_spec import entry_bytes, shape_of
from harness.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from harness.engine.request import Request

# More rows gain next to nothing, and a crash loses whatever is being decoded.
_MAX_ROWS = 256


# Of glibc's malloc.h: the parameters of mallopt, and the largest threshold that it takes for memory of its own mapping.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAX_MMAP_THRESHOLD = 32 * 2**20
_MAX_HELD = 2**30


class PrefillMemoryError(MemoryError):
    """Memory ran out during a prefill."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # These words come from the CPU's allocator; from a graph or a library on a CUDA device; and from triton.
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "out of memory")
    )


def reason_of(error: BaseException) -> str:
    """The first line of an error's text, or its type if it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def free_bytes(device: torch.device) -> int:
    """Free bytes of a device; of a CPU, what the system has available."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        available = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        available = None
    return int(available[1]) * 1024 if available else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def reset_peak(device: torch.device) -> None:
    """Reset the peak of ``held_at_most`` to what is held now, which is possible on CUDA devices alone."""
    if device.type == "cuda":
        for card in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(card)


def held_at_most(device: torch.device) -> int:
    """Peak bytes: of all CUDA devices together, or of the process if the device is another."""
    if device.type == "cuda":
        return sum(torch.cuda.max_memory_allocated(card) for card in range(torch.cuda.device_count()))
    try:
        # ru_maxrss would start from what the parent process held.
        peak = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8"), re.MULTILINE)
    except OSError:
        peak = None
    if peak:
        return int(peak[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def row_bytes(
    config: PretrainedConfig,
    dtype: torch.dtype,
    plans: Sequence[Plan],
    tokens: int,
    new_tokens: int,
    selection: Selection,
) -> int:
    """Bytes of keys and values that a row of a prompt needs at most in one process while it decodes, on average.

    Args:
        config: the model's configuration.
        dtype: that of the cache.
        plans: what the rows keep of the prompt, 1 or more.
        tokens: length of the prompt.
        new_tokens: largest number of new tokens.
        selection: how entries are selected.
    """
    bytes_per_entry, _, _ = entry_bytes(config, dtype)
    shape = shape_of(config, tokens, selection)
    in_windows = window_room(config, tokens + new_tokens) * shape.kv_heads
    entries = sum(in_windows + plan.most(shape, new_tokens) for plan in plans)
    if new_tokens > FIRST_SPARE:
        entries += entries // (2 * shape.layers)  # while the room of a layer grows, its keys or values are there twice
    return bytes_per_entry * entries // len(plans) // tensor_parallel.count()


def prompt_row_bytes(
    config: PretrainedConfig, dtype: torch.dtype, request: Request, new_tokens: int, selection: Selection
) -> int:
    """Bytes that a row of one of a request's variants needs, on average; see ``row_bytes``.

    Args:
        config: the model's configuration.
        dtype: that of the cache.
        request: the prompt and its variants. One that cannot be planned gets an error record and no row.
        new_tokens: largest number of new tokens.
        selection: how entries are selected.

    Returns:
        1 or more.
    """
    tokens, plans = request.prompt.context_tokens, []
    new_tokens = new_tokens * len(request.turns) + len(request.turns[-1].ids) - tokens
    for variant in request.missing:
        with suppress(ConfigError):
            plans.append(variant.plan(shape_of(config, tokens, selection)))
    return row_bytes(config, dtype, plans, tokens, new_tokens, selection) if plans else 1


def prefill_bytes(config: PretrainedConfig, dtype: torch.dtype, tokens: int, chunk_tokens: int | None) -> int:
    """Bytes that the prefill of a prompt needs in one process beyond weights and rows, about.

    These are the keys and values of the whole prompt, and the activations of one layer.

    Args:
        config: the model's configuration.
        dtype: that of its weights.
        tokens: length of the prompt.
        chunk_tokens: tokens of a piece; None if the prompt is prefilled whole.
    """
    bytes_per_entry, heads, kv_heads = entry_bytes(config, dtype)
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    # Hidden states and their sums, the gate, its product and what goes up, and queries, keys and values.
    activations = dtype.itemsize * (4 * config.hidden_size + 3 * inner) + bytes_per_entry * (heads // 2 + kv_heads)
    entries = tokens * layer_windows(config).count(None) + window_room(config, tokens)
    whole = entries * kv_heads * bytes_per_entry + min(tokens, chunk_tokens or tokens) * activations
    return int(whole) // tensor_parallel.count()


def rows_that_fit(free: int, bytes_per_row: int) -> int:
    """Number of rows, 1 or more, that fit into half of the free bytes; the other half is for prefills."""
    return max(1, min(_MAX_ROWS, free // 2 // bytes_per_row))


def keep_freed_memory() -> None:
    """Let up to 1 GiB that is freed stay with this process, where its allocator is that of glibc.

    Every layer of a prefill on a CPU takes and frees the same tens of megabytes. Given back to the system each time,
    they come back page by page, which takes a tenth of a prefill.
    """
    with suppress(OSError, AttributeError):  # another allocator
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, _MAX_HELD)


def release() -> None:
    """Return the unused memory that the CUDA allocator holds."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
