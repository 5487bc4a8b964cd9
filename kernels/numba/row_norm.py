"""Layer and group normalisation: a thread owns whole rows, a row being what is normalised together.

A group of channels is such a row as well, with weights that change from plane to plane; short planes
get a weight for each element instead and go the way of layer norm.
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
    SHORT,
    affine,
    centre_of,
    gradient_sums,
    input_gradient,
    inverse_root,
    minus,
    moments,
    normalise,
    piece_moments,
    plain_mean,
    times,
)
from trine.kernels.registry import kernel

CHUNKS = 16
"""Parts of the rows whose sums are added in order, whatever the number of threads."""
ROWS = 32
"""Rows whose gradients are added in the array's own dtype."""


@helper
def _row_moments(x: Array, eps: float, mean: Array, rstd: Array, row: int) -> Any:
    """Fill the mean and 1 / deviation of a row; return a centre and what it is beside the mean."""
    count, exact, squares = moments(x)
    mean[row] = exact if exact == exact else plain_mean(x)  # noqa: PLR0124
    rstd[row] = inverse_root(squares, count, eps)
    centre = x.dtype.type(exact)
    return centre, x.dtype.type(exact - centre)


@helper(fastmath=FAST_SUM)
def _normalise_rows(
    x: Array,
    weight: Array,
    bias: Array,
    eps: float,
    first: int,
    last: int,
    out: Array,
    mean: Array,
    rstd: Array,
) -> None:
    """Normalise some rows; loops stand here, not in helpers, since a call costs as much as 50 numbers."""
    dtype = x.dtype.type
    size = x.shape[1]
    for row in range(first, last):
        group = row % weight.shape[0]
        if size > PIECE:
            centre, rest = _row_moments(x[row], eps, mean, rstd, row)
        else:
            pivot = x[row, 0]
            total, squares = dtype(0), dtype(0)
            for j in range(size):
                total += minus(x[row, j], pivot)
            centre = centre_of(x, pivot, total, size)
            total = dtype(0)
            for j in range(size):
                d = minus(x[row, j], centre)
                total += d
                squares += d * d
            _, exact, spread = piece_moments(size, centre, total, squares)
            mean[row] = exact if exact == exact else plain_mean(x[row])  # noqa: PLR0124
            rstd[row] = inverse_root(spread, size, eps)
            rest = dtype(minus(exact, centre))
        scale = rstd[row]
        offset = times(-rest, scale)
        for j in range(size):
            x_hat = affine(x[row, j], centre, scale, offset)
            out[row, j] = affine(x_hat, dtype(0), weight[group, j], bias[group, j])


@parallel(grain=GRAIN)
def _rows(
    x: Array,
    weight: Array,
    bias: Array,
    eps: float,
    parts: int,
    out: Array,
    mean: Array,
    rstd: Array,
) -> None:
    """Normalise x (M, D); row m has weights m modulo groups of weight, bias: (groups, D)."""
    for item in prange(parts):
        first = np.int64(item) * x.shape[0] // parts
        last = (np.int64(item) + 1) * x.shape[0] // parts
        _normalise_rows(x, weight, bias, eps, first, last, out, mean, rstd)


@helper
def _averages(x: Array, total: Any, product: Any, scale: Any) -> Any:
    """Return the means of g and of g x_hat over a row, from the sums of g and of g (x - mean)."""
    size = np.float64(x.shape[1])
    return x.dtype.type(total / size), x.dtype.type(product * np.float64(scale) / size)


@helper(fastmath=FAST)
def _gradient(g: Any, x_hat: Any, average: Any, slope: Any, scale: Any) -> Any:
    return ((g - average) - x_hat * slope) * scale


