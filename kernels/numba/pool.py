"""Max pooling by vectors of neighbouring windows.

Each thread owns whole planes, so the gradients add up without atomics and in a fixed order. A plane
is copied between borders where windows reach beyond its rows, and where the last vector of a narrow
row would read beyond the last plane.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.dtypes import Array
from trine.kernels.numba.conv import Pair
from trine.kernels.numba.conv_tiles import for_each, pack_image
from trine.kernels.numba.jit import threads
from trine.kernels.numba.simd import VECTOR_BYTES, address, lanes
from trine.kernels.numba.spread import each, inner, spread
from trine.kernels.numba.windows import errors_of_quads, largest, largest_of_quads
from trine.kernels.registry import kernel


@lru_cache(maxsize=256)
def _inside(
    size: int, count: int, kernel: int, stride: int, padding: int, dilation: int
) -> npt.NDArray[np.int64]:
    """Return each window's first element along an axis that is no padding, and their number."""
    positions = np.arange(count)[:, None] * stride - padding + np.arange(kernel) * dilation
    inside = (positions >= 0) & (positions < size)
    return np.stack([inside.argmax(axis=1), inside.sum(axis=1)], axis=1).astype(np.int64)


@lru_cache(maxsize=256)
def _starts(
    size: int, count: int, kernel: int, stride: int, padding: int, dilation: int, more: int
) -> npt.NDArray[np.int32]:
    """Return each window's first element that is no padding; -1: none.

    A second row says -1 for all. `more` entries follow, for vectors that reach past the end.
    """
    first, number = _inside(size, count, kernel, stride, padding, dilation).T
    starts = np.full((2, count + more), -1, np.int32)
    starts[0, :count] = np.where(number > 0, first, -1)
    return starts


def bordered_pitch(
    size: int, count: int, kernel: int, stride: int, padding: int, dilation: int
) -> int:
    """Return how long rows must be that hold all windows; 0 if they do as they are."""
    needed = (count - 1) * stride + (kernel - 1) * dilation + 1
    return max(needed, size + padding) if padding or needed > size else 0


