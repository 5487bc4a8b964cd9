"""Average pooling by vectors of neighbouring windows; its gradient sums the shares of each pixel.

Each thread owns whole planes. For the copies of planes see `pool`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba.conv import Pair
from trine.kernels.numba.conv_tiles import clear, for_each, pack_image
from trine.kernels.numba.jit import FAST_SUM, helper, parallel, threads
from trine.kernels.numba.plane_taps import (
    HEIGHT,
    PLANE,
    TAPS,
    TAPS_FROM,
    WIDTH,
    backward_taps,
    phase_sums,
    sum_plane,
    weave,
)
from trine.kernels.numba.pool import bordered_pitch, clear_margins, is_quads
from trine.kernels.numba.simd import VECTOR_BYTES, address, lanes
from trine.kernels.numba.windows import mean, mean_of_quads, shares_of_quads
from trine.kernels.registry import kernel


@lru_cache(maxsize=256)
def _counts(
    size: int, count: int, kernel: int, stride: int, padding: int, include: bool
) -> npt.NDArray[np.int64]:
    """Return how many elements each window averages along an axis."""
    starts = np.arange(count) * stride - padding
    low, high = (-padding, size + padding) if include else (0, size)
    return np.minimum(starts + kernel, high) - np.maximum(starts, low)


@helper
def is_whole(kernel_size: Pair, padding: Pair, rows: Any, columns: Any) -> Any:
    """Return whether the one window is the whole plane; rows and columns: (input, output)."""
    is_one = rows[1] == 1 and columns[1] == 1
    covers = kernel_size[0] - padding[0] >= rows[0] and kernel_size[1] - padding[1] >= columns[0]
    return is_one and covers


@helper(fastmath=FAST_SUM)
def _plane_sum(x: Array, p: int) -> Any:
    result = x.dtype.type(0)
    for j in range(x.shape[1]):
        result += x[p, j]
    return result


@helper
def _avg_planes(
    x: Array, planes: Pair, size: Pair, out_size: Pair, kernel_size: Pair, stride: Pair,
    padding: Pair, quads: bool, pitch: int, counts_r: Array, counts_s: Array, copy: Array,
    out: Array,
) -> None:  # fmt: skip
    """Average windows of the planes from `planes`[0] to before `planes`[1]."""
    (height, width), (rows, columns) = size, out_size
    area = out.shape[1]
    like = x.dtype.type(0)
    itemsize, vector = x.itemsize, VECTOR_BYTES // x.itemsize
    whole = is_whole(kernel_size, padding, (height, rows), (width, columns))
    if pitch:
        clear(copy)
    for p in range(planes[0], planes[1]):
        if whole:
            out[p, 0] = _plane_sum(x, p) / (counts_r[0] * counts_s[0])
            continue
        source, step = address(x[p]), width
        if pitch or (x.shape[0] - 1 - p) * x.shape[1] < vector * stride[1]:
            step = max(pitch, width)
            pack_image(
                like, itemsize, address(x[p]), 1, size, 0, padding[1], (1, 1), height, step,
                address(copy),
            )  # fmt: skip
            source = address(copy)
        for i in range(rows):
            y = i * stride[0] - padding[0]
            first, last = max(0, y), min(y + kernel_size[0], height)
            row = source + first * step * itemsize
            for start in range(0, columns, vector):
                j = max(0, min(start, columns - vector))
                place = i * columns + j
                pixels = row + j * stride[1] * itemsize
                divisors = address(counts_s) + j * itemsize
                target = address(out[p]) + place * itemsize
                if quads:
                    mean_of_quads(
                        like, pixels, step, counts_r[i], divisors, target, area - place
                    )  # fmt: skip
                else:
                    mean(
                        like, pixels, step, last - first, kernel_size[1], stride[1],
                        counts_r[i], divisors, target, area - place,
                    )  # fmt: skip


@parallel()
def _avg_pool(
    x: Array, size: Pair, out_size: Pair, kernel_size: Pair, stride: Pair, padding: Pair,
    quads: bool, pitch: int, counts_r: Array, counts_s: Array, workers: int, copies: Array,
    out: Array,
) -> None:  # fmt: skip
    """Average windows of planes (P, H W) into out (P, rows columns); see `_max_pool`."""
    for worker in prange(workers):
        w = np.int64(worker)
        planes = (w * x.shape[0] // workers, (w + 1) * x.shape[0] // workers)
        _avg_planes(
            x, planes, size, out_size, kernel_size, stride, padding, quads, pitch, counts_r,
            counts_s, copies[w], out,
        )  # fmt: skip


@helper
def _avg_planes_backward(
    grad_out: Array, planes: Pair, size: Pair, out_size: Pair, kernel_size: Pair, stride: Pair,
    padding: Pair, quads: bool, border: Pair, pitch: int, offsets: Array, numbers: Array,
    phases: Array, weights: Array, counts_r: Array, counts_s: Array, shares: Array, sums: Array,
    grad_x: Array,
) -> None:  # fmt: skip
    """Spread the errors of planes: each pixel sums the shares that its windows' errors give it.

    shares: room for a plane with `border` in rows of `pitch`; sums: its phases, for `weave`.
    """
    (height, width), (rows, columns) = size, out_size
    area = grad_x.shape[1]
    like = grad_out.dtype.type(0)
    itemsize, vector = grad_out.itemsize, VECTOR_BYTES // grad_out.itemsize
    last = grad_out.size - vector
    whole = is_whole(kernel_size, padding, (height, rows), (width, columns))
    clear(shares)
    for p in range(planes[0], planes[1]):
        error, target = grad_out[p], grad_x[p]
        if whole:
            target[:] = error[0] / (counts_r[0] * counts_s[0])
            continue
        if quads and (columns >= vector or p * error.size + (rows - 1) * columns <= last):
            for i in range(rows):
                for start in range(0, columns, vector):
                    j = max(0, min(start, columns - vector))
                    place = 2 * (i * width + j)
                    shares_of_quads(
                        like, address(error) + (i * columns + j) * itemsize, counts_r[i],
                        address(counts_s) + j * itemsize, width,
                        address(target) + place * itemsize, area - place,
                    )  # fmt: skip
            clear_margins(target, size, (2 * rows, 2 * columns))
            continue
        for i in range(rows):
            line = shares[(border[0] + i) * pitch + border[1] :]
            for j in range(columns):
                line[j] = error[i * columns + j] / (counts_r[i] * counts_s[j])
        for f in range(phases.shape[0]):
            if stride == (1, 1):
                start, step, room = address(target), width, area
            else:
                start, step = address(sums[phases[f, PLANE]]), sums.shape[2]
                room = sums.shape[1] * step
            sum_plane(
                like, itemsize, address(shares), pitch,
                address(offsets) + 8 * phases[f, TAPS_FROM],
                address(numbers) + 8 * phases[f, TAPS_FROM], address(weights),
                phases[f, TAPS], 0, like, (phases[f, HEIGHT], phases[f, WIDTH]), start, step, room,
            )  # fmt: skip
        if stride != (1, 1):
            weave(sums, stride, size, target)


@parallel()
def _avg_pool_backward(
    grad_out: Array, size: Pair, out_size: Pair, kernel_size: Pair, stride: Pair, padding: Pair,
    quads: bool, border: Pair, pitch: int, offsets: Array, numbers: Array, phases: Array,
    weights: Array, counts_r: Array, counts_s: Array, workers: int, shares: Array, sums: Array,
    grad_x: Array,
) -> None:  # fmt: skip
    """The gradient of planes (P, H W); shares and sums: a row for each worker."""
    for worker in prange(workers):
        w = np.int64(worker)
        planes = (w * grad_x.shape[0] // workers, (w + 1) * grad_x.shape[0] // workers)
        _avg_planes_backward(
            grad_out, planes, size, out_size, kernel_size, stride, padding, quads, border, pitch,
            offsets, numbers, phases, weights, counts_r, counts_s, shares[w], sums[w], grad_x,
        )  # fmt: skip


@lru_cache(maxsize=256)
def _divisors(
    size: Pair, out_size: Pair, kernel: Pair, stride: Pair, padding: Pair, include: bool,
    override: int, dtype: Any,
) -> tuple[Array, Array]:  # fmt: skip
    """Return two vectors whose products are the divisors of the windows; ones follow the second."""
    more = (0, lanes(dtype.itemsize))
    if override:
        return np.full(out_size[0], override, dtype), np.ones(out_size[1] + more[1], dtype)
    rows, columns = (
        _counts(size[i], out_size[i], kernel[i], stride[i], padding[i], include) for i in (0, 1)
    )
    return rows.astype(dtype), np.pad(columns, more, constant_values=1).astype(dtype)


@kernel("avg_pool2d", backend="numba", name="rows")
def avg_pool2d(
    x: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int,
    out: Array,
) -> None:
    """out = sum over the window / divisor."""
    n, c, height, width = x.shape
    size, out_size = (height, width), (out.shape[2], out.shape[3])
    counts = _divisors(
        size, out_size, kernel_size, stride, padding, count_include_pad, divisor_override, x.dtype
    )
    pitch = bordered_pitch(width, out_size[1], kernel_size[1], stride[1], padding[1], 1)
    workers = max(1, min(threads.count, n * c))
    room = height * max(pitch, width) + lanes(x.itemsize) * stride[1]
    _avg_pool(
        out.size * kernel_size[0] * kernel_size[1],
        x.reshape(n * c, height * width),
        size,
        out_size,
        kernel_size,
        stride,
        padding,
        is_quads(size, out_size, kernel_size, stride, padding, (1, 1)),
        pitch,
        *counts,
        workers,
        for_each("images", workers, room, x.dtype),
        out.reshape(n * c, math.prod(out_size)),
    )


@kernel("avg_pool2d_backward", backend="numba", name="planes")
def avg_pool2d_backward(
    grad_out: Array,
    input_size: Pair,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int,
    grad_x: Array,
) -> None:
    """grad_x of each element of each window += grad_out / divisor."""
    n, c, *_ = grad_out.shape
    out_size = (grad_out.shape[2], grad_out.shape[3])
    counts = _divisors(
        input_size, out_size, kernel_size, stride, padding, count_include_pad, divisor_override,
        grad_out.dtype,
    )  # fmt: skip
    taps = backward_taps(1, input_size, out_size, kernel_size, stride, padding, (1, 1))
    workers = max(1, min(threads.count, n * c))
    vector = lanes(grad_out.itemsize)
    _avg_pool_backward(
        grad_out.size * kernel_size[0] * kernel_size[1],
        grad_out.reshape(n * c, math.prod(out_size)),
        input_size,
        out_size,
        kernel_size,
        stride,
        padding,
        is_quads(input_size, out_size, kernel_size, stride, padding, (1, 1)),
        taps.border,
        taps.columns,
        taps.offsets,
        taps.numbers,
        taps.phases,
        np.ones(kernel_size[0] * kernel_size[1], grad_out.dtype),
        *counts,
        workers,
        for_each("shares", workers, taps.rows * taps.columns + vector, grad_out.dtype),
        phase_sums(workers, input_size, stride, grad_out.dtype),
        grad_x.reshape(n * c, math.prod(input_size)),
    )
