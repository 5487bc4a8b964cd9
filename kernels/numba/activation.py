"""Bias and activation, and their gradient with the sum over examples that the bias needs.

Long planes are vectors with one bias; short ones are parts of the row of their example, which has a
bias for each element.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba.jit import FAST, FAST_SUM, assign, helper, parallel, scratch
from trine.kernels.numba.maths import activate, activate_backward
from trine.kernels.numba.moments import PIECE
from trine.kernels.numba.spread import each, inner, spread
from trine.kernels.registry import kernel

CHUNKS = 16
"""Parts whose sums are added in order, whatever the number of threads."""
ROWS = 32
"""Rows that are added in the array's own dtype."""
FLOAT64 = np.dtype(np.float64)
LONG = 64
"""Planes from this length on are read as vectors of their own."""


def _by_planes(x: Array) -> bool:
    return bool(math.prod(x.shape[2:]) >= LONG)


def _shape(x: Array) -> tuple[int, int, int]:
    """Return examples, vectors of an example and their length."""
    if _by_planes(x):
        return x.shape[0], x.shape[1], math.prod(x.shape[2:])
    return x.shape[0], 1, math.prod(x.shape[1:])


@helper(fastmath=FAST)
def _add_bias(x: Array, bias: Array, out: Array) -> None:
    for j in range(out.size):
        out[j] = x[j] + bias[j]


@parallel()
def _bias_act(x: Array, bias: Array, activation: int, items: int, out: Array) -> None:
    """out (N, vectors, length) = act(x + bias), bias: (vectors,) or, for one vector, (length,)."""
    vectors = x.shape[1]
    zero = x.dtype.type(0)
    for item in prange(items):
        image, v = divmod(np.int64(item), vectors)
        if bias.size == vectors:
            activate(x[image, v], bias[v], activation, out[image, v])
        else:
            shifted = np.empty(bias.size, x.dtype)  # in place nothing would become vectors
            _add_bias(x[image, v], bias, shifted)
            activate(shifted, zero, activation, out[image, v])


@kernel("bias_act", backend="numba", name="vectors", replayable=False)
def bias_act(x: Array, bias: Array | None, activation: int, out: Array) -> None:
    """out[n, c, ...] = act(x[n, c, ...] + bias[c])."""
    shape = _shape(x)
    if bias is None:
        added = np.zeros(shape[1], x.dtype)
    elif x.ndim == 2 or _by_planes(x):
        added = bias
    else:
        added = np.repeat(bias, math.prod(x.shape[2:]))
    work = x.size * (8 if activation > 1 else 1)
    items = shape[0] * shape[1]
    _bias_act(work, x.reshape(shape), added, activation, items, out.reshape(shape))


@helper(fastmath=FAST_SUM)
def _piece_sum(x: Array) -> Any:
    result = x.dtype.type(0)
    for j in range(x.size):
        result += x[j]
    return result


@inner
def _total(x: Array) -> float:
    """Return the sum of a vector, by pieces, in float64."""
    result = 0.0
    for start in range(0, x.size, PIECE):
        result += _piece_sum(x[start : start + PIECE])
    return result


@inner
def _add(x: Array, sums: Array) -> None:
    for j in range(sums.size):
        sums[j] += x[j]


@inner
def _plane_backward(
    item: int, grad_out: Array, out: Array, activation: int, chunks: int, grad_x: Array,
    sums: Array,
) -> None:  # fmt: skip
    """Fill grad_x (N, C, L) for a channel of a chunk of examples, and its sum."""
    n, channels = out.shape[:2]
    chunk, c = item // channels, item % channels
    own = 0.0
    for image in range(chunk * n // chunks, (chunk + 1) * n // chunks):
        if activation:
            activate_backward(grad_out[image, c], out[image, c], activation, grad_x[image, c])
        own += _total(grad_x[image, c])
    sums[item] = own


@spread()
def _planes_backward(
    pool: int, threads: int, items: int, grad_out: Array, out: Array, activation: int,
    chunks: int, grad_x: Array, parts: Array, sums: Array, grad_bias: Array,
) -> None:  # fmt: skip
    """Fill every channel of every chunk, and grad_bias."""
    each(_plane_backward, pool, threads, items, (grad_out, out, activation, chunks, grad_x, sums))
    _add_chunks(sums, chunks, grad_bias)


@inner
def _chunk_backward(
    item: int, grad_out: Array, out: Array, activation: int, chunks: int, grad_x: Array,
    parts: Array, sums: Array,
) -> None:  # fmt: skip
    """Fill grad_x (N, width) for a chunk of examples, and its sums (width)."""
    n, width = out.shape
    part, own = parts[item * width : (item + 1) * width], sums[item * width : (item + 1) * width]
    own[:] = 0
    last = (item + 1) * n // chunks
    for start in range(item * n // chunks, last, ROWS):
        part[:] = 0
        for row in range(start, min(start + ROWS, last)):
            if activation:
                activate_backward(grad_out[row], out[row], activation, grad_x[row])
            _add(grad_x[row], part)
        _add(part, own)


@spread()
def _rows_backward(
    pool: int, threads: int, items: int, grad_out: Array, out: Array, activation: int,
    chunks: int, grad_x: Array, parts: Array, sums: Array, grad_bias: Array,
) -> None:  # fmt: skip
    """Fill every chunk, and grad_bias."""
    each(
        _chunk_backward, pool, threads, items,
        (grad_out, out, activation, chunks, grad_x, parts, sums),
    )  # fmt: skip
    _add_chunks(sums, chunks, grad_bias)


@inner
def _add_chunks(sums: Array, chunks: int, grad_bias: Array) -> None:
    """grad_bias (C) = sums (chunks, C, elements), added over chunks and elements."""
    channels = grad_bias.size
    elements = sums.size // max(1, chunks * channels)
    for c in range(channels):
        total = 0.0
        for chunk in range(chunks):
            first = (chunk * channels + c) * elements
            for j in range(first, first + elements):
                total += sums[j]
        grad_bias[c] = total


def unit_error(
    grad_out: Array, out: Array, activation: int, grad_x: Array, grad_bias: Array
) -> None:
    """Fill grad_x = grad_out act'(z) and grad_bias; for no activation grad_x holds grad_out already."""
    if _by_planes(out):
        shape: tuple[int, ...] = _shape(out)
        chunks = max(1, min(CHUNKS, shape[0]))
        run, items, size = _planes_backward, chunks * shape[1], chunks * shape[1]
    else:
        shape = (out.shape[0], math.prod(out.shape[1:]))
        chunks = max(1, min(CHUNKS, shape[0] // ROWS))
        run, items, size = _rows_backward, chunks, chunks * shape[1]
    run(
        out.size, items, grad_out.reshape(shape), out.reshape(shape), activation, chunks,
        grad_x.reshape(shape), scratch("bias parts", size, out.dtype)[:size],
        scratch("bias sums", size, FLOAT64)[:size], grad_bias,
    )  # fmt: skip


@kernel("bias_act_backward", backend="numba", name="vectors")
def bias_act_backward(
    grad_out: Array, out: Array, activation: int, grad_x: Array, grad_bias: Array
) -> None:
    """grad_x = grad_out act'(z), from out = act(z); grad_bias = its sum over all but axis 1."""
    if not activation:
        assign(grad_x, grad_out)
    unit_error(grad_out, out, activation, grad_x, grad_bias)
