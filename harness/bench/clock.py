"""A clock for measurements, and a description of the machine that they were made on."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from typing import Any

import torch
import transformers

from harness.kernels.products import processor


def seconds() -> float:
    """The time in seconds; differences have a meaning, single values do not.

    It is the CPU time of this process, which on a shared machine leaves out waiting for other processes. If this
    process computes on a CUDA device, it is wall time, after the device has finished its work.
    """
    if _on_cuda():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _on_cuda() -> bool:
    """Whether this process computes on a CUDA device."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def machine() -> Mapping[str, Any]:
    """A description of the machine that numbers are measured on, without names of hosts or users."""
    return {
        "device": torch.cuda.get_device_name() if _on_cuda() else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "clock": "wall time, device synchronised" if _on_cuda() else "CPU time of the process",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    """The processor's name as the system gives it, and what it is able to."""
    name = processor("model name") or platform.processor()
    return f"{name}, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
