"""The project's own kernels in Triton, each beside the torch operations that it equals; and products by oneDNN.

Modules that need triton are imported only when a kernel runs, because triton may be missing.
"""

from typing import Literal

# What computes an operation for which there is more than torch: on a CPU oneDNN, on a CUDA device Triton.
Kernels = Literal["torch", "onednn", "triton"]
