"""Batch normalisation: a thread owns whole channels, which stay in its cache, plane by plane.

Where planes are short or channels few, the array is a matrix (N, C L) whose columns get their
moments first; rows are read in order then, and threads share them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba.jit import FAST, FAST_SUM, helper, parallel
from trine.kernels.numba.moments import (
    GRAIN,
    PIECE,
    affine,
    centre_of,
    inverse_root,
    join,
    minus,
    piece_moments,
    plain_mean,
    times,
)
from trine.kernels.registry import kernel

SHARES = 16
"""Parts of rows, blocks of columns or channels that threads can share."""
LONG = 64
"""Planes from this length on are read as vectors of their own."""
COLUMNS = 1024
"""Columns of a block."""
ROWS = 32
"""Rows whose differences are added in the array's own dtype."""


def _by_planes(x: Array) -> bool:
    return bool(x.shape[1] >= SHARES and x.shape[2] >= LONG)


@helper
def _channel_mean(x: Array, c: int) -> Any:
    total = 0.0
    for image in range(x.shape[0]):
        total += plain_mean(x[image, c])
    return total / x.shape[0]


@helper
def _line(
    x: Array,
    weight: Array,
    bias: Array,
    eps: float,
    c: int,
    exact: float,
    spread: float,
    mean: Array,
    var: Array,
) -> Any:
    """Fill mean and variance of a channel; return centre, scale and shift of its straight line."""
    dtype = x.dtype.type
    count = np.float64(x.shape[0] * x.shape[2])
    mean[c] = exact if exact == exact else _channel_mean(x, c)  # noqa: PLR0124
    var[c] = spread / count
    centre = dtype(exact)
    scale = dtype(weight[c] * inverse_root(spread, count, eps))
    return centre, scale, bias[c] - dtype(exact - centre) * scale


@helper(fastmath=FAST_SUM)
def _channel(
    x: Array, weight: Array, bias: Array, eps: float, c: int, out: Array, mean: Array, var: Array
) -> None:
    """Normalise one channel of x (N, C, L)."""
    dtype = x.dtype.type
    found = (0.0, 0.0, 0.0)
    for image in range(x.shape[0]):
        for start in range(0, x.shape[2], PIECE):
            end = min(start + PIECE, x.shape[2])
            pivot = x[image, c, start]
            total, squares = dtype(0), dtype(0)
            for j in range(start, end):
                total += minus(x[image, c, j], pivot)
            centre = centre_of(x, pivot, total, end - start)
            total = dtype(0)
            for j in range(start, end):
                d = minus(x[image, c, j], centre)
                total += d
                squares += d * d
            found = join(found, piece_moments(end - start, centre, total, squares))
    exact, spread = found[1], found[2]
    centre, scale, shift = _line(x, weight, bias, eps, c, exact, spread, mean, var)
    for image in range(x.shape[0]):
        for j in range(x.shape[2]):
            out[image, c, j] = affine(x[image, c, j], centre, scale, shift)


@parallel(grain=GRAIN)
def _planes(
    x: Array, weight: Array, bias: Array, eps: float, out: Array, mean: Array, var: Array
) -> None:
    for c in prange(x.shape[1]):
        _channel(x, weight, bias, eps, np.int64(c), out, mean, var)


