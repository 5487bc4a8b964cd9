"""Means, spreads and gradients of normalised runs: what batch, layer and group norm share.

A run is taken in pieces that stay in the first cache. Differences are taken from the mean of what
came before, in the first piece from that of its beginning: so a mean far from zero costs no digits,
and long runs are read once. What is known of pieces is joined in float64. Runs are given by their
address and their number of elements.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from trine.kernels.numba.jit import helper
from trine.kernels.numba.simd import Vectors
from trine.kernels.numba.vector_loops import across, over_run

PIECE = 2048
"""Elements of a piece: two arrays of them fill half of a first cache."""
GRAIN = 65536
"""Elements below which starting threads costs more than it saves."""
LEAD = 64
"""Elements at the beginning whose mean the first differences are taken from.

The square of its distance from the piece's mean is at most PIECE / LEAD variances: that bounds the
digits lost, whatever the numbers are.
"""

PAIR = types.UniTuple(types.float64, 2)


def pair_of_sums(context: Any, v: Vectors, sums: list[Any]) -> Any:
    """Return the sums over the lanes of two vectors, in float64."""
    totals = [across(v, s) for s in sums]
    if v.itemsize == 4:
        totals = [v.b.fpext(total, ir.DoubleType()) for total in totals]
    return context.make_tuple(v.b, PAIR, totals)


@intrinsic
def rounded(typingctx: Any, like: Any, value: Any) -> Any:
    """Return a float64 in the type of `like`."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.cast(builder, args[1], types.float64, signature.return_type)

    return like(like, types.float64), emit


@intrinsic
def run_sums(typingctx: Any, like: Any, x: Any, centre: Any, count: Any) -> Any:
    """Return the sums of d = x - centre and of d^2."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(builder, signature.args[0])
        _, x, centre, count = args
        centres = v.broadcast(centre)

        def body(read: Any, held: Any, clean: Any) -> Any:
            d = clean(v.b.fsub(read[0], centres))
            return [], [v.b.fadd(held[0], d), v.fma(d, d, held[1])]

        return pair_of_sums(
            context, v, over_run(v, count, [v.pointer(x)], [], body, [v.zero, v.zero])
        )

    return PAIR(like, types.int64, like, types.int64), emit


@intrinsic
def gradient_sums(typingctx: Any, like: Any, grad_out: Any, x: Any, centre: Any, count: Any) -> Any:
    """Return the sums of grad_out and of grad_out (x - centre)."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(builder, signature.args[0])
        _, grad_out, x, centre, count = args
        centres = v.broadcast(centre)

        def body(read: Any, held: Any, clean: Any) -> Any:
            d = clean(v.b.fsub(read[1], centres))
            return [], [v.b.fadd(held[0], read[0]), v.fma(read[0], d, held[1])]

        sources = [v.pointer(grad_out), v.pointer(x)]
        return pair_of_sums(context, v, over_run(v, count, sources, [], body, [v.zero, v.zero]))

    return PAIR(like, types.int64, types.int64, like, types.int64), emit


@intrinsic
def line(
    typingctx: Any, like: Any, x: Any, centre: Any, scale: Any, shift: Any, count: Any, out: Any
) -> Any:
    """out = (x - centre) scale + shift."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(builder, signature.args[0])
        _, x, *numbers, count, out = args
        centre, scale, shift = (v.broadcast(value) for value in numbers)
        over_run(
            v, count, [v.pointer(x)], [v.pointer(out)],
            lambda read, held, clean: ([v.fma(v.b.fsub(read[0], centre), scale, shift)], []),
        )  # fmt: skip
        return context.get_dummy_value()

    return types.void(like, types.int64, like, like, like, types.int64, types.int64), emit


@intrinsic
def gradient_line(
    typingctx: Any, like: Any, grad_out: Any, x: Any, centre: Any, scale: Any, slope: Any,
    shift: Any, count: Any, grad_x: Any,
) -> Any:  # fmt: skip
    """grad_x = grad_out scale + (x - centre) slope + shift."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(builder, signature.args[0])
        _, grad_out, x, *numbers, count, grad_x = args
        centre, scale, slope, shift = (v.broadcast(value) for value in numbers)

        def body(read: Any, held: Any, clean: Any) -> Any:
            rest = v.fma(v.b.fsub(read[1], centre), slope, shift)
            return [v.fma(read[0], scale, rest)], []

        over_run(v, count, [v.pointer(grad_out), v.pointer(x)], [v.pointer(grad_x)], body)
        return context.get_dummy_value()

    arrays = (types.int64, types.int64)
    return types.void(like, *arrays, like, like, like, like, *arrays), emit


@helper
def inverse_root(spread: float, count: float, eps: float) -> Any:
    """Return 1 / sqrt(var + eps), the variance being the sum of squares over the count."""
    return 1 / np.sqrt(spread / count + eps)


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
def add_run(like: Any, itemsize: int, found: Any, x: int, count: int) -> Any:
    """Join a run to (count, mean, sum of squares from the mean, origin) of those before it.

    The mean is that of differences from the origin, which the first run chooses: so it keeps its
    digits in any number of joins. Before the first run all are 0.
    """
    for start in range(0, count, PIECE):
        size = min(PIECE, count - start)
        place = x + start * itemsize
        centre = rounded(like, found[3] + found[1])
        origin = found[3]
        if found[0] == 0:
            lead = min(size, LEAD)
            centre = rounded(like, run_sums(like, place, rounded(like, 0.0), lead)[0] / lead)
            origin = np.float64(centre)
        total, squares = run_sums(like, place, centre, size)
        rest = total * (1.0 / size)
        own = (np.float64(size), (centre - origin) + rest, squares - rest * total)
        joined = join((found[0], found[1], found[2]), own)
        found = (joined[0], joined[1], joined[2], origin)
    return found


@helper
def plain_sum(like: Any, itemsize: int, x: int, count: int) -> float:
    """Return the sum of a run, which keeps Inf where differences give NaN."""
    total = 0.0
    for start in range(0, count, PIECE):
        size = min(PIECE, count - start)
        total += run_sums(like, x + start * itemsize, rounded(like, 0.0), size)[0]
    return total


@helper
def add_gradients(
    like: Any, itemsize: int, found: Any, grad_out: int, x: int, centre: Any, count: int
) -> Any:
    """Add to found the sums of grad_out and of grad_out (x - centre) over a run."""
    for start in range(0, count, PIECE):
        at = start * itemsize
        total, product = gradient_sums(
            like, grad_out + at, x + at, centre, min(PIECE, count - start)
        )
        found = (found[0] + total, found[1] + product)
    return found
