"""Batch normalisation: a thread owns whole channels, which stay in its cache, plane by plane.

Inputs (N, C) without further axes are matrices whose columns get their moments; a thread then owns
a strip of neighbouring columns, and where there are few of these a part of its rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from trine.dtypes import Array, float64
from trine.kernels.numba.jit import FAST, helper, parallel, scratch
from trine.kernels.numba.moments import (
    GRAIN,
    add_gradients,
    add_run,
    gradient_line,
    inverse_root,
    line,
    plain_sum,
    rounded,
)
from trine.kernels.numba.simd import VECTOR_BYTES, address
from trine.kernels.numba.strips import (
    VECTORS,
    strip_gradient_lines,
    strip_gradient_sums,
    strip_lines,
    strip_sums,
    strip_width,
)
from trine.kernels.registry import kernel

SHARES = 16
"""Parts of rows by strips of columns that threads can share."""
ROWS = 128
"""Rows whose differences are added in the array's own dtype."""
LEAD_ROWS = 16
"""Rows whose mean the first differences are taken from."""


# --- planes -------------------------------------------------------------------------------------


@helper
def _normalise_channel(
    x: Array, weight: Array, bias: Array, eps: float, is_given: bool, c: int, out: Array,
    mean: Array, var: Array,
) -> None:  # fmt: skip
    """Normalise one channel of x (N, C, L); the last planes read are the first to be written."""
    like, itemsize = x.dtype.type(0), x.itemsize
    images, channels, length = x.shape
    step, start = channels * length * itemsize, c * length * itemsize
    source, target = address(x) + start, address(out) + start
    if not is_given:
        found = (0.0, 0.0, 0.0, 0.0)
        for image in range(images):
            found = add_run(like, itemsize, found, source + image * step, length)
        count, offset, spread, origin = found
        mean[c], var[c] = origin + offset, spread / count
    centre = mean[c]
    shift = np.float64(bias[c])
    scale = weight[c] * inverse_root(np.float64(var[c]), 1.0, eps)
    if not is_given:
        scale = weight[c] * inverse_root(spread, count, eps)
        shift -= (offset - (centre - origin)) * scale
        if offset != offset:  # noqa: PLR0124
            total = 0.0
            for image in range(images):
                total += plain_sum(like, itemsize, source + image * step, length)
            mean[c] = total / count
    for image in range(images - 1, -1, -1):
        at = image * step
        line(
            like, source + at, centre, rounded(like, scale), rounded(like, shift), length,
            target + at,
        )  # fmt: skip


@parallel(grain=GRAIN)
def _planes(
    x: Array, weight: Array, bias: Array, eps: float, is_given: bool, out: Array, mean: Array,
    var: Array,
) -> None:  # fmt: skip
    for c in prange(x.shape[1]):
        _normalise_channel(x, weight, bias, eps, is_given, np.int64(c), out, mean, var)


@helper
def _coefficients(
    weight: float, var: float, eps: float, count: int, total: float, product: float
) -> Any:
    """Return scale, slope and shift: grad_x = grad_out scale + (x - mean) slope + shift."""
    rstd = inverse_root(var, 1.0, eps)
    scale = weight * rstd
    return scale, -scale * rstd * rstd * product / count, -scale * total / count


@helper
def _gradient_of_channel(
    grad_out: Array, x: Array, weight: Array, mean: Array, var: Array, eps: float,
    is_given: bool, c: int, grad_x: Array, grad_weight: Array, grad_bias: Array,
) -> None:  # fmt: skip
    like, itemsize = x.dtype.type(0), x.itemsize
    images, channels, length = x.shape
    step, start = channels * length * itemsize, c * length * itemsize
    source, errors, target = address(x) + start, address(grad_out) + start, address(grad_x) + start
    sums = (0.0, 0.0)
    for image in range(images):
        at = image * step
        sums = add_gradients(like, itemsize, sums, errors + at, source + at, mean[c], length)
    variance = np.float64(var[c])
    grad_weight[c] = sums[1] * inverse_root(variance, 1.0, eps)
    grad_bias[c] = sums[0]
    scale, slope, shift = _coefficients(
        np.float64(weight[c]), variance, eps, images * length, sums[0], sums[1]
    )
    factor, none = rounded(like, scale), rounded(like, 0.0)
    for image in range(images - 1, -1, -1):
        at = image * step
        if is_given:
            line(like, errors + at, none, factor, none, length, target + at)
        else:
            gradient_line(
                like, errors + at, source + at, mean[c], factor, rounded(like, slope),
                rounded(like, shift), length, target + at,
            )  # fmt: skip


