"""Kernels for the CPU, compiled by Numba; importing this package registers all of them."""

from trine.kernels.numba import conv, conv_grad
from trine.kernels.numba.jit import (
    cache_dir,
    check_fork,
    clear_cache,
    compile_seconds,
    compile_user,
)

__all__ = [
    "cache_dir",
    "check_fork",
    "clear_cache",
    "compile_seconds",
    "compile_user",
    "conv",
    "conv_grad",
]