@helper(fastmath=FAST_SUM)
def _gradient_of_rows(
    grad_out: Array,
    x: Array,
    weight: Array,
    mean: Array,
    rstd: Array,
    first: int,
    last: int,
    grad_x: Array,
    sums: Array,
) -> None:
    """Fill grad_x of some rows; add to the sums (2, groups, D) of grad_out and of grad_out x_hat.

    The mean is taken from a product rounded as it was in the sum: a row of one element gives zero.
    """
    dtype = x.dtype.type
    size = x.shape[1]
    for row in range(first, last):
        group = row % weight.shape[0]
        centre, scale = mean[row], rstd[row]
        total, product = dtype(0), dtype(0)
        for j in range(size):
            g = times(grad_out[row, j], weight[group, j])
            total += g
            product += g * minus(x[row, j], centre)
        average, slope = _averages(x, total, product, scale)
        for j in range(size):
            x_hat = affine(x[row, j], centre, scale, dtype(0))
            g = grad_out[row, j]
            grad_x[row, j] = _gradient(times(g, weight[group, j]), x_hat, average, slope, scale)
            sums[0, group, j] += g
            sums[1, group, j] += g * x_hat


@parallel(grain=GRAIN)
def _rows_backward(
    grad_out: Array,
    x: Array,
    weight: Array,
    mean: Array,
    rstd: Array,
    grad_x: Array,
    found: Array,
) -> None:
    """Fill grad_x (M, D) and the sums over rows: found (2, chunks, groups, D), in float64."""
    chunks, groups, size = found.shape[1:]
    for item in prange(chunks):
        chunk = np.int64(item)
        own = np.empty((2, groups, size), x.dtype)
        found[:, chunk] = 0
        last = (chunk + 1) * x.shape[0] // chunks
        for start in range(chunk * x.shape[0] // chunks, last, ROWS * groups):
            end = min(start + ROWS * groups, last)
            own[:] = 0
            _gradient_of_rows(grad_out, x, weight, mean, rstd, start, end, grad_x, own)
            for k in range(2):
                for group in range(groups):
                    for j in range(size):
                        found[k, chunk, group, j] += own[k, group, j]


@kernel("layer_norm", backend="numba", name="rows")
def layer_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    out: Array,
    mean: Array,
    rstd: Array,
) -> None:
    """out = (x - mean_m) rstd_m weight + bias over each row, rstd = 1 / sqrt(var + eps)."""
    weight, bias = _weights(x, weight, 1, 1), _biases(x, bias, 1, 1)
    _rows(x.size, x, weight, bias, eps, min(x.shape[0], CHUNKS), out, mean, rstd)


