"""Local response normalisation: a thread owns columns of an example, over all channels.

A column is short, so that the rows of a window stay in the first cache while they are added. Powers
of 3/4, which every published net takes, are two square roots, and so are vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trine.dtypes import Array
from trine.kernels.numba.jit import scratch
from trine.kernels.numba.spread import each, inner, spread
from trine.kernels.registry import kernel

COLUMNS = 512
"""Elements of a channel that a thread takes at a time."""


@inner
def _add_window(rows: Array, c: int, before: int, after: int, first: int, sums: Array) -> None:
    """sums = the sum of the rows from c - before to c + after, from a column on."""
    sums[:] = 0
    for j in range(max(0, c - before), min(rows.shape[0], c + after + 1)):
        row = rows[j, first : first + sums.size]
        for i in range(sums.size):
            sums[i] += row[i]


@inner
def _add_squares(rows: Array, c: int, before: int, after: int, first: int, sums: Array) -> None:
    """sums = the sum of the squares of the rows from c - before to c + after."""
    sums[:] = 0
    for j in range(max(0, c - before), min(rows.shape[0], c + after + 1)):
        row = rows[j, first : first + sums.size]
        for i in range(sums.size):
            sums[i] += row[i] * row[i]


@inner
def _shrink(x: Array, scale: Array, beta: Any, out: Array) -> None:
    """out = x scale^-beta."""
    if beta == x.dtype.type(0.75):
        for i in range(out.size):
            root = np.sqrt(scale[i])
            out[i] = x[i] / (root * np.sqrt(root))
    else:
        for i in range(out.size):
            out[i] = x[i] * scale[i] ** -beta


@inner
def _forward_columns(
    item: int, x: Array, before: int, after: int, factor: Any, beta: Any, k: Any, out: Array,
    scale: Array,
) -> None:  # fmt: skip
    parts = (x.shape[2] + COLUMNS - 1) // COLUMNS
    n, first = item // parts, item % parts * COLUMNS
    last = min(x.shape[2], first + COLUMNS)
    for c in range(x.shape[1]):
        sums = scale[n, c, first:last]
        _add_squares(x[n], c, before, after, first, sums)
        for i in range(sums.size):
            sums[i] = k + factor * sums[i]
        _shrink(x[n, c, first:last], sums, beta, out[n, c, first:last])


@spread()
def _forward(pool: int, threads: int, items: int, *args: Any) -> None:
    """Normalise columns of (N, C, L)."""
    each(_forward_columns, pool, threads, items, args)


def _items(x: Array) -> int:
    return int(x.shape[0]) * -(-int(x.shape[2]) // COLUMNS)


@kernel("local_response_norm", backend="numba", name="columns")
def local_response_norm(
    x: Array, size: int, alpha: float, beta: float, k: float, out: Array, scale: Array
) -> None:
    """scale = k + alpha / size (sum of x^2 over the window), out = x scale^-beta."""
    number = x.dtype.type
    _forward(
        (size + 4) * x.size, _items(x), x, size // 2, (size - 1) // 2, number(alpha / size),
        number(beta), number(k), out, scale,
    )  # fmt: skip


@inner
def _backward_columns(
    item: int, grad_out: Array, x: Array, scale: Array, before: int, after: int, factor: Any,
    beta: Any, terms: Array, grad_x: Array,
) -> None:  # fmt: skip
    parts = (x.shape[2] + COLUMNS - 1) // COLUMNS
    n, first = item // parts, item % parts * COLUMNS
    last = min(x.shape[2], first + COLUMNS)
    for c in range(x.shape[1]):
        shrunk, row = grad_x[n, c, first:last], x[n, c, first:last]
        _shrink(grad_out[n, c, first:last], scale[n, c, first:last], beta, shrunk)
        term, divisor = terms[n, c, first:last], scale[n, c, first:last]
        for i in range(term.size):
            term[i] = shrunk[i] * row[i] / divisor[i]
    sums = np.empty(COLUMNS, x.dtype)[: last - first]
    for c in range(x.shape[1]):
        _add_window(terms[n], c, before, after, first, sums)
        shrunk, row = grad_x[n, c, first:last], x[n, c, first:last]
        for i in range(sums.size):
            shrunk[i] -= factor * row[i] * sums[i]


@spread()
def _backward(pool: int, threads: int, items: int, *args: Any) -> None:
    """The gradient of columns of (N, C, L)."""
    each(_backward_columns, pool, threads, items, args)


@kernel("local_response_norm_backward", backend="numba", name="columns")
def local_response_norm_backward(
    grad_out: Array, x: Array, scale: Array, size: int, alpha: float, beta: float, grad_x: Array
) -> None:
    """grad_x = g scale^-beta - 2 alpha beta / size x (sum of g x scale^(-beta - 1))."""
    number = x.dtype.type
    terms = scratch("local_response", x.size, x.dtype)[: x.size].reshape(x.shape)
    _backward(
        (size + 8) * x.size, _items(x), grad_out, x, scale, (size - 1) // 2, size // 2,
        number(2 * alpha * beta / size), number(beta), terms, grad_x,
    )  # fmt: skip
