"""Philox words and dropout: the words of `trine.random`, in parts that threads share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba.jit import helper, parallel
from trine.kernels.registry import kernel
from trine.random import MAX_WORDS, PHILOX_M0, PHILOX_M1, PHILOX_ROUNDS, PHILOX_W0, PHILOX_W1

u64 = np.uint64
M0, M1, W0, W1 = u64(PHILOX_M0), u64(PHILOX_M1), u64(PHILOX_W0), u64(PHILOX_W1)
LOW, SHIFT = u64(0xFFFFFFFF), u64(32)
BLOCKS = 1024
"""Blocks of four words that one thread makes at a time."""
PHILOX_WORK = 8
"""Simple operations that a random word counts for."""


@helper
def philox_block(block: Any, key: Array) -> Any:
    """Return the four words, as uint64, of a block of the draw `key`, uint64 (5,)."""
    c0, c1, c2, c3 = u64(block), key[2], key[3], key[4]
    k0, k1 = key[0], key[1]
    for _ in range(PHILOX_ROUNDS):
        product0 = c0 * M0
        product1 = c2 * M1
        c0 = (product1 >> SHIFT) ^ c1 ^ k0
        c2 = (product0 >> SHIFT) ^ c3 ^ k1
        c1 = product1 & LOW
        c3 = product0 & LOW
        k0 = (k0 + W0) & LOW
        k1 = (k1 + W1) & LOW
    return c0, c1, c2, c3


@helper
def _bits_chunk(key: Array, start: int, out: Array) -> None:
    """Fill out with the words from block `start` on."""
    whole = out.size // 4
    for b in range(whole):
        c0, c1, c2, c3 = philox_block(start + b, key)
        out[4 * b] = c0
        out[4 * b + 1] = c1
        out[4 * b + 2] = c2
        out[4 * b + 3] = c3
    words = philox_block(start + whole, key)
    for i in range(4 * whole, out.size):
        out[i] = words[i - 4 * whole]


@parallel()
def _bits(key: Array, out: Array) -> None:
    size = 4 * BLOCKS
    for part in prange((out.size + size - 1) // size):
        chunk = np.int64(part)
        _bits_chunk(key, chunk * BLOCKS, out[chunk * size : (chunk + 1) * size])


@kernel("random_bits", backend="numba", name="philox")
def random_bits(key: Array, n: int, out: Array) -> None:
    """out = the first n words of the Philox draw of a key."""
    if n > MAX_WORDS:
        raise ValueError(f"[random] expected 0 to 2^34 elements a draw, got {n}. Draw in parts.")
    _bits(PHILOX_WORK * n, key.astype(np.uint64), out)


@helper
def _drop_chunk(
    x: Array, key: Array, start: int, threshold: Any, scale: float, words: Array, out: Array
) -> None:
    """Keep, scaled, the elements whose word's upper 24 bits reach the threshold."""
    _bits_chunk(key, start, words)
    zero = x.dtype.type(0)
    for i in range(x.size):
        out[i] = x[i] * scale if (words[i] >> np.uint32(8)) >= threshold else zero


@parallel()
def _drop(x: Array, key: Array, threshold: Any, scale: float, out: Array) -> None:
    size = 4 * BLOCKS
    for part in prange((x.size + size - 1) // size):
        chunk = np.int64(part)
        a, b = chunk * size, min((chunk + 1) * size, x.size)
        words = np.empty(b - a, np.uint32)
        _drop_chunk(x[a:b], key, chunk * BLOCKS, threshold, scale, words, out[a:b])


def _dropout(x: Array, key: Array, p: float, out: Array) -> None:
    # A uniform is k 2^-24, and k 2^-24 >= p just where k reaches the ceiling of p 2^24.
    threshold = np.uint32(math.ceil(float(np.float32(p)) * 2.0**24))
    scale = x.dtype.type(1 / (1 - p) if p < 1 else 0)
    flat = (x.reshape(x.size), key.astype(np.uint64), threshold, scale, out.reshape(x.size))
    _drop(PHILOX_WORK * x.size, *flat)


@kernel("dropout", backend="numba", name="philox")
def dropout(x: Array, key: Array, p: float, out: Array) -> None:
    """out_i = x_i / (1 - p) where the i-th float32 uniform of the draw is at least p, else 0."""
    _dropout(x, key, p, out)


@kernel("dropout_backward", backend="numba", name="philox")
def dropout_backward(grad_out: Array, key: Array, p: float, grad_x: Array) -> None:
    """grad_x_i = grad_out_i / (1 - p) where element i was kept, else 0."""
    _dropout(grad_out, key, p, grad_x)
