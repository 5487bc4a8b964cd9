"""Matrix products: register tiles over packed panels, with bias and activation at the end.

The right matrix is brought into panels as wide as a tile; the left one is read as it lies, ROWS rows
at a time. Each tile belongs to one thread and sums in the order of k, so the bytes do not depend on
the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba.activation import unit_error
from trine.kernels.numba.jit import helper, parallel, scratch, threads
from trine.kernels.numba.maths import activate
from trine.kernels.numba.simd import (
    MOST_VECTORS,
    ROWS,
    VECTOR_BYTES,
    address,
    lanes,
    tile_of_steps,
    transpose,
)
from trine.kernels.registry import kernel

PIECE = 64
"""Rows of the left matrix in one piece of work, a multiple of ROWS: they stay in the cache."""
PIECES_A_THREAD = 4
GRAIN = 1 << 20
"""Multiplications below which starting threads costs more than it saves."""


@helper
def _pack_panel(b: Array, transposed: bool, first: int, count: int, out: Array) -> None:
    """Copy columns first ... first + count of b (K, N), or of its transpose, to out (K, width)."""
    depth, width = out.shape
    if transposed:
        start = address(b) + first * depth * b.itemsize
        transpose(b.dtype.type(0), b.itemsize, start, depth, count, depth, address(out), width)
    else:
        for k in range(depth):
            source = b[k, first : first + count]
            target = out[k]
            for j in range(count):
                target[j] = source[j]
    zero = b.dtype.type(0)
    if count < width:
        for k in range(depth):
            target = out[k]
            for j in range(count, width):
                target[j] = zero


@parallel(grain=GRAIN)
def _multiply(
    a: Array, b: Array, trans_b: bool, bias: Array, activation: int, group: int, panels: Array,
    out: Array,
) -> None:  # fmt: skip
    """out (M, N) = act(a b + bias), with a (M, K) and b (K, N) or its transpose.

    A piece of work is PIECE rows by `group` panels.
    """
    m, n = out.shape
    depth = a.shape[1]
    vector = VECTOR_BYTES // a.itemsize
    width = MOST_VECTORS * vector
    count = (n + width - 1) // width
    for p in prange(count):
        first = np.int64(p) * width
        columns = min(width, n - first)
        own = (columns + vector - 1) // vector * vector
        panel = panels[first * depth : (first + own) * depth].reshape(depth, own)
        _pack_panel(b, trans_b, first, columns, panel)
    pieces = (m + PIECE - 1) // PIECE
    groups = (count + group - 1) // group
    for item in prange(pieces * groups):
        piece, part = divmod(np.int64(item), groups)
        rows = np.empty(ROWS, np.int64)
        tile = np.empty((ROWS, width), a.dtype)
        last = min(m, (piece + 1) * PIECE)
        if bias.size:
            _fill(bias, part * group * width, piece * PIECE, last, group * width, out)
        for p in range(part * group, min(count, (part + 1) * group)):
            first = p * width
            columns = min(width, n - first)
            own = (columns + vector - 1) // vector * vector
            for i in range(piece * PIECE, last, ROWS):
                for g in range(ROWS):
                    rows[g] = min(i + g, m - 1) * depth  # rows beyond the last repeat it
                whole = columns == own and i + ROWS <= m
                if whole:
                    target, step, add = address(out) + (i * n + first) * a.itemsize, n, bias.size
                else:
                    target, step, add = address(tile), width, 0
                tile_of_steps(
                    a.dtype.type(0), own // vector, address(a), address(rows), 1,
                    address(panels) + first * depth * a.itemsize, own, depth, add, target, step,
                )  # fmt: skip
                if not whole:
                    for g in range(min(ROWS, m - i)):
                        for j in range(columns):
                            value = tile[g, j]
                            out[i + g, first + j] = (
                                value + out[i + g, first + j] if bias.size else value
                            )
        if activation:
            _activate(part * group * width, piece * PIECE, last, group * width, activation, out)


@helper
def _fill(bias: Array, first: int, start: int, stop: int, count: int, out: Array) -> None:
    """Begin the sums of some rows and columns with the bias."""
    columns = min(count, out.shape[1] - first)
    source = bias[first : first + columns]
    for i in range(start, stop):
        target = out[i, first : first + columns]
        for j in range(columns):
            target[j] = source[j]


@helper
def _activate(first: int, start: int, stop: int, count: int, activation: int, out: Array) -> None:
    """out = act(out) for some rows and columns."""
    zero = out.dtype.type(0)
    columns = min(count, out.shape[1] - first)
    for i in range(start, stop):
        values = out[i, first : first + columns]
        activate(values, zero, activation, values)


@parallel(grain=GRAIN)
def _transposed(x: Array, out: Array) -> None:
    """out = x^T."""
    rows, columns = x.shape
    blocks = (columns + PIECE - 1) // PIECE
    for block in prange(blocks):
        first = np.int64(block) * PIECE
        transpose(
            x.dtype.type(0), x.itemsize, address(x) + first * x.itemsize, columns, rows,
            min(PIECE, columns - first), address(out) + first * rows * x.itemsize, rows,
        )  # fmt: skip


def transposed(a: Array) -> Array:
    """Return a^T for a matrix, in scratch memory that lasts until the next call."""
    turned = scratch("turned", a.size, a.dtype)[: a.size].reshape(a.shape[1], a.shape[0])
    if a.size:
        _transposed(a.size, a, turned)
    return turned


def multiply(
    a: Array, trans_a: bool, b: Array, trans_b: bool, bias: Array | None, activation: int,
    out: Array,
) -> None:  # fmt: skip
    """out = act(op(a) op(b) + bias) for matrices; activation: 0 none, 1 ReLU, 2 logistic, 3 tanh."""
    m, n = out.shape
    if not out.size:
        return
    added = np.empty(0, a.dtype) if bias is None else bias
    if trans_a:
        a = transposed(a)
    depth = a.shape[1]
    vector = lanes(a.itemsize)
    panels = scratch("panels", max(1, -(-n // vector) * vector * depth), a.dtype)
    count = -(-n // (MOST_VECTORS * vector))
    items = PIECES_A_THREAD * threads.count
    group = max(1, min(count, -(-m // PIECE) * count // items))
    _multiply(m * n * depth, a, b, trans_b, added, activation, group, panels, out)


@kernel(
    "matmul", backend="numba", name="tiles", priority=1,
    supports=lambda x, y, **_: x.ndim == 2 and y.ndim == 2,
)  # fmt: skip
def matmul(x: Array, y: Array, trans_a: bool, trans_b: bool, out: Array) -> None:
    """out = x y for matrices, either of them transposed first."""
    multiply(x, trans_a, y, trans_b, None, 0, out)


@kernel("linear", backend="numba", name="tiles")
def linear(x: Array, weight: Array, bias: Array | None, activation: int, out: Array) -> None:
    """out = act(x W^T + b)."""
    multiply(x, False, weight, True, bias, activation, out)


@kernel("linear_backward", backend="numba", name="tiles")
def linear_backward(
    grad_out: Array, x: Array, weight: Array, out: Array, activation: int, grad_x: Array,
    grad_weight: Array, grad_bias: Array,
) -> None:  # fmt: skip
    """delta = grad_out act'(z); grad_x = delta W, grad_weight = delta^T x, grad_bias = sum delta."""
    delta = _unit_error(grad_out, out, activation, grad_bias)
    multiply(delta, False, weight, False, None, 0, grad_x)
    multiply(delta, True, x, False, None, 0, grad_weight)


@kernel("linear_weight_grad", backend="numba", name="tiles")
def linear_weight_grad(
    grad_out: Array, x: Array, out: Array, activation: int, grad_weight: Array, grad_bias: Array
) -> None:
    """delta = grad_out act'(z); grad_weight = delta^T x, grad_bias = sum delta."""
    delta = _unit_error(grad_out, out, activation, grad_bias)
    multiply(delta, True, x, False, None, 0, grad_weight)


def _unit_error(grad_out: Array, out: Array, activation: int, grad_bias: Array) -> Array:
    """Return delta = grad_out act'(z), in scratch memory, and fill grad_bias with its sums."""
    delta = grad_out
    if activation:
        delta = scratch("delta", grad_out.size, grad_out.dtype)[: grad_out.size]
        delta = delta.reshape(grad_out.shape)
    unit_error(grad_out, out, activation, delta, grad_bias)
    return delta