@parallel(grain=GRAIN)
def _planes_backward(
    grad_out: Array, x: Array, weight: Array, mean: Array, var: Array, eps: float,
    is_given: bool, grad_x: Array, grad_weight: Array, grad_bias: Array,
) -> None:  # fmt: skip
    for c in prange(x.shape[1]):
        _gradient_of_channel(
            grad_out, x, weight, mean, var, eps, is_given, np.int64(c), grad_x, grad_weight,
            grad_bias,
        )  # fmt: skip


# --- columns ------------------------------------------------------------------------------------


@helper
def _block(item: int, parts: int, x: Array) -> Any:
    """Return first and last row of a block, and the first column and the columns of its strip."""
    part, strip = item % parts, item // parts
    low = strip * strip_width(x.itemsize)
    columns = min(strip_width(x.itemsize), x.shape[1] - low)
    return part * x.shape[0] // parts, (part + 1) * x.shape[0] // parts, low, columns


@helper(fastmath=FAST)
def _join_columns(count: float, moments: Array, n: float, more: Array) -> None:
    """Join to the moments (means, sums of squares from them) of `count` rows those of n more."""
    share = n / (count + n)
    for j in range(moments.shape[1]):
        delta = more[0, j] - moments[0, j]
        moments[0, j] += delta * share
        moments[1, j] += more[1, j] + delta * delta * (count * share)


@helper(fastmath=FAST)
def _take_moments(n: float, table: Array, moments: Array) -> None:
    """Turn sums of differences from a centre, and of their squares, into moments."""
    for j in range(moments.shape[1]):
        rest = table[1, j] / n
        moments[0, j] = table[0, j] + rest
        moments[1, j] = table[2, j] - rest * table[1, j]


@helper
def _clear(table: Array) -> None:
    """Set a matrix to 0; in a loop, since Numba takes long to compile assignments of slices."""
    for i in range(table.shape[0]):
        for j in range(table.shape[1]):
            table[i, j] = 0


@helper
def _set_centres(table: Array, moments: Array) -> None:
    """Make means the centres that differences are taken from."""
    for j in range(table.shape[1]):
        table[0, j] = moments[0, j]


@helper
def _block_moments(
    x: Array, item: int, parts: int, table: Array, more: Array, moments: Array
) -> None:
    """Fill the moments (2, width) of the columns of a block."""
    like, itemsize, step = x.dtype.type(0), x.itemsize, x.shape[1]
    first, last, low, columns = _block(item, parts, x)
    _clear(moments)
    _clear(table)
    lead = min(last - first, LEAD_ROWS)
    place = address(x) + (first * step + low) * itemsize
    strip_sums(like, place, step, lead, columns, address(table))
    _take_moments(np.float64(lead), table, more)
    _set_centres(table, more)
    for start in range(first, last, ROWS):
        rows = min(ROWS, last - start)
        place = address(x) + (start * step + low) * itemsize
        strip_sums(like, place, step, rows, columns, address(table))
        _take_moments(np.float64(rows), table, more)
        _join_columns(np.float64(start - first), moments, np.float64(rows), more)
        _set_centres(table, moments)


@helper
def _plain_mean(x: Array, c: int) -> Any:
    """Return the mean of a column, which may be Inf where differences from it are NaN."""
    total = 0.0
    for i in range(x.shape[0]):
        total += x[i, c]
    return total / x.shape[0]


