"""Launches of random.cu: Philox words, and dropout by them."""

from __future__ import annotations

from trine.dtypes import Array
from trine.kernels.cuda.launch import Launch, Launches, blocks
from trine.kernels.registry import cuda_kernel
from trine.random import MAX_WORDS

SOURCE = "random.cu"
THREADS = 256
A_THREAD = 4
"""Words of a Philox block."""


def _check(op: str, n: int) -> None:
    if not 0 <= n <= MAX_WORDS:
        raise ValueError(f"[{op}] expected 0 to 2^34 elements a draw, got {n}. Draw in parts.")


def _random_bits(key: Array, n: int, out: Array) -> Launches:
    _check("random_bits", n)
    if not n:
        return ()
    return Launch(blocks(n, THREADS * A_THREAD), (THREADS,), (key, out, n))


def _drop(op: str, x: Array, key: Array, p: float, out: Array) -> Launches:
    _check(op, x.size)
    if not x.size:
        return ()
    scale = 1 / (1 - p) if p < 1 else 0.0  # uniforms are below 1: none is kept
    arguments = (x, key, out, x.size, p, scale)
    return Launch(blocks(x.size, THREADS * A_THREAD), (THREADS,), arguments)


def _dropout(x: Array, key: Array, p: float, out: Array) -> Launches:
    return _drop("dropout", x, key, p, out)


def _dropout_backward(grad_out: Array, key: Array, p: float, grad_x: Array) -> Launches:
    return _drop("dropout_backward", grad_out, key, p, grad_x)


cuda_kernel(
    "random_bits",
    name="philox",
    source=SOURCE,
    function="random_bits<{T}>",
    launch=_random_bits,
)
cuda_kernel("dropout", name="philox", source=SOURCE, function="dropout<{T}>", launch=_dropout)
cuda_kernel(
    "dropout_backward",
    name="philox",
    source=SOURCE,
    function="dropout<{T}>",
    launch=_dropout_backward,
)
