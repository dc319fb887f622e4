"""Kernels of our own, each for torch operations that do the same. Nothing here is imported before it is needed: triton may be missing."""

from typing import Literal

# What computes, where the project has a kernel of its own.
Kernels = Literal["torch", "triton"]
