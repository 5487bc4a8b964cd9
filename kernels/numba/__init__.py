"""Kernels for the CPU, compiled by Numba; importing this package registers all of them."""

from trine.kernels.numba import (  # noqa: F401  each registers its kernels
    activation,
    avg_pool,
    batch_norm,
    conv,
    conv_grad,
    conv_grad_tiles,
    conv_tiles,
    cross_entropy,
    depthwise,
    dropout,
    elementwise,
    embedding,
    gemm,
    local_response,
    matmul,
    optimiser,
    pool,
    pool_threes,
    random,
    recurrent,
    regions,
    row_norm,
    softmax,
    winograd,
)
from trine.kernels.numba.jit import (
    cache_dir,
    check_fork,
    clear_cache,
    compile_seconds,
    compile_user,
    note_launches,
    source_hash,
    user_cache_root,
)

__all__ = [
    "cache_dir",
    "check_fork",
    "clear_cache",
    "compile_seconds",
    "compile_user",
    "note_launches",
    "source_hash",
    "user_cache_root",
]
