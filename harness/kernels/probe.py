"""A probe for devices on which the project's kernels can run."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch

# Of earlier cards, some have less shared memory than a tile takes, and none has TF32.
_MIN_CAPABILITY = (8, 0)


@cache
def why_not(device: torch.device) -> str | None:
    """Why kernels cannot run on a device, as the end of a sentence; None if they can."""
    if device.type != "cuda":
        return f"is for CUDA devices, and the model's is {device}"
    if find_spec("triton") is None:
        return "needs triton, which is not installed (pip install 'kvgauge[triton]')"
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is not None or capability < _MIN_CAPABILITY:
        return (
            f"needs an NVIDIA card of compute capability 8.0 or more, and {torch.cuda.get_device_name(device)} is none"
        )
    try:
        _launch(device)
    except Exception as error:  # of triton, its C compiler or the driver: with any of these, no kernel would run
        return f"cannot compile here ({(str(error).strip().splitlines() or [type(error).__name__])[0][:150]})"
    return None


def _launch(device: torch.device) -> None:
    from harness.kernels.tiles import write_one

    write_one(device)
