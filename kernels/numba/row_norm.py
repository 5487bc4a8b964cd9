"""Layer and group normalisation: a thread owns whole rows, a row being what is normalised together.

A group of channels is such a row as well, with weights that change from plane to plane; short planes
get a weight for each element instead and go the way of layer norm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numba.core import types
from numba.extending import intrinsic

from trine.dtypes import Array, float64
from trine.kernels.numba.jit import helper, parallel, scratch
from trine.kernels.numba.moments import (
    GRAIN,
    PAIR,
    PIECE,
    add_gradients,
    add_run,
    gradient_line,
    inverse_root,
    line,
    pair_of_sums,
    plain_sum,
    rounded,
)
from trine.kernels.numba.simd import Vectors, address
from trine.kernels.numba.vector_loops import over_run
from trine.kernels.registry import kernel

CHUNKS = 16
"""Parts of the rows whose sums are added in order, whatever the number of threads."""
ROWS = 32
"""Rows whose gradients are added in the array's own dtype."""
SHORT = 16
"""Planes shorter than this are taken many at a time, as parts of longer rows."""


@intrinsic
def _weighted_line(
    typingctx: Any, like: Any, x: Any, centre: Any, scale: Any, shift: Any, weight: Any, bias: Any,
    count: Any, out: Any,
) -> Any:  # fmt: skip
    """out = ((x - centre) scale + shift) weight + bias; the last four but count are addresses."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(builder, signature.args[0])
        _, x, *numbers, weight, bias, count, out = args
        centre, scale, shift = (v.broadcast(value) for value in numbers)

        def body(read: Any, held: Any, clean: Any) -> Any:
            x_hat = v.fma(v.b.fsub(read[0], centre), scale, shift)
            return [v.fma(x_hat, read[1], read[2])], []

        sources = [v.pointer(a) for a in (x, weight, bias)]
        over_run(v, count, sources, [v.pointer(out)], body)
        return context.get_dummy_value()

    return types.void(like, types.int64, like, like, like, *[types.int64] * 4), emit


@intrinsic
def _weighted_sums(
    typingctx: Any, like: Any, grad_out: Any, x: Any, weight: Any, centre: Any, count: Any
) -> Any:
    """Return the sums of g and of g (x - centre), with g = grad_out weight."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(builder, signature.args[0])
        _, grad_out, x, weight, centre, count = args
        centres = v.broadcast(centre)

        def body(read: Any, held: Any, clean: Any) -> Any:
            g, d = v.b.fmul(read[0], read[2]), clean(v.b.fsub(read[1], centres))
            return [], [v.b.fadd(held[0], g), v.fma(g, d, held[1])]

        sources = [v.pointer(a) for a in (grad_out, x, weight)]
        return pair_of_sums(context, v, over_run(v, count, sources, [], body, [v.zero, v.zero]))

    return PAIR(like, *[types.int64] * 3, like, types.int64), emit


