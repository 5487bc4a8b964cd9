"""Matrix products: register tiles over packed panels, with bias and activation at the end.

The right matrix is brought into panels as wide as a tile; the left one is read as it lies, ROWS rows
at a time. Each tile belongs to one thread and sums in the order of k, so the bytes do not depend on
the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trine.dtypes import Array
from trine.kernels.numba.activation import unit_error
from trine.kernels.numba.elementwise import RELU, act
from trine.kernels.numba.jit import scratch, threads
from trine.kernels.numba.simd import (
    MOST_VECTORS,
    ROWS,
    VECTOR_BYTES,
    address,
    lanes,
    move_vector,
    tile_of_steps,
    transpose,
)
from trine.kernels.numba.spread import each, inner, spread
from trine.kernels.registry import kernel

INT64 = np.dtype(np.int64)
PIECE = 64
"""Rows of the left matrix in one piece of work, a multiple of ROWS: they stay in the cache."""
PIECES_A_THREAD = 4
GRAIN = 1 << 20
"""Multiplications below which starting threads costs more than it saves."""


@inner
def panel_start(p: int, count: int, n: int, vector: int) -> int:
    """Return the first column of panel p of `count`: all are about equally many vectors wide."""
    vectors = (n + vector - 1) // vector
    return p * vectors // count * vector


@inner
def _pack_panel(
    item: int, b: Array, transposed: bool, n: int, depth: int, count: int, panels: Array
) -> None:
    """Bring the columns of one panel of b (K, N), or of its transpose, side by side."""
    zero = b.dtype.type(0)
    vector = VECTOR_BYTES // b.itemsize
    first = panel_start(item, count, n, vector)
    own = panel_start(item + 1, count, n, vector) - first
    columns = min(own, n - first)
    out = panels[first * depth : (first + own) * depth].reshape(depth, own)
    if transposed:
        start = address(b) + first * depth * b.itemsize
        transpose(zero, b.itemsize, start, depth, columns, depth, address(out), own)
    else:
        whole = columns // vector
        for k in range(depth):
            source, target = address(b) + (k * n + first) * b.itemsize, address(out[k])
            for i in range(whole):
                move_vector(zero, source + i * VECTOR_BYTES, target + i * VECTOR_BYTES)
            for j in range(whole * vector, columns):
                out[k, j] = b[k, first + j]
    if columns < own:
        for k in range(depth):
            target = out[k]
            for j in range(columns, own):
                target[j] = zero


@spread()
def _pack_panels(pool: int, threads: int, items: int, *args: Any) -> None:
    """Pack every panel."""
    each(_pack_panel, pool, threads, items, args)


def panels_of(b: Array, transposed: bool, most: int = MOST_VECTORS) -> tuple[Array, int]:
    """Return b (K, N), or its transpose, in panels of at most `most` vectors, and their number.

    They lie behind one another in scratch memory that lasts until the next call.
    """
    depth, n = b.shape[::-1] if transposed else b.shape
    vector = lanes(b.itemsize)
    vectors = -(-n // vector)
    panels = scratch("panels", max(1, vectors * vector * depth), b.dtype)
    count = -(-vectors // most)
    _pack_panels(n * depth, count, b, transposed, n, depth, count, panels)
    return panels, count


@inner
def _begin_with(bias: Array, start: int, stop: int, left: int, out: Array) -> None:
    """Begin the sums of some rows and columns with the bias."""
    for i in range(start, stop):
        target = out[i, left : left + bias.size]
        for j in range(bias.size):
            target[j] = bias[j]


@inner
def _rectify(start: int, stop: int, left: int, right: int, out: Array) -> None:
    """out = max(0, out) for some rows and columns."""
    zero = out.dtype.type(0)
    for i in range(start, stop):
        target = out[i, left:right]
        for j in range(right - left):
            z = target[j]
            target[j] = zero if z < zero else z  # NaN stays NaN


@inner
def _multiply_piece(
    item: int, a: Array, bias: Array, rectify: bool, count: int, group: int, groups: int,
    panels: Array, row_tables: Array, tiles: Array, out: Array,
) -> None:  # fmt: skip
    """out (M, N) = max(0, a b + bias), or the sum itself, for PIECE rows and `group` panels."""
    m, n = out.shape
    depth = a.shape[1]
    zero = a.dtype.type(0)
    vector = VECTOR_BYTES // a.itemsize
    piece, part = item // groups, item % groups
    rows, tile = row_tables[item], tiles[item]
    start, stop = piece * PIECE, min(m, (piece + 1) * PIECE)
    last = min(count, (part + 1) * group)
    left = panel_start(part * group, count, n, vector)
    right = min(n, panel_start(last, count, n, vector))
    if bias.size:
        _begin_with(bias[left:right], start, stop, left, out)
    for p in range(part * group, last):
        first = panel_start(p, count, n, vector)
        own = panel_start(p + 1, count, n, vector) - first
        columns = min(own, n - first)
        for i in range(start, stop, ROWS):
            for g in range(ROWS):
                rows[g] = min(i + g, m - 1) * depth  # rows beyond the last repeat it
            whole = columns == own and i + ROWS <= m
            place, step, add = address(tile), tile.shape[1], 0
            if whole:
                place, step, add = address(out) + (i * n + first) * a.itemsize, n, bias.size
            tile_of_steps(
                zero, own // vector, address(a), address(rows), 1,
                address(panels) + first * depth * a.itemsize, own, depth, add, place, step,
            )  # fmt: skip
            if not whole:
                for g in range(min(ROWS, m - i)):
                    target, values = out[i + g, first : first + columns], tile[g]
                    for j in range(columns):
                        target[j] = values[j] + target[j] if bias.size else values[j]
    if rectify:
        _rectify(start, stop, left, right, out)


@spread(grain=GRAIN)
def _multiply(pool: int, threads: int, items: int, *args: Any) -> None:
    """Multiply every piece."""
    each(_multiply_piece, pool, threads, items, args)


@inner
def _transpose_block(item: int, x: Array, out: Array) -> None:
    """Write the rows of x^T that PIECE columns of x are."""
    rows, columns = x.shape
    first = item * PIECE
    transpose(
        x.dtype.type(0), x.itemsize, address(x) + first * x.itemsize, columns, rows,
        min(PIECE, columns - first), address(out) + first * rows * x.itemsize, rows,
    )  # fmt: skip


@spread()
def _transposed(pool: int, threads: int, items: int, *args: Any) -> None:
    """Transpose every block."""
    each(_transpose_block, pool, threads, items, args)


def transposed(a: Array) -> Array:
    """Return a^T for a matrix, in scratch memory that lasts until the next call."""
    turned = scratch("turned", a.size, a.dtype)[: a.size].reshape(a.shape[1], a.shape[0])
    if a.size:
        _transposed(a.size, -(-a.shape[1] // PIECE), a, turned)
    return turned


def multiply(
    a: Array, trans_a: bool, b: Array, trans_b: bool, bias: Array | None, activation: int,
    out: Array,
) -> None:  # fmt: skip
    """out = act(op(a) op(b) + bias) for matrices; activation: 0 none, 1 ReLU, 2 logistic, 3 tanh."""
    m, n = out.shape
    if not out.size:
        return
    if activation > RELU:
        z = scratch("sums", out.size, out.dtype)[: out.size].reshape(out.shape)
        multiply(a, trans_a, b, trans_b, bias, 0, z)
        act(activation, z, out)
        return
    added = np.empty(0, a.dtype) if bias is None else bias
    if trans_a:
        a = transposed(a)
    depth = a.shape[1]
    panels, count = panels_of(b, trans_b)
    pieces = -(-m // PIECE)
    group = max(1, min(count, pieces * count // (PIECES_A_THREAD * threads.count)))
    groups = -(-count // group)
    items = pieces * groups
    rows = scratch("rows", items * ROWS, INT64)[: items * ROWS].reshape(items, ROWS)
    width = MOST_VECTORS * lanes(a.itemsize)
    size = items * ROWS * width
    tiles = scratch("tiles", size, a.dtype)[:size].reshape(items, ROWS, width)
    _multiply(
        m * n * depth, items, a, added, activation == RELU, count, group, groups, panels, rows,
        tiles, out,
    )  # fmt: skip


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
