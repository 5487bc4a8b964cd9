"""The gradient of max pooling by windows of 3 x 3 that lie 2 apart, as in AlexNet and ResNet.

An element is in at most four windows, and which of their nine places it is depends only on whether
its row and column are even. So the errors are gathered: each pair of rows is computed from two rows
of windows, a vector of windows at a time, and nothing is read that was written.
"""

from __future__ import annotations

from typing import Any

from trine.dtypes import Array
from trine.kernels.numba.conv import Pair
from trine.kernels.numba.conv_tiles import for_each
from trine.kernels.numba.jit import threads
from trine.kernels.numba.simd import VECTOR_BYTES, address, finish_lines, lanes
from trine.kernels.numba.spread import each, inner, spread
from trine.kernels.numba.windows import errors_of_threes
from trine.kernels.registry import kernel

MARGIN = 1
"""Rows and columns of windows before the first, with errors of 0."""


@inner
def _planes_of_threes(
    item: int, grad_out: Array, argmax: Array, size: Pair, columns: int, padding: Pair, pitch: int,
    errors: Array, places: Array, spare: Array, grad_x: Array,
) -> None:  # fmt: skip
    """Gather a worker's planes (P, H W) from errors (P, rows columns).

    Errors are copied between margins of 0; which element a window beyond a row chose is then no
    matter, so places are copied as they lie. Rows that vectors do not end with, and those beyond the
    plane, are computed in `spare`.
    """
    (height, width), workers = size, errors.shape[0]
    like, index = grad_out.dtype.type(0), argmax.dtype.type(0)
    itemsize, vector = grad_out.itemsize, VECTOR_BYTES // grad_out.itemsize
    rows, pairs = grad_out.shape[1] // columns, (width + 1) // 2
    fits = width % 2 == 0 and pairs >= vector
    first_error = address(errors[item]) + (pitch + MARGIN + padding[1]) * itemsize
    first_place = address(places[item]) + (columns + MARGIN + padding[1]) * places.itemsize
    nowhere, line = address(spare[item]), spare.shape[1] // 2
    own = places[item, columns + MARGIN :]
    errors[item].fill(like)
    for p in range(item * grad_x.shape[0] // workers, (item + 1) * grad_x.shape[0] // workers):
        finish_lines(
            like, address(grad_out[p]), columns, -like, 0, rows, columns,
            address(errors[item]) + (pitch + MARGIN) * itemsize, pitch,
        )  # fmt: skip
        for i in range(argmax.shape[1]):
            own[i] = argmax[p, i]
        for i in range((height + padding[0] + 1) // 2):
            y = 2 * i - padding[0]
            inside, next_inside = y >= 0, y + 1 < height
            upper = address(grad_x[p]) + y * width * itemsize
            lower = upper + width * itemsize
            above = upper if fits and inside else nowhere
            below = lower if fits and next_inside else nowhere + line * itemsize
            for start in range(0, pairs, vector):
                j = min(start, pairs - vector) if fits else start
                errors_of_threes(
                    like, index, first_error + (i * pitch + j) * itemsize, pitch,
                    first_place + (i * columns + j) * places.itemsize, columns, padding[1],
                    above + 2 * j * itemsize, below + 2 * j * itemsize,
                )  # fmt: skip
            if not fits:
                if inside:
                    finish_lines(like, above, line, -like, 0, 1, width, upper, width)
                if next_inside:
                    finish_lines(like, below, line, -like, 0, 1, width, lower, width)


@spread()
def _gather(pool: int, threads: int, workers: int, *args: Any) -> None:
    """Gather every worker's planes."""
    each(_planes_of_threes, pool, threads, workers, args)


def _serves(kernel_size: Pair, stride: Pair, dilation: Pair, **_: Any) -> bool:
    return (kernel_size, stride, dilation) == ((3, 3), (2, 2), (1, 1))


@kernel("max_pool2d_backward", backend="numba", name="threes", priority=1, supports=_serves)
def max_pool2d_backward(
    grad_out: Array,
    argmax: Array,
    input_size: Pair,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    grad_x: Array,
) -> None:
    """grad_x[y, x] = sum of grad_out over the windows whose maximum is there."""
    n, c, rows, columns = grad_out.shape
    height, width = input_size
    if not grad_x.size:
        return
    workers = max(1, min(threads.count, n * c))
    vector = lanes(grad_x.itemsize)
    reach = (width + 1) // 2 + vector
    """Windows of a row that vectors may look at."""
    pitch = MARGIN + padding[1] + max(columns, reach)
    lines = MARGIN + max(rows, (height + padding[0] + 1) // 2) + 1
    room = lambda pitch: (lines + 1) * pitch + MARGIN + 1 + reach  # noqa: E731
    _gather(
        grad_x.size,
        workers,
        grad_out.reshape(n * c, rows * columns),
        argmax.reshape(n * c, rows * columns),
        input_size,
        columns,
        padding,
        pitch,
        for_each("errors", workers, room(pitch), grad_x.dtype),
        for_each("places", workers, room(columns), argmax.dtype),
        for_each("lines", workers, 4 * reach, grad_x.dtype),
        grad_x.reshape(n * c, height * width),
    )
