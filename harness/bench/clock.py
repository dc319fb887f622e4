"""Seconds and machines."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers


def seconds(device: torch.device) -> float:
    """Seconds to subtract from each other: CPU time of this process on a CPU, wall time after all queued work on a GPU.

    CPU time with one thread is what a shared machine can measure: waiting for the others does not count.
    """
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    start = seconds(device)
    work()
    return seconds(device) - start


def machine(device: torch.device) -> Mapping[str, Any]:
    """What a reader must know of where numbers were measured; no names of hosts or users."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "clock": "CPU time of the process" if device.type == "cpu" else "wall time",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    """The processor's family as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return f"{next(named, platform.machine())}, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
