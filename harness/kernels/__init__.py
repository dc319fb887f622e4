"""Kernels of our own, each beside the torch operations that it stands for. Nothing here is imported before a setting asks for it."""