@helper
def _block(x: Array, item: int, parts: int) -> Any:
    """Return the part, its first and last row and the first and last column of a block."""
    part, block = divmod(np.int64(item), (x.shape[1] + COLUMNS - 1) // COLUMNS)
    first, last = part * x.shape[0] // parts, (part + 1) * x.shape[0] // parts
    return part, first, last, block * COLUMNS, min((block + 1) * COLUMNS, x.shape[1])


@helper(fastmath=FAST)
def _add_row(x: Array, centre: Array, total: Array) -> None:
    for j in range(total.size):
        total[j] += x[j] - centre[j]


@helper(fastmath=FAST)
def _add_squares(x: Array, centre: Array, total: Array, squares: Array) -> None:
    for j in range(total.size):
        d = x[j] - centre[j]
        total[j] += d
        squares[j] += d * d


@helper(fastmath=FAST)
def _join_columns(
    count: float, mean: Array, spread: Array, n: float, means: Array, spreads: Array
) -> None:
    """Join to the moments of `count` rows those of n more."""
    share = n / (count + n)
    for j in range(mean.size):
        delta = means[j] - mean[j]
        mean[j] += delta * share
        spread[j] += spreads[j] + delta * delta * (count * share)


@helper(fastmath=FAST)
def _tile_moments(
    n: float, centre: Array, total: Array, squares: Array, mean: Array, spread: Array
) -> None:
    """Turn sums of differences from a centre, and of their squares, into moments."""
    for j in range(mean.size):
        rest = np.float64(total[j]) / n
        mean[j] = centre[j] + rest
        spread[j] = np.float64(squares[j]) - rest * rest * n


@helper
def _column_moments(
    x: Array, first: int, last: int, low: int, high: int, mean: Array, spread: Array
) -> None:
    """Fill the means, and the sums of squares from them, of columns low to high in some rows."""
    mean[:] = 0
    spread[:] = 0
    sums = np.empty((3, high - low), x.dtype)
    centre, total, squares = sums[0], sums[1], sums[2]
    tile = np.empty((2, high - low))
    for start in range(first, last, ROWS):
        end = min(start + ROWS, last)
        n = np.float64(end - start)
        pivot = x[start, low:high]
        total[:] = 0
        for i in range(start, end):
            _add_row(x[i, low:high], pivot, total)
        for j in range(mean.size):
            centre[j] = pivot[j] + x.dtype.type(total[j] / n)
        total[:] = 0
        squares[:] = 0
        for i in range(start, end):
            _add_squares(x[i, low:high], centre, total, squares)
        _tile_moments(n, centre, total, squares, tile[0], tile[1])
        _join_columns(np.float64(start - first), mean, spread, n, tile[0], tile[1])


@helper
def _about(spread: float, n: int, own: float, mean: float) -> Any:
    """Return a column's sum of squares from the mean of its channel."""
    return spread + n * ((own - mean) * (own - mean))


@helper(fastmath=FAST_SUM)
def _join_channel(n: int, means: Array, spreads: Array) -> Any:
    """Return the mean and the sum of squares of a channel whose columns have n elements each."""
    total, spread = 0.0, 0.0
    for j in range(means.size):
        total += means[j]
    mean = total / means.size
    for j in range(means.size):
        spread += _about(spreads[j], n, means[j], mean)
    return mean, spread


@helper(fastmath=FAST)
def _normalise_row(x: Array, centre: Array, scale: Array, shift: Array, out: Array) -> None:
    for j in range(out.size):
        out[j] = (x[j] - centre[j]) * scale[j] + shift[j]


@parallel(grain=GRAIN)
def _columns(
    x: Array,
    weight: Array,
    bias: Array,
    eps: float,
    items: int,
    found: Array,
    table: Array,
    out: Array,
    mean: Array,
    var: Array,
) -> None:
    """Normalise columns of x (N, C, L); found: (2, parts, columns), table: (3, columns)."""
    n, channels, length = x.shape
    parts, width = found.shape[1:]
    rows, results = x.reshape(n, width), out.reshape(n, width)
    for item in prange(items):
        part, first, last, low, high = _block(rows, item, parts)
        own = found[0, part, low:high], found[1, part, low:high]
        _column_moments(rows, first, last, low, high, own[0], own[1])
    for channel in prange(channels):
        c = np.int64(channel)
        low, high = c * length, (c + 1) * length
        means, spreads = found[0, 0, low:high], found[1, 0, low:high]
        for p in range(1, parts):
            before, count = p * n // parts, (p + 1) * n // parts
            _join_columns(
                np.float64(before), means, spreads,
                np.float64(count - before), found[0, p, low:high], found[1, p, low:high],
            )  # fmt: skip
        exact, spread = _join_channel(n, means, spreads)
        centre, scale, shift = _line(x, weight, bias, eps, c, exact, spread, mean, var)
        for j in range(low, high):
            table[0, j] = centre
            table[1, j] = scale
            table[2, j] = shift
    for i in prange(n):
        _normalise_row(rows[i], table[0], table[1], table[2], results[i])


def _work(x: Array, constants: int) -> tuple[int, Array, Array]:
    """Return how many parts of rows by blocks of columns there are, and space for sums and columns.

    It is a rule of the shape alone, so that sums do not depend on the number of threads.
    """
    width = x.shape[1] * x.shape[2]
    blocks = -(-width // COLUMNS)
    parts = max(1, min(SHARES // blocks, x.shape[0] // ROWS))
    return parts * blocks, np.empty((2, parts, width)), np.empty((constants, width), x.dtype)


@kernel("batch_norm", backend="numba", name="channels")
def batch_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    out: Array,
    mean: Array,
    var: Array,
) -> None:
    """out = (x - mean_c) / sqrt(var_c + eps) weight_c + bias_c with the moments of a channel."""
    weight = np.ones(x.shape[1], x.dtype) if weight is None else weight
    bias = np.zeros(x.shape[1], x.dtype) if bias is None else bias
    if x.size == 0:
        mean[...], var[...] = np.nan, np.nan
    elif _by_planes(x):
        _planes(x.size, x, weight, bias, eps, out, mean, var)
    else:
        _columns(x.size, x, weight, bias, eps, *_work(x, 3), out, mean, var)


@helper(fastmath=FAST_SUM)
def _gradient_of_channel(
    grad_out: Array,
    x: Array,
    weight: Array,
    mean: Array,
    var: Array,
    eps: float,
    c: int,
    grad_x: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> None:
    dtype = x.dtype.type
    centre = mean[c]
    all_of_it, products = 0.0, 0.0
    for image in range(x.shape[0]):
        for start in range(0, x.shape[2], PIECE):
            end = min(start + PIECE, x.shape[2])
            total, product = dtype(0), dtype(0)
            for j in range(start, end):
                total += grad_out[image, c, j]
                product += grad_out[image, c, j] * minus(x[image, c, j], centre)
            all_of_it += total
            products += product
    scale, slope, shift = _coefficients(x, weight, var, eps, c, all_of_it, products)
    grad_weight[c] = times(products, inverse_root(np.float64(var[c]), 1.0, eps))
    grad_bias[c] = all_of_it
    for image in range(x.shape[0]):
        for j in range(x.shape[2]):
            linear = affine(x[image, c, j], centre, slope, shift)
            grad_x[image, c, j] = affine(grad_out[image, c, j], dtype(0), scale, linear)


@helper
def _coefficients(
    x: Array, weight: Array, var: Array, eps: float, c: int, total: float, product: float
) -> Any:
    """Return scale, slope and shift: grad_x = grad_out scale + (x - mean) slope + shift."""
    dtype = x.dtype.type
    count = x.shape[0] * x.shape[2]
    rstd = 1 / np.sqrt(np.float64(var[c]) + eps)
    scale = weight[c] * rstd
    return (
        dtype(scale),
        dtype(-scale * rstd * rstd * product / count),
        dtype(-scale * total / count),
    )


@parallel(grain=GRAIN)
def _planes_backward(
    grad_out: Array,
    x: Array,
    weight: Array,
    mean: Array,
    var: Array,
    eps: float,
    grad_x: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> None:
    for c in prange(x.shape[1]):
        _gradient_of_channel(
            grad_out, x, weight, mean, var, eps, np.int64(c), grad_x, grad_weight, grad_bias
        )


@helper(fastmath=FAST)
def _add_gradients(grad_out: Array, x: Array, centre: Array, total: Array, product: Array) -> None:
    for j in range(total.size):
        total[j] += grad_out[j]
        product[j] += grad_out[j] * (x[j] - centre[j])


@helper(fastmath=FAST)
def _gradient_row(
    grad_out: Array, x: Array, centre: Array, scale: Array, slope: Array, shift: Array, out: Array
) -> None:
    for j in range(out.size):
        out[j] = grad_out[j] * scale[j] + ((x[j] - centre[j]) * slope[j] + shift[j])


@parallel(grain=GRAIN)
def _columns_backward(
    grad_out: Array,
    x: Array,
    weight: Array,
    mean: Array,
    var: Array,
    eps: float,
    items: int,
    found: Array,
    table: Array,
    grad_x: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> None:
    """Gradients for columns; found: sums (2, parts, columns), table: (4, columns) with the mean."""
    n, channels, length = x.shape
    parts, width = found.shape[1:]
    rows, errors, results = (
        x.reshape(n, width),
        grad_out.reshape(n, width),
        grad_x.reshape(n, width),
    )
    for item in prange(items):
        part, first, last, low, high = _block(rows, item, parts)
        totals, products = found[0, part, low:high], found[1, part, low:high]
        centre = table[0, low:high]
        sums = np.empty((2, high - low), x.dtype)
        totals[:] = 0
        products[:] = 0
        for start in range(first, last, ROWS):
            sums[:] = 0
            for i in range(start, min(start + ROWS, last)):
                _add_gradients(errors[i, low:high], rows[i, low:high], centre, sums[0], sums[1])
            for j in range(high - low):
                totals[j] += sums[0, j]
                products[j] += sums[1, j]
    for channel in prange(channels):
        c = np.int64(channel)
        total, product = 0.0, 0.0
        for p in range(parts):
            for j in range(c * length, (c + 1) * length):
                total += found[0, p, j]
                product += found[1, p, j]
        grad_bias[c] = total
        grad_weight[c] = product / np.sqrt(np.float64(var[c]) + eps)
        scale, slope, shift = _coefficients(x, weight, var, eps, c, total, product)
        for j in range(c * length, (c + 1) * length):
            table[1, j] = scale
            table[2, j] = slope
            table[3, j] = shift
    for i in prange(n):
        _gradient_row(errors[i], rows[i], table[0], table[1], table[2], table[3], results[i])


@kernel("batch_norm_backward", backend="numba", name="channels")
def batch_norm_backward(
    grad_out: Array,
    x: Array,
    weight: Array | None,
    mean: Array,
    var: Array,
    eps: float,
    grad_x: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> None:
    """grad_x = w rstd (dy - mean(dy) - x_hat mean(dy x_hat)); the sums are weight's and bias'."""
    weight = np.ones(x.shape[1], x.dtype) if weight is None else weight
    arrays = (grad_out, x, weight, mean, var, eps)
    if _by_planes(x):
        _planes_backward(x.size, *arrays, grad_x, grad_weight, grad_bias)
    else:
        items, found, table = _work(x, 4)
        table[0] = np.repeat(mean, x.shape[2])
        _columns_backward(x.size, *arrays, items, found, table, grad_x, grad_weight, grad_bias)
