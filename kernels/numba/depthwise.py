"""Depthwise convolution, whose groups have one input channel each, and its two gradients.

There is nothing to sum over channels, so a product of matrices would be one vector wide. Vectors
lie along the rows instead, and a tap's weight is broadcast: outputs and input gradients are sums
over taps (`plane_taps`); the gradient of the weights keeps a vector of sums for each tap in a
register while it walks over the error.

Planes are packed where they are used. Every output is summed by one thread in the order of the
taps; images of the weights' gradient are cut into chunks whose number depends on the shapes alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange
from numba.core import cgutils, types
from numba.extending import intrinsic

from trine.dtypes import Array, DType
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
    table_entry,
    weave,
)
from trine.kernels.numba.simd import VECTOR_BYTES, address, finish_lines, lanes, number
from trine.kernels.numba.windows import Windows
from trine.kernels.registry import kernel

_I64 = ir.IntType(64)
GRAIN = 1 << 17
DOTS = 9
"""Taps whose sums are held in registers together, besides a vector of errors and one of pixels."""
CHUNKS = 8


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


def _serves(channels_of_group: int, groups: int) -> bool:
    return channels_of_group == 1 and groups > 1


def _is_square(kernel_size: Pair, stride: Pair, dilation: Pair) -> bool:
    return kernel_size == (3, 3) and stride == dilation == (1, 1)


@lru_cache(maxsize=256)
def _numbers(taps: int) -> Array:
    return np.arange(taps, dtype=np.int64)


@kernel(
    "conv2d", backend="numba", name="depthwise", priority=2,
    supports=lambda weight, groups, **_: _serves(weight.shape[1], groups),
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
        int(_is_square(kernel_size, stride, dilation)),
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
    supports=lambda weight, groups, **_: _serves(weight.shape[1], groups),
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
        -int(each == 1 and _is_square(kernel_size, stride, dilation)),
        weight.reshape(groups, each * math.prod(kernel_size)),
        workers,
        for_each("images", workers, room, grad_out.dtype),
        phase_sums(workers, input_size, stride, grad_out.dtype),
        grad_x.reshape(planes, math.prod(input_size)),
    )


@intrinsic
def _dot_taps(
    typingctx: Any, like: Any, error: Any, rows: Any, columns: Any, x: Any, pitch: Any,
    offsets: Any, mask: Any, sums: Any,
) -> Any:  # fmt: skip
    """sums[t] += sum_ij error[i, j] x[offsets[t] + i pitch + j] for DOTS taps, vectors of sums.

    mask: address of the lanes that count in a row's last vector where it is not a whole one. They
    are cleared in both factors, as 0 times what lies there may be NaN.
    """
    signature = types.void(like, *[types.int64] * 8)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Windows(builder, signature.args[0])
        _, error, rows, columns, x, pitch, offsets, mask, sums = args
        errors, pixels, total = v.pointer(error), v.pointer(x), v.pointer(sums)
        places = [v.at(total, number(t * v.lanes)) for t in range(DOTS)]
        held = [cgutils.alloca_once_value(b, v.load(place)) for place in places]
        starts = [v.at(pixels, table_entry(b, offsets, number(t))) for t in range(DOTS)]
        left = b.urem(columns, number(v.lanes))
        whole = b.sub(columns, left)
        last = b.sub(columns, number(v.lanes))
        last = b.select(b.icmp_signed("<", last, number(0)), number(0), last)
        kept = b.bitcast(v.load(v.pointer(mask)), v.counters)

        def masked(pointer: Any) -> Any:
            return b.bitcast(b.and_(b.bitcast(v.load(pointer), v.counters), kept), v.type)

        def add(read: Callable[[Any], Any], line: Any, at: Any, j: Any) -> None:
            factor = read(v.at(errors, b.add(line, j)))
            place = b.add(at, j)
            for start, sum_ in zip(starts, held, strict=True):
                b.store(v.fma(factor, read(v.at(start, place)), b.load(sum_)), sum_)

        with cgutils.for_range(b, rows, intp=_I64) as row:
            line, at = b.mul(row.index, columns), b.mul(row.index, pitch)
            with cgutils.for_range_slice(b, number(0), whole, number(v.lanes), _I64) as (j, _):
                add(v.load, line, at, j)
            with b.if_then(b.icmp_signed("!=", left, number(0))):
                add(masked, line, at, last)
        for place, sum_ in zip(places, held, strict=True):
            v.store(b.load(sum_), place)
        return context.get_dummy_value()

    return signature, emit


@helper
def _dot_images(
    error: Array, x: Array, images: Pair, channels: Pair, size: Pair, out_size: Pair, border: Pair,
    stride: Pair, packed: bool, rows: int, columns: int, offsets: Array, mask: Array,
    copies: Array, sums: Array, totals: Array,
) -> None:  # fmt: skip
    """Sum the products of a range of images and channels, in the order in which they lie in memory.

    totals (C, K, taps) of the channels in the range; sums: (C of the range, K, taps, lanes).
    """
    itemsize = x.itemsize
    like = x.dtype.type(0)
    copy, turn = copies[0], copies[1]
    area = error.shape[3]
    vector = VECTOR_BYTES // itemsize
    sums[:] = 0
    if packed:
        clear(copy)
    for image in range(images[0], images[1]):
        for c in range(channels[0], channels[1]):
            source = address(x[image, c])
            after = x.shape[0] * x.shape[1] - 1 - (image * x.shape[1] + c)
            if packed or after * x.shape[2] < vector:
                pack_plane(x[image, c : c + 1], size, border, stride, rows, columns, copy)
                source = address(copy)
            for k in range(error.shape[2]):
                errors = error[image, c, k]
                place = address(errors)
                if after * error.shape[2] * area < vector:
                    turn[:area] = errors
                    place = address(turn)
                for t in range(0, offsets.size, DOTS):
                    _dot_taps(
                        like, place, out_size[0], out_size[1], source, columns,
                        address(offsets) + 8 * t, address(mask),
                        address(sums[c - channels[0], k, t]),
                    )  # fmt: skip
    for c in range(channels[0], channels[1]):
        for k in range(totals.shape[1]):
            for t in range(totals.shape[2]):
                total = 0.0
                for lane in range(vector):
                    total += sums[c - channels[0], k, t, lane]
                totals[c, k, t] = total


@parallel(grain=GRAIN)
def _weight_grad(
    error: Array, x: Array, size: Pair, out_size: Pair, border: Pair, stride: Pair, packed: bool,
    rows: int, columns: int, offsets: Array, mask: Array, splits: int, workers: int,
    copies: Array, sums: Array, totals: Array,
) -> None:  # fmt: skip
    """Products of errors (N, C, K, P Q) with images (N, C, H W): totals (chunks, C, K, taps).

    offsets are padded to a multiple of DOTS; copies: room for a packed plane and for an error,
    sums: (ceil(C / splits), K, taps, lanes), for each worker.
    """
    images, chunks, channels = x.shape[0], totals.shape[0], totals.shape[1]
    items = chunks * splits
    for worker in prange(workers):
        w = np.int64(worker)
        for item in range(w * items // workers, (w + 1) * items // workers):
            chunk, split = divmod(item, splits)
            _dot_images(
                error, x, (chunk * images // chunks, (chunk + 1) * images // chunks),
                (split * channels // splits, (split + 1) * channels // splits), size, out_size,
                border, stride, packed, rows, columns, offsets, mask, copies[w], sums[w],
                totals[chunk],
            )  # fmt: skip


@lru_cache(maxsize=256)
def _mask(columns: int, dtype: DType) -> Array:
    """Return all bits for the lanes that count in a row's last vector, no bits for the rest."""
    vector = lanes(dtype.itemsize)
    places = max(0, columns - vector) + np.arange(vector)
    counts = (places >= columns // vector * vector) & (places < columns)
    return (-counts.astype(np.int64)).astype(f"int{8 * dtype.itemsize}").view(dtype)


@lru_cache(maxsize=256)
def _padded(
    size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[geometry.Forward, Array]:
    """Return the layout of a plane and its offsets, padded to a multiple of DOTS."""
    layout = geometry.forward(1, size, kernel_size, stride, padding, dilation)
    return layout, np.pad(layout.offsets, (0, -layout.offsets.size % DOTS), mode="edge")


@kernel(
    "conv2d_weight_grad", backend="numba", name="depthwise", replayable=False, priority=2,
    supports=lambda x, groups, **_: _serves(x.shape[1] // groups, groups),
)  # fmt: skip
def conv2d_weight_grad(
    grad_out: Array,
    x: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    grad_weight: Array,
) -> None:
    """grad_w[c K + k, r, s] = sum_nij grad_out[n, c K + k, i, j] x[n, c, i sh - ph + r dh, ...]."""
    n, filters, *out_shape = grad_out.shape
    each, out_size, area = filters // groups, (out_shape[0], out_shape[1]), math.prod(out_shape)
    size = (x.shape[2], x.shape[3])
    layout, offsets = _padded(size, kernel_size, stride, padding, dilation)
    taps, vector = layout.offsets.size, lanes(x.itemsize)
    chunks = max(1, min(n, CHUNKS))
    splits = max(1, min(groups, 2 * threads.count // chunks))  # leaves the order of sums alone
    workers = min(threads.count, chunks * splits)
    room = max(layout.phases * layout.rows * layout.columns, area) + vector
    shape = (workers, -(-groups // splits), each, offsets.size, vector)
    sums = for_each("sums", workers, math.prod(shape[1:]), x.dtype).reshape(shape)
    totals = np.empty((chunks, groups, each, taps))
    _weight_grad(
        grad_out.size * taps,
        grad_out.reshape(n, groups, each, area),
        x.reshape(n, groups, math.prod(size)),
        size,
        out_size,
        padding,
        stride,
        layout.packed,
        layout.rows,
        layout.columns,
        offsets,
        _mask(out_size[1], x.dtype),
        splits,
        workers,
        for_each("images", workers, 2 * room, x.dtype).reshape(workers, 2, room),
        sums,
        totals,
    )
    grad_weight[...] = totals.sum(axis=0).reshape(grad_weight.shape)