@intrinsic
def _weighted_gradient(
    typingctx: Any, like: Any, grad_out: Any, x: Any, weight: Any, centre: Any, rstd: Any,
    average: Any, slope: Any, count: Any, grad_x: Any, sum_g: Any, sum_product: Any,
) -> Any:  # fmt: skip
    """grad_x = (grad_out weight - average - x_hat slope) rstd with x_hat = (x - centre) rstd.

    grad_out and grad_out x_hat are added to two rows of sums. The product with the weight is rounded
    as it was in the average: a row of one element gives zero.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Vectors(builder, signature.args[0])
        _, grad_out, x, weight, *numbers, count, grad_x, sum_g, sum_product = args
        centre, rstd, average, slope = (v.broadcast(value) for value in numbers)

        def body(read: Any, held: Any, clean: Any) -> Any:
            g = read[0]
            x_hat = b.fmul(b.fsub(read[1], centre), rstd)
            rest = b.fsub(b.fsub(b.fmul(g, read[2]), average), b.fmul(x_hat, slope))
            return [b.fmul(rest, rstd), b.fadd(read[3], g), v.fma(g, x_hat, read[4])], []

        sums = [v.pointer(sum_g), v.pointer(sum_product)]
        sources = [v.pointer(a) for a in (grad_out, x, weight)]
        over_run(v, count, [*sources, *sums], [v.pointer(grad_x), *sums], body, unroll=2)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 3, like, like, like, like, *[types.int64] * 4), emit


@helper
def _block_moments(
    x: Array, first: int, last: int, eps: float, exact: Array, spread: Array, mean: Array,
    rstd: Array,
) -> None:  # fmt: skip
    """Fill mean and 1 / deviation of rows first to last, and the exact means of these rows.

    Sums of all rows come first and roots then: so a row need not wait for the one before.
    """
    like, itemsize = x.dtype.type(0), x.itemsize
    size = x.size // mean.size
    for row in range(first, last):
        place = address(x) + row * size * itemsize
        found = add_run(like, itemsize, (0.0, 0.0, 0.0, 0.0), place, size)
        exact[row - first], spread[row - first] = found[3] + found[1], found[2]
    for row in range(first, last):
        rstd[row] = inverse_root(spread[row - first], np.float64(size), eps)
        mean[row] = exact[row - first]
    for row in range(first, last):
        if mean[row] != mean[row]:
            place = address(x) + row * size * itemsize
            mean[row] = plain_sum(like, itemsize, place, size) / size


@helper
def _normalise_rows(
    x: Array, weight: Array, bias: Array, eps: float, first: int, last: int, exact: Array,
    spread: Array, out: Array, mean: Array, rstd: Array,
) -> None:  # fmt: skip
    """Normalise some rows; exact, spread: (rows of a block,)."""
    like, size = x.dtype.type(0), x.shape[1]
    row_bytes = size * x.itemsize
    for start in range(first, last, exact.size):
        end = min(start + exact.size, last)
        _block_moments(x, start, end, eps, exact, spread, mean, rstd)
        for row in range(start, end):
            centre = rounded(like, exact[row - start])
            shift = (centre - exact[row - start]) * rstd[row]
            group, at = row % weight.shape[0] * row_bytes, row * row_bytes
            _weighted_line(
                like, address(x) + at, centre, rstd[row], rounded(like, shift),
                address(weight) + group, address(bias) + group, size, address(out) + at,
            )  # fmt: skip


@helper
def _block_rows(size: int) -> int:
    """Return how many rows of a size are read before they are written."""
    return max(1, min(ROWS, PIECE // size))


@parallel(grain=GRAIN)
def _rows(
    x: Array, weight: Array, bias: Array, eps: float, parts: int, out: Array, mean: Array,
    rstd: Array,
) -> None:  # fmt: skip
    """Normalise x (M, D); row m has weights m modulo groups of weight, bias: (groups, D)."""
    for item in prange(parts):
        first = np.int64(item) * x.shape[0] // parts
        last = (np.int64(item) + 1) * x.shape[0] // parts
        moments = np.empty((2, _block_rows(x.shape[1])))
        _normalise_rows(x, weight, bias, eps, first, last, moments[0], moments[1], out, mean, rstd)


@helper
def _row_sums(grad_out: Array, x: Array, weight: Array, centre: Any, row: int) -> Any:
    """Return the sums of g = grad_out weight and of g (x - centre) over a row."""
    like, size, itemsize = x.dtype.type(0), x.shape[1], x.itemsize
    row_bytes = size * itemsize
    at, group = row * row_bytes, row % weight.shape[0] * row_bytes
    total, product = 0.0, 0.0
    for start in range(0, size, PIECE):
        piece = start * itemsize
        sums = _weighted_sums(
            like, address(grad_out) + at + piece, address(x) + at + piece,
            address(weight) + group + piece, centre, min(PIECE, size - start),
        )  # fmt: skip
        total += sums[0]
        product += sums[1]
    return total, product


@helper
def _gradient_of_rows(
    grad_out: Array, x: Array, weight: Array, mean: Array, rstd: Array, first: int, last: int,
    grad_x: Array, averages: Array, sums: Array,
) -> None:  # fmt: skip
    """Fill grad_x of some rows; add to the sums (2, groups D) of grad_out and grad_out x_hat."""
    like, size, itemsize = x.dtype.type(0), x.shape[1], x.itemsize
    row_bytes, share = size * itemsize, 1.0 / size
    for start in range(first, last, averages.shape[1]):
        end = min(start + averages.shape[1], last)
        for row in range(start, end):
            total, product = _row_sums(grad_out, x, weight, mean[row], row)
            averages[0, row - start] = total * share
            averages[1, row - start] = product * rstd[row] * share
        for row in range(start, end):
            at, group = row * row_bytes, row % weight.shape[0] * row_bytes
            _weighted_gradient(
                like, address(grad_out) + at, address(x) + at, address(weight) + group, mean[row],
                rstd[row], averages[0, row - start], averages[1, row - start], size,
                address(grad_x) + at, address(sums) + group,
                address(sums) + sums.shape[1] * itemsize + group,
            )  # fmt: skip


@helper
def _gradient_of_chunk(
    grad_out: Array, x: Array, weight: Array, mean: Array, rstd: Array, chunk: int, grad_x: Array,
    averages: Array, sums: Array, found: Array,
) -> None:  # fmt: skip
    """Fill grad_x of a chunk of rows and found[:, chunk], the sums over them."""
    chunks, groups = found.shape[1], weight.shape[0]
    found[:, chunk] = 0
    last = (chunk + 1) * x.shape[0] // chunks
    for start in range(chunk * x.shape[0] // chunks, last, ROWS * groups):
        sums[:] = 0
        end = min(start + ROWS * groups, last)
        _gradient_of_rows(grad_out, x, weight, mean, rstd, start, end, grad_x, averages, sums)
        for k in range(2):
            for j in range(sums.shape[1]):
                found[k, chunk, j] += sums[k, j]


@helper
def _add_chunks(found: Array, grad_weight: Array, grad_bias: Array) -> None:
    """Add up found (2, chunks, channels times length) for each channel."""
    for chunk in range(1, found.shape[1]):
        for k in range(2):
            for j in range(found.shape[2]):
                found[k, 0, j] += found[k, chunk, j]
    length = found.shape[2] // grad_bias.size
    for c in range(grad_bias.size):
        total, product = 0.0, 0.0
        for j in range(c * length, (c + 1) * length):
            total += found[0, 0, j]
            product += found[1, 0, j]
        grad_bias[c], grad_weight[c] = total, product


@parallel(grain=GRAIN)
def _rows_backward(
    grad_out: Array, x: Array, weight: Array, mean: Array, rstd: Array, chunks: int, found: Array,
    grad_x: Array, grad_weight: Array, grad_bias: Array,
) -> None:  # fmt: skip
    """Gradients of x (M, D) by chunks of rows; found: (2, chunks, groups D), in float64."""
    for item in prange(chunks):
        sums = np.empty((2, found.shape[2]), x.dtype)
        averages = np.empty((2, _block_rows(x.shape[1])), x.dtype)
        _gradient_of_chunk(
            grad_out, x, weight, mean, rstd, np.int64(item), grad_x, averages, sums, found
        )
    _add_chunks(found, grad_weight, grad_bias)


def _found(chunks: int, width: int) -> Array:
    size = 2 * chunks * width
    return scratch("row_norm", size, float64)[:size].reshape(2, chunks, width)


def _weights(x: Array, weight: Array | None, groups: int, length: int) -> Array:
    """Return a weight for each element of rows that repeat after `groups`: (groups, D)."""
    each = np.ones(x.shape[1], x.dtype) if weight is None else weight
    return np.repeat(each, length).reshape(groups, -1) if length > 1 else each.reshape(groups, -1)


def _biases(x: Array, bias: Array | None, groups: int, length: int) -> Array:
    """Return a bias for each element of rows, as `_weights` does."""
    return _weights(x, np.zeros(x.shape[1], x.dtype) if bias is None else bias, groups, length)


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
    chunks = max(1, min(CHUNKS, x.shape[0]))
    _rows_backward(
        x.size, grad_out, x, _weights(x, weight, 1, 1), mean, rstd, chunks,
        _found(chunks, x.shape[1]), grad_x, grad_weight, grad_bias,
    )  # fmt: skip


@helper
def _normalise_group(
    x: Array, weight: Array, bias: Array, eps: float, row: int, exact: Array, spread: Array,
    out: Array, mean: Array, rstd: Array,
) -> None:  # fmt: skip
    """Normalise a row of x (N groups, channels of a group, L), plane by plane."""
    like, (channels, length) = x.dtype.type(0), x.shape[1:]
    _block_moments(x, row, row + 1, eps, exact, spread, mean, rstd)
    centre = rounded(like, exact[0])
    rest = exact[0] - centre
    first = row % (weight.size // channels) * channels
    for k in range(channels):
        scale = np.float64(rstd[row]) * weight[first + k]
        at = (row * channels + k) * length * x.itemsize
        line(
            like, address(x) + at, centre, rounded(like, scale),
            rounded(like, bias[first + k] - rest * scale), length, address(out) + at,
        )  # fmt: skip


@parallel(grain=GRAIN)
def _groups(
    x: Array, weight: Array, bias: Array, eps: float, out: Array, mean: Array, rstd: Array
) -> None:
    for row in prange(x.shape[0]):
        moments = np.empty((2, 1))
        _normalise_group(
            x, weight, bias, eps, np.int64(row), moments[0], moments[1], out, mean, rstd
        )


@kernel("group_norm", backend="numba", name="rows", replayable=False)
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


@helper
def _gradient_of_group(
    grad_out: Array, x: Array, weight: Array, mean: Array, rstd: Array, row: int, grad_x: Array,
    totals: Array, products: Array,
) -> None:  # fmt: skip
    """Fill grad_x of a row, and the sums of grad_out and grad_out x_hat over each of its planes."""
    like, itemsize, (channels, length) = x.dtype.type(0), x.itemsize, x.shape[1:]
    plane, start = length * itemsize, row * channels * length * itemsize
    errors, source, target = address(grad_out) + start, address(x) + start, address(grad_x) + start
    first = row % (weight.size // channels) * channels
    scale = np.float64(rstd[row])
    total, product = 0.0, 0.0
    for k in range(channels):
        at = k * plane
        sums = add_gradients(
            like, itemsize, (0.0, 0.0), errors + at, source + at, mean[row], length
        )
        totals[k], products[k] = sums[0], sums[1] * scale
        total += weight[first + k] * totals[k]
        product += weight[first + k] * products[k]
    size = channels * length
    slope, shift = -scale * scale * product / size, -scale * total / size
    for k in range(channels):
        at = k * plane
        gradient_line(
            like, errors + at, source + at, mean[row], rounded(like, scale * weight[first + k]),
            rounded(like, slope), rounded(like, shift), length, target + at,
        )  # fmt: skip


@parallel(grain=GRAIN)
def _groups_backward(
    grad_out: Array, x: Array, weight: Array, mean: Array, rstd: Array, chunks: int, found: Array,
    grad_x: Array, grad_weight: Array, grad_bias: Array,
) -> None:  # fmt: skip
    """Gradients of x (N groups, channels of a group, L); found: (2, N, channels)."""
    sums = found.reshape(2, x.shape[0], x.shape[1])
    for item in prange(x.shape[0]):
        row = np.int64(item)
        _gradient_of_group(grad_out, x, weight, mean, rstd, row, grad_x, sums[0, row], sums[1, row])
    _add_chunks(found, grad_weight, grad_bias)


@kernel("group_norm_backward", backend="numba", name="rows", replayable=False)
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
    if n == 0:
        grad_weight[...], grad_bias[...] = 0, 0
        return
    if length < SHORT:
        shape: tuple[int, ...] = (rows, each * length)
        run, weights = _rows_backward, _weights(x, weight, groups, length)
        chunks, width = min(CHUNKS, n), channels * length
    else:
        shape = (rows, each, length)
        run, weights = _groups_backward, _weights(x, weight, 1, 1)[0]
        chunks, width = n, channels
    run(
        x.size, grad_out.reshape(shape), x.reshape(shape), weights, mean.reshape(rows),
        rstd.reshape(rows), chunks, _found(chunks, width), grad_x.reshape(shape), grad_weight,
        grad_bias,
    )  # fmt: skip
