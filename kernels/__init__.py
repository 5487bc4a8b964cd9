"""Kernels and their registry: the leaf of the package, which knows arrays and numbers only."""

from trine.kernels.registry import cuda_kernel, kernel, load_file, prefer, preferred

__all__ = ["cuda_kernel", "kernel", "load_file", "prefer", "preferred"]
