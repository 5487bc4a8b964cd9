"""Batch normalisation: a thread owns whole channels, plane by plane.

Short planes are taken as columns of the matrix (N, C L): threads own blocks of columns, so that
rows are read in order and what belongs to a channel is added up at the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba.jit import FAST, helper, parallel
from trine.kernels.numba.moments import (
    SHORT,
    gradient_sums,
    input_gradient,
    join,
    moments,
    normalise,
    plain_mean,
)
from trine.kernels.registry import kernel

SHARES = 16
"""Few channels are divided among the images, so that there are about so many parts to share."""
COLUMNS = 1024
"""Columns that a thread takes at a time."""
ROWS = 32
"""Rows whose differences are added in the array's own dtype."""
GRAIN = 65536
"""Elements below which starting threads costs more than it saves."""


@helper
def _block_width(length: int) -> int:
    """Return how many columns make a block of whole channels."""
    return max(COLUMNS // length, 1) * length


def _shares(rows: int, columns: int, length: int) -> tuple[int, int]:
    """Return into how many parts of rows and blocks of columns a matrix is cut, by its shape."""
    width = _block_width.py_func(length)
    blocks = -(-columns // width)
    return max(1, min(SHARES // blocks, rows // ROWS)), blocks


def _parts(x: Array) -> int:
    """Return in how many parts the images of a channel are taken, a rule of the shape alone."""
    return max(1, min(x.shape[0], SHARES // x.shape[1])) if x.shape[1] else 1


@helper
def _images(x: Array, part: int, parts: int) -> Any:
    """Return the first and last image of a part."""
    return part * x.shape[0] // parts, (part + 1) * x.shape[0] // parts


@helper
def _channel_mean(x: Array, c: int) -> float:
    total = 0.0
    for image in range(x.shape[0]):
        total += plain_mean(x[image, c])
    return total / x.shape[0]


@helper
def _normalise_images(
    x: Array,
    weight: Array,
    bias: Array,
    eps: float,
    found: Array,
    c: int,
    part: int,
    out: Array,
    mean: Array,
    var: Array,
) -> None:
    """Normalise a channel in a part of the images; found: moments (parts, C, 3)."""
    dtype = x.dtype.type
    parts = found.shape[0]
    all_of_it = (0.0, 0.0, 0.0)
    for p in range(parts):
        all_of_it = join(all_of_it, (found[p, c, 0], found[p, c, 1], found[p, c, 2]))
    count, exact, squares = all_of_it
    centre = dtype(exact)
    scale = dtype(weight[c] / np.sqrt(squares / count + eps))
    shift = bias[c] - dtype(exact - centre) * scale
    if part == 0:
        mean[c] = exact if exact == exact else _channel_mean(x, c)  # noqa: PLR0124
        var[c] = squares / count
    first, last = _images(x, part, parts)
    for image in range(first, last):
        normalise(x[image, c], centre, scale, shift, out[image, c])


@parallel(grain=GRAIN)
def _planes(
    x: Array,
    weight: Array,
    bias: Array,
    eps: float,
    found: Array,
    again: int,
    out: Array,
    mean: Array,
    var: Array,
) -> None:
    """Find the moments; a channel in one part is normalised while it is in the cache."""
    parts, channels = found.shape[:2]
    for item in prange(parts * channels):
        part, c = divmod(np.int64(item), channels)
        result = (0.0, 0.0, 0.0)
        first, last = _images(x, part, parts)
        for image in range(first, last):
            result = join(result, moments(x[image, c]))
        found[part, c, 0], found[part, c, 1], found[part, c, 2] = result
        if again == 0:
            _normalise_images(x, weight, bias, eps, found, c, 0, out, mean, var)
    for item in prange(again):
        part, c = divmod(np.int64(item), channels)
        _normalise_images(x, weight, bias, eps, found, c, part, out, mean, var)


@helper
def _block(x: Array, item: int, length: int, parts: int) -> Any:
    """Return the part, its first and last row and the first and last column of a block."""
    width = _block_width(length)
    part, block = divmod(np.int64(item), (x.shape[1] + width - 1) // width)
    low = block * width
    first, last = part * x.shape[0] // parts, (part + 1) * x.shape[0] // parts
    return part, first, last, low, min(low + width, x.shape[1])


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
def _column_mean(x: Array, low: int, high: int) -> float:
    total = 0.0
    for i in range(x.shape[0]):
        total += plain_mean(x[i, low:high])
    return total / x.shape[0]


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
    blocks: int,
    found: Array,
    table: Array,
    out: Array,
    mean: Array,
    var: Array,
) -> None:
    """Normalise columns of x (N, C length); found: (2, parts, columns), table: (3, columns)."""
    dtype = x.dtype.type
    parts, length = found.shape[1], x.shape[1] // mean.size
    items = parts * blocks
    for item in prange(items):
        part, first, last, low, high = _block(x, item, length, parts)
        own = found[0, part, low:high], found[1, part, low:high]
        _column_moments(x, first, last, low, high, own[0], own[1])
    for item in prange(blocks):
        _, _, _, low, high = _block(x, item, length, parts)
        means, spreads = found[0, 0, low:high], found[1, 0, low:high]
        for p in range(1, parts):
            before, count = p * x.shape[0] // parts, (p + 1) * x.shape[0] // parts
            _join_columns(
                np.float64(before), means, spreads,
                np.float64(count - before), found[0, p, low:high], found[1, p, low:high],
            )  # fmt: skip
        for c in range(low // length, high // length):
            all_of_it = (0.0, 0.0, 0.0)
            for j in range(c * length, (c + 1) * length):
                column = (np.float64(x.shape[0]), found[0, 0, j], found[1, 0, j])
                all_of_it = join(all_of_it, column)
            count, exact, squares = all_of_it
            mean[c] = exact
            var[c] = squares / count
            if exact != exact:  # noqa: PLR0124
                mean[c] = _column_mean(x, c * length, (c + 1) * length)
            factor = dtype(weight[c] / np.sqrt(squares / count + eps))
            rest = bias[c] - dtype(exact - dtype(exact)) * factor
            for j in range(c * length, (c + 1) * length):
                table[0, j] = exact
                table[1, j] = factor
                table[2, j] = rest
    for i in prange(x.shape[0]):
        _normalise_row(x[i], table[0], table[1], table[2], out[i])


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
    n, channels, length = x.shape
    weight = np.ones(channels, x.dtype) if weight is None else weight
    bias = np.zeros(channels, x.dtype) if bias is None else bias
    if x.size == 0:
        mean[...], var[...] = np.nan, np.nan
    elif length < SHORT:
        shape = (n, channels * length)
        parts, blocks = _shares(n, shape[1], length)
        found, table = np.empty((2, parts, shape[1])), np.empty((3, shape[1]), x.dtype)
        _columns(
            x.size, x.reshape(shape), weight, bias, eps, blocks, found, table, out.reshape(shape),
            mean, var,
        )  # fmt: skip
    else:
        parts = _parts(x)
        again = parts * channels if parts > 1 else 0
        found = np.empty((parts, channels, 3))
        _planes(x.size, x, weight, bias, eps, found, again, out, mean, var)


@helper
def _gradient_of_images(
    grad_out: Array,
    x: Array,
    weight: Array,
    mean: Array,
    var: Array,
    eps: float,
    found: Array,
    c: int,
    part: int,
    grad_x: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> None:
    """Fill grad_x of a channel in a part of the images; found: sums (parts, C, 2)."""
    dtype = x.dtype.type
    parts = found.shape[0]
    total, product = 0.0, 0.0
    for p in range(parts):
        total += found[p, c, 0]
        product += found[p, c, 1]
    rstd = 1 / np.sqrt(np.float64(var[c]) + eps)
    count = x.shape[0] * x.shape[2]
    scale = weight[c] * rstd
    slope = dtype(-scale * rstd * rstd * product / count)
    shift = dtype(-scale * total / count)
    if part == 0:
        grad_weight[c] = product * rstd
        grad_bias[c] = total
    first, last = _images(x, part, parts)
    for image in range(first, last):
        input_gradient(
            grad_out[image, c], x[image, c], mean[c], dtype(scale), slope, shift, grad_x[image, c]
        )


@parallel(grain=GRAIN)
def _planes_backward(
    grad_out: Array,
    x: Array,
    weight: Array,
    mean: Array,
    var: Array,
    eps: float,
    found: Array,
    again: int,
    grad_x: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> None:
    parts, channels = found.shape[:2]
    for item in prange(parts * channels):
        part, c = divmod(np.int64(item), channels)
        total, product = 0.0, 0.0
        first, last = _images(x, part, parts)
        for image in range(first, last):
            a, b = gradient_sums(grad_out[image, c], x[image, c], mean[c])
            total += a
            product += b
        found[part, c, 0], found[part, c, 1] = total, product
        if again == 0:
            _gradient_of_images(
                grad_out, x, weight, mean, var, eps, found, c, 0, grad_x, grad_weight, grad_bias
            )
    for item in prange(again):
        part, c = divmod(np.int64(item), channels)
        _gradient_of_images(
            grad_out, x, weight, mean, var, eps, found, c, part, grad_x, grad_weight, grad_bias
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
    blocks: int,
    found: Array,
    table: Array,
    grad_x: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> None:
    """Gradients for columns; found: sums (2, parts, columns), table: (4, columns) with the mean."""
    parts, length = found.shape[1], x.shape[1] // mean.size
    items = parts * blocks
    for item in prange(items):
        part, first, last, low, high = _block(x, item, length, parts)
        totals, products = found[0, part, low:high], found[1, part, low:high]
        centre = table[0, low:high]
        sums = np.empty((2, high - low), x.dtype)
        totals[:] = 0
        products[:] = 0
        for start in range(first, last, ROWS):
            sums[:] = 0
            for i in range(start, min(start + ROWS, last)):
                _add_gradients(grad_out[i, low:high], x[i, low:high], centre, sums[0], sums[1])
            for j in range(high - low):
                totals[j] += sums[0, j]
                products[j] += sums[1, j]
    for item in prange(blocks):
        _, _, _, low, high = _block(x, item, length, parts)
        for c in range(low // length, high // length):
            total, product = 0.0, 0.0
            for p in range(parts):
                for j in range(c * length, (c + 1) * length):
                    total += found[0, p, j]
                    product += found[1, p, j]
            rstd = 1 / np.sqrt(np.float64(var[c]) + eps)
            count = x.shape[0] * length
            grad_bias[c] = total
            grad_weight[c] = product * rstd
            factor = weight[c] * rstd
            for j in range(c * length, (c + 1) * length):
                table[1, j] = factor
                table[2, j] = -factor * rstd * rstd * product / count
                table[3, j] = -factor * total / count
    for i in prange(x.shape[0]):
        _gradient_row(grad_out[i], x[i], table[0], table[1], table[2], table[3], grad_x[i])


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
    n, channels, length = x.shape
    weight = np.ones(channels, x.dtype) if weight is None else weight
    if length < SHORT:
        shape = (n, channels * length)
        parts, blocks = _shares(n, shape[1], length)
        found, table = np.empty((2, parts, shape[1])), np.empty((4, shape[1]), x.dtype)
        table[0] = np.repeat(mean, length)
        _columns_backward(
            x.size, grad_out.reshape(shape), x.reshape(shape), weight, mean, var, eps, blocks,
            found, table, grad_x.reshape(shape), grad_weight, grad_bias,
        )  # fmt: skip
    else:
        parts = _parts(x)
        again = parts * channels if parts > 1 else 0
        found = np.empty((parts, channels, 2))
        _planes_backward(
            x.size,
            grad_out,
            x,
            weight,
            mean,
            var,
            eps,
            found,
            again,
            grad_x,
            grad_weight,
            grad_bias,
        )