@kernel("layer_norm_backward", backend="numba", name="rows")
def layer_norm_backward(
    grad_out: Array,
    x: Array,
    weight: Array | None,
    mean: Array,
    rstd: Array,
    grad_x: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> None:
    """grad_x = rstd (g - mean(g) - x_hat mean(g x_hat)) with g = w dy; sums for weight and bias."""
    found = np.empty((2, max(1, min(CHUNKS, x.shape[0])), 1, x.shape[1]))
    _rows_backward(x.size, grad_out, x, _weights(x, weight, 1, 1), mean, rstd, grad_x, found)
    sums = found.sum(axis=1)
    grad_bias[...], grad_weight[...] = sums[0, 0], sums[1, 0]


def _weights(x: Array, weight: Array | None, groups: int, length: int) -> Array:
    """Return a weight for each element of rows that repeat after `groups`: (groups, D)."""
    each = np.ones(x.shape[1], x.dtype) if weight is None else weight
    return np.repeat(each, length).reshape(groups, -1) if length > 1 else each.reshape(groups, -1)


def _biases(x: Array, bias: Array | None, groups: int, length: int) -> Array:
    """Return a bias for each element of rows, as `_weights` does."""
    return _weights(x, np.zeros(x.shape[1], x.dtype) if bias is None else bias, groups, length)


@parallel(grain=GRAIN)
def _groups(
    x: Array, weight: Array, bias: Array, eps: float, out: Array, mean: Array, rstd: Array
) -> None:
    """Normalise x (N groups, channels of a group, L) by rows, plane by plane."""
    dtype = x.dtype.type
    channels, length = x.shape[1:]
    groups = weight.size // channels
    for item in prange(x.shape[0]):
        row = np.int64(item)
        whole = x[row].reshape(channels * length)
        centre, rest = _row_moments(whole, eps, mean, rstd, row)
        for k in range(channels):
            c = row % groups * channels + k
            scale = dtype(rstd[row] * weight[c])
            normalise(x[row, k], centre, scale, bias[c] - rest * scale, out[row, k])


@kernel("group_norm", backend="numba", name="rows")
def group_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    groups: int,
    eps: float,
    out: Array,
    mean: Array,
    rstd: Array,
) -> None:
    """out = (x - mean_ng) rstd_ng weight_c + bias_c over each group of channels."""
    n, channels, length = x.shape
    rows = n * groups
    if length < SHORT:
        shape: tuple[int, ...] = (rows, channels // groups * length)
        weights = _weights(x, weight, groups, length), _biases(x, bias, groups, length)
        _rows(
            x.size, x.reshape(shape), *weights, eps, min(rows, CHUNKS), out.reshape(shape),
            mean.reshape(rows), rstd.reshape(rows),
        )  # fmt: skip
    else:
        shape = (rows, channels // groups, length)
        weights = _weights(x, weight, 1, 1)[0], _biases(x, bias, 1, 1)[0]
        _groups(
            x.size, x.reshape(shape), *weights, eps, out.reshape(shape), mean.reshape(rows),
            rstd.reshape(rows),
        )  # fmt: skip


@parallel(grain=GRAIN)
def _groups_backward(
    grad_out: Array,
    x: Array,
    weight: Array,
    mean: Array,
    rstd: Array,
    grad_x: Array,
    found: Array,
) -> None:
    """Fill grad_x and the sums over each plane: found (2, N groups, channels of a group)."""
    dtype = x.dtype.type
    channels, length = x.shape[1:]
    groups = weight.size // channels
    size = channels * length
    for item in prange(x.shape[0]):
        row = np.int64(item)
        first = row % groups * channels
        scale = np.float64(rstd[row])
        total, product = 0.0, 0.0
        for k in range(channels):
            a, b = gradient_sums(grad_out[row, k], x[row, k], mean[row])
            found[0, row, k] = a
            found[1, row, k] = b * scale
            total += weight[first + k] * a
            product += weight[first + k] * b * scale
        slope = dtype(-scale * scale * product / size)
        shift = dtype(-scale * total / size)
        for k in range(channels):
            input_gradient(
                grad_out[row, k], x[row, k], mean[row], dtype(scale * weight[first + k]), slope,
                shift, grad_x[row, k],
            )  # fmt: skip


@kernel("group_norm_backward", backend="numba", name="rows")
def group_norm_backward(
    grad_out: Array,
    x: Array,
    weight: Array | None,
    mean: Array,
    rstd: Array,
    groups: int,
    grad_x: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> None:
    """grad_x as in layer norm, over each group; sums over examples and positions."""
    n, channels, length = x.shape
    rows, each = n * groups, channels // groups
    if length < SHORT:
        shape: tuple[int, ...] = (rows, each * length)
        run, weights = _rows_backward, _weights(x, weight, groups, length)
        found = np.empty((2, max(1, min(CHUNKS, n)), groups, each * length))
    else:
        shape = (rows, each, length)
        run, weights = _groups_backward, _weights(x, weight, 1, 1)[0]
        found = np.empty((2, rows, each))
    run(
        x.size, grad_out.reshape(shape), x.reshape(shape), weights, mean.reshape(rows),
        rstd.reshape(rows), grad_x.reshape(shape), found,
    )  # fmt: skip
    sums = found.reshape(2, -1, channels, length if length < SHORT else 1).sum(axis=(1, 3))
    grad_bias[...], grad_weight[...] = sums[0], sums[1]
