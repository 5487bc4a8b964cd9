"""Depthwise convolution, whose groups have one input channel each, and the gradient of its input.

There is nothing to sum over channels, so a product of matrices would be one vector wide. Vectors
lie along the rows instead, and a tap's weight is broadcast: outputs and input gradients are sums
over taps (`plane_taps`).

Planes are packed where they are used. Every output is summed by one thread in the order of the taps.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba import geometry
from trine.kernels.numba.conv import Pair
from trine.kernels.numba.conv_tiles import clear, for_each, pack_image
from trine.kernels.numba.jit import helper, parallel, threads
from trine.kernels.numba.maths import activate
from trine.kernels.numba.plane_taps import (
    HEIGHT,
    PLANE,
    TAPS,
    TAPS_FROM,
    WIDTH,
    backward_taps,
    pack_plane,
    phase_sums,
    sum_plane,
    weave,
)
from trine.kernels.numba.simd import VECTOR_BYTES, address, finish_lines, lanes
from trine.kernels.registry import kernel

GRAIN = 1 << 17


@helper
def _conv_planes(
    x: Array, planes: Pair, size: Pair, border: Pair, stride: Pair, packed: bool, rows: int,
    columns: int, offsets: Array, numbers: Array, square: int, weight: Array, bias: Array,
    activation: int, out_size: Pair, copy: Array, sums: Array, out: Array,
) -> None:  # fmt: skip
    """Convolve the planes from `planes`[0] to before `planes`[1]; see `_conv`."""
    itemsize = x.itemsize
    zero, nothing = x.dtype.type(0), x.dtype.type(-0.0)  # -0.0 added to anything changes nothing
    area = out.shape[2]
    if packed:
        clear(copy)
    for p in range(planes[0], planes[1]):
        c = p % weight.shape[0]
        source = address(x[p])
        if packed or (x.shape[0] - 1 - p) * x.shape[1] < copy.size - rows * columns:
            pack_plane(x[p : p + 1], size, border, stride, rows, columns, copy)
            source = address(copy)
        for k in range(weight.shape[1]):
            target = address(sums) if activation > 1 else address(out[p, k])
            sum_plane(
                zero, itemsize, source, columns, address(offsets), address(numbers),
                address(weight[c, k]), offsets.size, square, bias[c, k], out_size, target,
                out_size[1], area,
            )  # fmt: skip
            if activation > 1:
                activate(sums[:area], zero, activation, out[p, k])
            elif activation:
                finish_lines(nothing, target, area, nothing, 1, 1, area, target, area)


@parallel(grain=GRAIN)
def _conv(
    x: Array, size: Pair, border: Pair, stride: Pair, packed: bool, rows: int, columns: int,
    offsets: Array, numbers: Array, square: int, weight: Array, bias: Array, activation: int,
    out_size: Pair, workers: int, copies: Array, sums: Array, out: Array,
) -> None:  # fmt: skip
    """Convolve planes (N C, H W) with weights (C, K, taps) into (N C, K, P Q)."""
    for worker in prange(workers):
        w = np.int64(worker)
        planes = (w * x.shape[0] // workers, (w + 1) * x.shape[0] // workers)
        _conv_planes(
            x, planes, size, border, stride, packed, rows, columns, offsets, numbers, square,
            weight, bias, activation, out_size, copies[w], sums[w], out,
        )  # fmt: skip


def serves(channels_of_group: int, groups: int) -> bool:
    """Whether each group has one input channel."""
    return channels_of_group == 1 and groups > 1


def is_square(kernel_size: Pair, stride: Pair, dilation: Pair) -> bool:
    """Whether the taps are three neighbours in each of three lines."""
    return kernel_size == (3, 3) and stride == dilation == (1, 1)


@lru_cache(maxsize=256)
def _numbers(taps: int) -> Array:
    return np.arange(taps, dtype=np.int64)


@kernel(
    "conv2d", backend="numba", name="depthwise", priority=2,
    supports=lambda weight, groups, **_: serves(weight.shape[1], groups),
)  # fmt: skip
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    activation: int,
    out: Array,
) -> None:
    """out[n, c K + k, i, j] = act(sum_rs w[c K + k, r, s] x[n, c, i sh - ph + r dh, ...] + b)."""
    n, _, height, width = x.shape
    kernel_size, out_size = (weight.shape[2], weight.shape[3]), (out.shape[2], out.shape[3])
    layout = geometry.forward(1, (height, width), kernel_size, stride, padding, dilation)
    each, taps, planes, area = (
        weight.shape[0] // groups,
        layout.offsets.size,
        n * groups,
        math.prod(out_size),
    )
    added = np.zeros(weight.shape[0], x.dtype) if bias is None else bias
    workers = max(1, min(threads.count, planes))
    room = layout.phases * layout.rows * layout.columns + lanes(x.itemsize)
    _conv(
        out.size * taps,
        x.reshape(planes, height * width),
        (height, width),
        padding,
        stride,
        layout.packed,
        layout.rows,
        layout.columns,
        layout.offsets,
        _numbers(taps),
        int(is_square(kernel_size, stride, dilation)),
        weight.reshape(groups, each, taps),
        added.reshape(groups, each),
        activation,
        out_size,
        workers,
        for_each("images", workers, room, x.dtype),
        for_each("sums", workers, area if activation > 1 else 0, x.dtype),
        out.reshape(planes, each, area),
    )


@helper
def _spread_planes(
    error: Array, planes: Pair, size: Pair, out_size: Pair, stride: Pair, packed: bool,
    border: Pair, rows: int, columns: int, offsets: Array, numbers: Array, phases: Array,
    square: int, weight: Array, copy: Array, sums: Array, grad_x: Array,
) -> None:  # fmt: skip
    """The gradient of the planes from `planes`[0] to before `planes`[1]; see `_input_grad`."""
    itemsize = error.itemsize
    like = error.dtype.type(0)
    whole = stride == (1, 1)
    if packed:
        clear(copy)
    for p in range(planes[0], planes[1]):
        source = address(error[p])
        left = (error.shape[0] - 1 - p) * error.shape[1] * error.shape[2]
        if packed or left < VECTOR_BYTES // itemsize:
            pack_image(
                like, itemsize, address(error[p]), error.shape[1], out_size, border[0], border[1],
                (1, 1), rows, columns, address(copy),
            )  # fmt: skip
            source = address(copy)
        for f in range(phases.shape[0]):
            start, step, room = address(grad_x[p]), size[1], grad_x.shape[1]
            if not whole:
                start, step = address(sums[phases[f, PLANE]]), sums.shape[2]
                room = sums.shape[1] * step
            sum_plane(
                like, itemsize, source, columns, address(offsets) + 8 * phases[f, TAPS_FROM],
                address(numbers) + 8 * phases[f, TAPS_FROM], address(weight[p % weight.shape[0]]),
                phases[f, TAPS], square, like, (phases[f, HEIGHT], phases[f, WIDTH]), start, step,
                room,
            )  # fmt: skip
        if not whole:
            weave(sums, stride, size, grad_x[p])


@parallel(grain=GRAIN)
def _input_grad(
    error: Array, size: Pair, out_size: Pair, stride: Pair, packed: bool, border: Pair, rows: int,
    columns: int, offsets: Array, numbers: Array, phases: Array, square: int, weight: Array,
    workers: int, copies: Array, sums: Array, grad_x: Array,
) -> None:  # fmt: skip
    """Sum over the taps of errors (N C, K, P Q) with weights (C, K taps) into (N C, H W).

    copies: room for a channel's bordered errors, sums: for its phases, for each worker.
    """
    for worker in prange(workers):
        w = np.int64(worker)
        planes = (w * grad_x.shape[0] // workers, (w + 1) * grad_x.shape[0] // workers)
        _spread_planes(
            error, planes, size, out_size, stride, packed, border, rows, columns, offsets, numbers,
            phases, square, weight, copies[w], sums[w], grad_x,
        )  # fmt: skip


@kernel(
    "conv2d_input_grad", backend="numba", name="depthwise", priority=2,
    supports=lambda weight, groups, **_: serves(weight.shape[1], groups),
)  # fmt: skip
def conv2d_input_grad(
    grad_out: Array,
    weight: Array,
    input_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    grad_x: Array,
) -> None:
    """grad_x[n, c, y, x] = sum of w[c K + k, r, s] grad_out[n, c K + k, i, j] with i sh ... = y."""
    n, filters, *out_shape = grad_out.shape
    each, out_size = filters // groups, (out_shape[0], out_shape[1])
    kernel_size = (weight.shape[2], weight.shape[3])
    taps = backward_taps(each, input_size, out_size, kernel_size, stride, padding, dilation)
    planes = n * groups
    workers = max(1, min(threads.count, planes))
    room = each * taps.rows * taps.columns + lanes(grad_out.itemsize)
    _input_grad(
        grad_out.size * weight[0].size,
        grad_out.reshape(planes, each, math.prod(out_size)),
        input_size,
        out_size,
        stride,
        (taps.rows, taps.columns) != out_size,
        taps.border,
        taps.rows,
        taps.columns,
        taps.offsets,
        taps.numbers,
        taps.phases,
        -int(each == 1 and is_square(kernel_size, stride, dilation)),
        weight.reshape(groups, each * math.prod(kernel_size)),
        workers,
        for_each("images", workers, room, grad_out.dtype),
        phase_sums(workers, input_size, stride, grad_out.dtype),
        grad_x.reshape(planes, math.prod(input_size)),
    )
