"""Means, spreads and gradients of normalised vectors: what batch, layer and group norm share.

A vector is taken in pieces that stay in the first cache. Each is read twice, its mean first, so that
a mean far from zero costs no digits; what is known of pieces is joined in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trine.dtypes import Array
from trine.kernels.numba.jit import FAST, FAST_SUM, helper

PIECE = 2048
"""Elements of a piece: two arrays of them fill half of a first cache."""
GRAIN = 65536
"""Elements below which starting threads costs more than it saves."""
SHORT = 16
"""Planes shorter than this are taken many at a time, as parts of longer rows."""


@helper
def minus(a: Any, b: Any) -> Any:
    """Return a - b; in a function of its own no sum can be reordered around the difference."""
    return a - b


@helper
def times(a: Any, b: Any) -> Any:
    """Return a b, rounded: it is not contracted with a sum around it."""
    return a * b


# Functions whose sums may be reordered hold nothing else: what stands beside a sum could be merged
# with it, differently in serial and in parallel code. Arithmetic of single numbers is in helpers.


@helper
def centre_of(x: Array, pivot: Any, total: Any, count: int) -> Any:
    """Return the rounded mean of numbers whose differences from a pivot add up to a total."""
    return pivot + x.dtype.type(total / np.float64(count))


@helper
def inverse_root(spread: float, count: float, eps: float) -> Any:
    """Return 1 / sqrt(var + eps), the variance being the sum of squares over the count."""
    return 1 / np.sqrt(spread / count + eps)


@helper(fastmath=FAST_SUM)
def _sum_from(x: Array, pivot: Any) -> Any:
    result = x.dtype.type(0)
    for j in range(x.size):
        result += minus(x[j], pivot)
    return result


@helper(fastmath=FAST_SUM)
def _spread(x: Array, centre: Any) -> Any:
    """Return the sums of x - centre and of its squares."""
    total = x.dtype.type(0)
    squares = x.dtype.type(0)
    for j in range(x.size):
        d = minus(x[j], centre)
        total += d
        squares += d * d
    return total, squares


@helper
def piece_moments(count: int, centre: Any, total: Any, squares: Any) -> Any:
    """Turn the sums of n differences from a centre, and of their squares, into moments."""
    n = np.float64(count)
    rest = np.float64(total) / n  # what rounding left between the centre and the mean
    return n, centre + rest, np.float64(squares) - rest * rest * n


@helper
def join(a: Any, b: Any) -> Any:
    """Join two (count, mean, sum of squares from the mean), by Chan, Golub and LeVeque."""
    count = a[0] + b[0]
    if a[0] == 0 or b[0] == 0:
        return b if a[0] == 0 else a
    delta = b[1] - a[1]
    mean = a[1] + delta * (b[0] / count)
    return count, mean, a[2] + b[2] + delta * delta * (a[0] * b[0] / count)


@helper
def moments(x: Array) -> Any:
    """Return (count, mean, sum of squares from the mean) of a vector, in float64."""
    result = (0.0, 0.0, 0.0)
    start = 0
    while start < x.size:
        piece = x[start : start + PIECE]
        start += PIECE
        centre = centre_of(x, piece[0], _sum_from(piece, piece[0]), piece.size)
        total, squares = _spread(piece, centre)
        result = join(result, piece_moments(piece.size, centre, total, squares))
    return result


@helper
def plain_mean(x: Array) -> Any:
    """Return the mean as the sum over the count, which keeps Inf where differences give NaN."""
    total = 0.0
    for j in range(x.size):
        total += x[j]
    return total / x.size


@helper(fastmath=FAST)
def affine(x: Any, centre: Any, scale: Any, shift: Any) -> Any:
    """Return (x - centre) scale + shift; where sums may be reordered, centres would be added up."""
    return (x - centre) * scale + shift


@helper(fastmath=FAST)
def normalise(x: Array, centre: Any, scale: Any, shift: Any, out: Array) -> None:
    """out = (x - centre) scale + shift for vectors."""
    for j in range(out.size):
        out[j] = affine(x[j], centre, scale, shift)


@helper(fastmath=FAST_SUM)
def _piece_sums(grad_out: Array, x: Array, centre: Any) -> Any:
    total = x.dtype.type(0)
    product = x.dtype.type(0)
    for j in range(x.size):
        total += grad_out[j]
        product += grad_out[j] * minus(x[j], centre)
    return total, product


@helper
def gradient_sums(grad_out: Array, x: Array, centre: Any) -> Any:
    """Return the sums of grad_out and of grad_out (x - centre), in float64."""
    total = 0.0
    product = 0.0
    start = 0
    while start < x.size:
        end = start + PIECE
        a, b = _piece_sums(grad_out[start:end], x[start:end], centre)
        total += a
        product += b
        start = end
    return total, product


@helper(fastmath=FAST)
def input_gradient(
    grad_out: Array, x: Array, centre: Any, scale: Any, slope: Any, shift: Any, grad_x: Array
) -> None:
    """grad_x = grad_out scale + (x - centre) slope + shift for vectors."""
    for j in range(grad_x.size):
        grad_x[j] = grad_out[j] * scale + affine(x[j], centre, slope, shift)