@helper
def _normalise_block(
    x: Array, weight: Array, bias: Array, eps: float, is_given: bool, item: int, found: Array,
    table: Array, moments: Array, out: Array, mean: Array, var: Array,
) -> None:  # fmt: skip
    """Normalise a block by what was found (strips, parts, 2, width) for the parts of its columns."""
    n, parts = np.float64(x.shape[0]), found.shape[1]
    first, last, low, columns = _block(item, parts, x)
    if not is_given:
        _clear(moments)
        for part in range(parts):
            before = part * x.shape[0] // parts
            rows = (part + 1) * x.shape[0] // parts - before
            _join_columns(np.float64(before), moments, np.float64(rows), found[item // parts, part])
    for j in range(columns):
        c = low + j
        exact, spread, count = np.float64(mean[c]), np.float64(var[c]), 1.0
        if not is_given:
            exact, spread, count = moments[0, j], moments[1, j], n
        scale = weight[c] * inverse_root(spread, count, eps)
        table[0, j] = exact
        table[1, j] = scale
        table[2, j] = bias[c] - (exact - table[0, j]) * scale
        if not is_given and first == 0:
            mean[c] = exact if exact == exact else _plain_mean(x, c)  # noqa: PLR0124
            var[c] = spread / n
    at = (first * x.shape[1] + low) * x.itemsize
    strip_lines(
        x.dtype.type(0), address(x) + at, x.shape[1], last - first, columns, address(table),
        address(out) + at,
    )  # fmt: skip


@parallel(grain=GRAIN)
def _columns(
    x: Array, weight: Array, bias: Array, eps: float, is_given: bool, items: int, found: Array,
    out: Array, mean: Array, var: Array,
) -> None:  # fmt: skip
    """Normalise the columns of x (N, C) by blocks."""
    parts, width = found.shape[1], found.shape[3]
    if not is_given:
        for block in prange(items):
            item = np.int64(block)
            _block_moments(
                x, item, parts, np.empty((3, width), x.dtype), np.empty((2, width)),
                found[item // parts, item % parts],
            )  # fmt: skip
    for block in prange(items):
        _normalise_block(
            x, weight, bias, eps, is_given, np.int64(block), found,
            np.empty((3, width), x.dtype), np.empty((2, width)), out, mean, var,
        )  # fmt: skip


@helper
def _block_gradients(
    grad_out: Array, x: Array, mean: Array, item: int, parts: int, table: Array, sums: Array
) -> None:
    """Fill the sums (2, width) of grad_out and grad_out (x - mean) down the columns of a block."""
    step = x.shape[1]
    first, last, low, columns = _block(item, parts, x)
    _clear(sums)
    _clear(table)
    for j in range(columns):
        table[0, j] = mean[low + j]
    for start in range(first, last, ROWS):
        at = (start * step + low) * x.itemsize
        strip_gradient_sums(
            x.dtype.type(0), address(grad_out) + at, address(x) + at, step,
            min(ROWS, last - start), columns, address(table),
        )  # fmt: skip
        for j in range(columns):
            sums[0, j] += table[1, j]
            sums[1, j] += table[2, j]


@helper
def _gradient_of_block(
    grad_out: Array, x: Array, weight: Array, mean: Array, var: Array, eps: float,
    is_given: bool, item: int, found: Array, table: Array, grad_x: Array, grad_weight: Array,
    grad_bias: Array,
) -> None:  # fmt: skip
    parts = found.shape[1]
    first, last, low, columns = _block(item, parts, x)
    for j in range(columns):
        c = low + j
        total, product = 0.0, 0.0
        for part in range(parts):
            total += found[item // parts, part, 0, j]
            product += found[item // parts, part, 1, j]
        variance = np.float64(var[c])
        scale, slope, shift = _coefficients(
            np.float64(weight[c]), variance, eps, x.shape[0], total, product
        )
        if first == 0:
            grad_weight[c] = product * inverse_root(variance, 1.0, eps)
            grad_bias[c] = total
        if is_given:
            table[0, j] = 0
            table[1, j] = scale
            table[2, j] = 0
        else:
            table[0, j] = scale
            table[1, j] = mean[c]
            table[2, j] = slope
            table[3, j] = shift
    at, step, like = (first * x.shape[1] + low) * x.itemsize, x.shape[1], x.dtype.type(0)
    errors, target = address(grad_out) + at, address(grad_x) + at
    if is_given:
        strip_lines(like, errors, step, last - first, columns, address(table), target)
    else:
        strip_gradient_lines(
            like, errors, address(x) + at, step, last - first, columns, address(table), target
        )


@parallel(grain=GRAIN)
def _columns_backward(
    grad_out: Array, x: Array, weight: Array, mean: Array, var: Array, eps: float,
    is_given: bool, items: int, found: Array, grad_x: Array, grad_weight: Array, grad_bias: Array,
) -> None:  # fmt: skip
    parts, width = found.shape[1], found.shape[3]
    for block in prange(items):
        item = np.int64(block)
        _block_gradients(
            grad_out, x, mean, item, parts, np.empty((3, width), x.dtype),
            found[item // parts, item % parts],
        )  # fmt: skip
    for block in prange(items):
        _gradient_of_block(
            grad_out, x, weight, mean, var, eps, is_given, np.int64(block), found,
            np.empty((4, width), x.dtype), grad_x, grad_weight, grad_bias,
        )  # fmt: skip


# --- the kernels --------------------------------------------------------------------------------


def _blocks(x: Array) -> tuple[int, Array]:
    """Return how many blocks a matrix has, and room for two sums for each column of each.

    It is a rule of the shape alone, so that sums do not depend on the number of threads.
    """
    n, channels = x.shape[:2]
    width = VECTORS * VECTOR_BYTES // x.itemsize
    strips = -(-channels // width)
    parts = max(1, min(SHARES // strips, n // ROWS))
    size = strips * parts * 2 * width
    found = scratch("batch_norm", size, float64)[:size].reshape(strips, parts, 2, width)
    return strips * parts, found


def _forward(
    x: Array, weight: Array | None, bias: Array | None, eps: float, is_given: bool, out: Array,
    mean: Array, var: Array,
) -> None:  # fmt: skip
    n, channels, length = x.shape
    weight = np.ones(channels, x.dtype) if weight is None else weight
    bias = np.zeros(channels, x.dtype) if bias is None else bias
    if x.size == 0:
        if not is_given:
            mean[...], var[...] = np.nan, np.nan
    elif length > 1:
        _planes(x.size, x, weight, bias, eps, is_given, out, mean, var)
    else:
        matrix = (n, channels)
        _columns(
            x.size, x.reshape(matrix), weight, bias, eps, is_given, *_blocks(x),
            out.reshape(matrix), mean, var,
        )  # fmt: skip


def _backward(
    grad_out: Array, x: Array, weight: Array | None, mean: Array, var: Array, eps: float,
    is_given: bool, grad_x: Array, grad_weight: Array, grad_bias: Array,
) -> None:  # fmt: skip
    n, channels, length = x.shape
    weight = np.ones(channels, x.dtype) if weight is None else weight
    if x.size == 0:
        grad_weight[...], grad_bias[...] = 0, 0
    elif length > 1:
        _planes_backward(
            x.size, grad_out, x, weight, mean, var, eps, is_given, grad_x, grad_weight, grad_bias
        )
    else:
        matrix = (n, channels)
        _columns_backward(
            x.size, grad_out.reshape(matrix), x.reshape(matrix), weight, mean, var, eps, is_given,
            *_blocks(x), grad_x.reshape(matrix), grad_weight, grad_bias,
        )  # fmt: skip


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
    _forward(x, weight, bias, eps, False, out, mean, var)


@kernel("batch_norm_eval", backend="numba", name="channels")
def batch_norm_eval(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    mean: Array,
    var: Array,
    eps: float,
    out: Array,
) -> None:
    """out = (x - mean_c) / sqrt(var_c + eps) weight_c + bias_c with moments that are given."""
    _forward(x, weight, bias, eps, True, out, mean, var)


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
    _backward(grad_out, x, weight, mean, var, eps, False, grad_x, grad_weight, grad_bias)


@kernel("batch_norm_eval_backward", backend="numba", name="channels")
def batch_norm_eval_backward(
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
    """grad_x = w rstd dy, since the moments are constants; sums for weight and bias as above."""
    _backward(grad_out, x, weight, mean, var, eps, True, grad_x, grad_weight, grad_bias)
