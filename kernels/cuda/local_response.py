"""Launches of local_response.cu: local response normalisation and its gradient."""

from __future__ import annotations

from trine.dtypes import Array
from trine.kernels.cuda.launch import Launch, Launches, Scratch, blocks
from trine.kernels.registry import cuda_kernel

THREADS = 256
SOURCE = "local_response.cu"


def _forward(
    x: Array, size: int, alpha: float, beta: float, k: float, out: Array, scale: Array
) -> Launches:
    if not x.size:
        return ()
    window = (x.size, *x.shape[1:], size // 2, (size - 1) // 2)
    arguments = (x, out, scale, *window, alpha / size, beta, k)
    return Launch(blocks(x.size, THREADS), (THREADS,), arguments)


def _backward(
    grad_out: Array, x: Array, scale: Array, size: int, alpha: float, beta: float, grad_x: Array
) -> Launches:
    if not x.size:
        return ()
    grid, terms = blocks(x.size, THREADS), Scratch(x.shape, x.dtype)
    window = (x.size, *x.shape[1:], (size - 1) // 2, size // 2)
    factor = 2 * alpha * beta / size
    return (
        Launch(
            grid, (THREADS,), (grad_out, x, scale, terms, x.size, beta),
            function="local_response_terms<{T}>",
        ),
        Launch(grid, (THREADS,), (grad_out, x, scale, terms, grad_x, *window, factor, beta)),
    )  # fmt: skip


cuda_kernel(
    "local_response_norm",
    name="grid",
    source=SOURCE,
    function="local_response<{T}>",
    launch=_forward,
)
cuda_kernel(
    "local_response_norm_backward",
    name="grid",
    source=SOURCE,
    function="local_response_backward<{T}>",
    launch=_backward,
)
