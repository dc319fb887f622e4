"""The project's own kernels in Triton, each beside the torch operations that it equals.

Modules that need triton are imported only when a kernel runs, because triton may be missing.
"""

from typing import Literal

# What computes an operation for which the project has a kernel of its own.
Kernels = Literal["torch", "triton"]