def is_quads(
    size: Pair, out_size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> bool:
    """Return whether windows are 2 x 2 elements side by side, without a border."""
    plain = kernel_size == stride == (2, 2) and padding == (0, 0) and dilation == (1, 1)
    return plain and 2 * out_size[0] <= size[0] and 2 * out_size[1] <= size[1]


@lru_cache(maxsize=256)
def _shifts(width: int, kernel_size: Pair, dilation: Pair) -> npt.NDArray[np.int64]:
    """Return how far each element of a window lies from its first one, in a plane."""
    r, s = np.divmod(np.arange(kernel_size[0] * kernel_size[1]), kernel_size[1])
    shifts: npt.NDArray[np.int64] = r * dilation[0] * width + s * dilation[1]
    return shifts


@inner
def _max_planes(
    item: int, x: Array, size: Pair, out_size: Pair, kernel_size: Pair, stride: Pair,
    padding: Pair, dilation: Pair, quads: bool, pitch: int, inside: Array, starts: Array,
    copies: Array, out: Array, argmax: Array,
) -> None:  # fmt: skip
    """Pool a worker's planes (P, H W) into out, argmax (P, rows columns).

    pitch > 0: between bordered rows; inside: the rows of windows, see `_inside`; starts: their
    columns, see `_starts`; copies: room for a plane, for each worker.
    """
    (height, width), (rows, columns) = size, out_size
    area, copy, workers = out.shape[1], copies[item], copies.shape[0]
    like, index = x.dtype.type(0), argmax.dtype.type(0)
    itemsize, vector = x.itemsize, VECTOR_BYTES // x.itemsize
    if pitch:
        copy.fill(-np.inf)
    for p in range(item * x.shape[0] // workers, (item + 1) * x.shape[0] // workers):
        source, step = address(x[p]), width
        if pitch or (x.shape[0] - 1 - p) * x.shape[1] < vector * stride[1]:
            step = max(pitch, width)
            pack_image(
                like, itemsize, address(x[p]), 1, size, 0, padding[1], (1, 1), height, step,
                address(copy),
            )  # fmt: skip
            source = address(copy)
        best, where = address(out[p]), address(argmax[p])
        for i in range(rows):
            first, count = inside[i, 0], inside[i, 1]
            y = i * stride[0] - padding[0] + first * dilation[0]
            row = source + y * step * itemsize
            begins = address(starts[0 if count > 0 else 1])
            for start in range(0, columns, vector):
                j = max(0, min(start, columns - vector))
                place = i * columns + j
                if quads:
                    largest_of_quads(
                        like, index, row + 2 * j * itemsize, step, best + place * itemsize,
                        where + place * argmax.itemsize, area - place,
                    )  # fmt: skip
                else:
                    largest(
                        like, index, row + j * stride[1] * itemsize, dilation[0] * step, count,
                        kernel_size[1], dilation[1], stride[1], first * kernel_size[1],
                        begins + 4 * j, best + place * itemsize,
                        where + place * argmax.itemsize, area - place,
                    )  # fmt: skip


@spread()
def _max_pool(pool: int, threads: int, workers: int, *args: Any) -> None:
    """Pool every worker's planes."""
    each(_max_planes, pool, threads, workers, args)


@kernel("max_pool2d", backend="numba", name="rows")
def max_pool2d(
    x: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    ceil_mode: bool,
    out: Array,
    argmax: Array,
) -> None:
    """out = max over the window, argmax = r S + s of the first maximum; NaN wins."""
    n, c, height, width = x.shape
    rows, columns = out.shape[2:]
    vector = lanes(x.itemsize)
    pitch = bordered_pitch(width, columns, kernel_size[1], stride[1], padding[1], dilation[1])
    workers = max(1, min(threads.count, n * c))
    room = height * max(pitch, width) + vector * stride[1]
    _max_pool(
        out.size * kernel_size[0] * kernel_size[1],
        workers,
        x.reshape(n * c, height * width),
        (height, width),
        (rows, columns),
        kernel_size,
        stride,
        padding,
        dilation,
        is_quads((height, width), (rows, columns), kernel_size, stride, padding, dilation),
        pitch,
        _inside(height, rows, kernel_size[0], stride[0], padding[0], dilation[0]),
        _starts(width, columns, kernel_size[1], stride[1], padding[1], dilation[1], vector),
        for_each("images", workers, room, x.dtype),
        out.reshape(n * c, rows * columns),
        argmax.reshape(n * c, rows * columns),
    )


@inner
def clear_margins(plane: Array, size: Pair, covered: Pair) -> None:
    """Set the elements of a plane (H W) right of and below `covered` to 0."""
    (height, width), (rows, columns) = size, covered
    zero = plane.dtype.type(0)
    if columns < width:
        for i in range(rows):
            for j in range(i * width + columns, (i + 1) * width):
                plane[j] = zero
    for j in range(rows * width, height * width):
        plane[j] = zero


@inner
def _max_plane_backward(
    p: int, grad_out: Array, argmax: Array, size: Pair, out_size: Pair, quads: bool, stride: Pair,
    padding: Pair, shifts: Array, inside_r: Array, inside_s: Array, grad_x: Array,
) -> None:  # fmt: skip
    """Add each error to the element of its window's maximum: shifts[argmax] from the window."""
    width, (rows, columns) = size[1], out_size
    like, index = grad_out.dtype.type(0), argmax.dtype.type(0)
    itemsize, vector = grad_out.itemsize, VECTOR_BYTES // grad_out.itemsize
    last = grad_out.size - vector
    errors, places, target = grad_out[p], argmax[p], grad_x[p]
    if quads and (columns >= vector or p * errors.size + (rows - 1) * columns <= last):
        for i in range(rows):
            for column in range(0, columns, vector):
                j = max(0, min(column, columns - vector))
                source, place = i * columns + j, 2 * (i * width + j)
                errors_of_quads(
                    like, index, address(errors) + source * itemsize,
                    address(places) + source * argmax.itemsize, width,
                    address(target) + place * itemsize, target.size - place,
                )  # fmt: skip
        clear_margins(target, size, (2 * rows, 2 * columns))
        return
    target[:] = 0
    for i in range(rows):
        if not inside_r[i, 1]:
            continue
        start = (i * stride[0] - padding[0]) * width - padding[1]
        for j in range(columns):
            if inside_s[j, 1]:
                place = i * columns + j
                target[start + j * stride[1] + shifts[places[place]]] += errors[place]


@spread()
def _max_pool_backward(pool: int, threads: int, planes: int, *args: Any) -> None:
    """The gradient of planes (P, H W)."""
    each(_max_plane_backward, pool, threads, planes, args)


@kernel("max_pool2d_backward", backend="numba", name="planes")
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
    """grad_x at each window's maximum += grad_out; 0 elsewhere."""
    n, c, rows, columns = grad_out.shape
    height, width = input_size
    _max_pool_backward(
        grad_x.size,
        n * c,
        grad_out.reshape(n * c, rows * columns),
        argmax.reshape(n * c, rows * columns),
        input_size,
        (rows, columns),
        is_quads(input_size, (rows, columns), kernel_size, stride, padding, dilation),
        stride,
        padding,
        _shifts(width, kernel_size, dilation),
        _inside(height, rows, kernel_size[0], stride[0], padding[0], dilation[0]),
        _inside(width, columns, kernel_size[1], stride[1], padding[1], dilation[1]),
        grad_x.reshape(n * c, height * width),
    )
