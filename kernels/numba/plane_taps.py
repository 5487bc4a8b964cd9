"""Sums over the taps of one channel: what depthwise convolutions and gradients of pooling do.

A packed plane (`geometry`) holds every tap at a fixed distance from the output, at any stride. So a
vector of neighbouring outputs is a sum of vectors, each read at an offset of a table:

    out[j] = bias + sum_t weights[numbers[t]] x[offsets[t] + j]

A row's last vector overlaps the one before it, and a row narrower than a vector is computed as a
whole one (see `windows`). Outputs of a stride are computed phase by phase and then woven together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from trine.dtypes import Array, DType
from trine.kernels.numba import geometry
from trine.kernels.numba.conv import Pair
from trine.kernels.numba.conv_tiles import for_each, pack_image
from trine.kernels.numba.jit import helper
from trine.kernels.numba.simd import VECTOR_BYTES, address, lanes, load_int, number
from trine.kernels.numba.windows import Windows

_I64 = ir.IntType(64)
BLOCK = 4
"""Rows that are computed together: a tap's weight is loaded once for all of them."""


TAPS_FROM, TAPS, HEIGHT, WIDTH, PLANE = range(5)
"""The columns of the table of phases."""


@dataclass(frozen=True)
class BackwardTaps:
    """The taps of an input's gradient in the bordered error of a channel, phase after phase."""

    border: Pair
    rows: int
    columns: int
    offsets: Array
    numbers: Array
    """Which of a group's weights (k, r, s) a tap is."""
    phases: Array


@lru_cache(maxsize=256)
def backward_taps(
    filters: int, size: Pair, out_size: Pair, kernel: Pair, stride: Pair, padding: Pair,
    dilation: Pair,
) -> BackwardTaps:  # fmt: skip
    """Return the taps of a geometry; `filters`: of one input channel."""
    layout = geometry.backward(filters, size, out_size, kernel, stride, padding, dilation)
    table, numbers = [], []
    before = 0
    for phase in layout.phases:
        taps, plane = phase.offsets.size, phase.row * stride[1] + phase.column
        table.append([before, taps, phase.rows, phase.columns, plane])
        k, r, s = np.ix_(range(filters), phase.taps_r, phase.taps_s)
        numbers.append(((k * kernel[0] + r) * kernel[1] + s).astype(np.int64).ravel())
        before += taps
    return BackwardTaps(
        (layout.top, layout.left),
        layout.rows,
        layout.columns,
        np.concatenate([phase.offsets for phase in layout.phases]),
        np.concatenate(numbers),
        np.array(table, dtype=np.int64),
    )


def phase_sums(workers: int, size: Pair, stride: Pair, dtype: DType) -> Array:
    """Return room for each worker's phases of a plane (workers, phases, rows, whole vectors)."""
    if stride == (1, 1):
        return for_each("sums", workers, 0, dtype).reshape(workers, 0, 0, 0)
    vector = lanes(dtype.itemsize)
    rows, columns = -(-size[0] // stride[0]), -(-size[1] // (stride[1] * vector)) * vector
    planes = stride[0] * stride[1]
    sums = for_each("sums", workers, planes * rows * columns, dtype)
    return sums.reshape(workers, planes, rows, columns)


def table_entry(b: Any, base: Any, index: Any) -> Any:
    return b.load(b.gep(b.inttoptr(base, _I64.as_pointer()), [index]))


def _make_sum(rows: int) -> Any:
    @intrinsic
    def sum_taps(
        typingctx: Any, like: Any, x: Any, pitch: Any, offsets: Any, numbers: Any, weights: Any,
        taps: Any, bias: Any, out: Any, out_pitch: Any, room: Any,
    ) -> Any:  # fmt: skip
        """One vector of each of `rows` rows."""
        signature = types.void(like, *[types.int64] * 6, like, *[types.int64] * 3)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            b, v = builder, Windows(builder, signature.args[0])
            _, x, pitch, offsets, numbers, weights, taps, bias, out, out_pitch, room = args
            source, factors = v.pointer(x), v.pointer(weights)
            sums = [cgutils.alloca_once_value(b, v.broadcast(bias)) for _ in range(rows)]
            with cgutils.for_range(b, taps, intp=_I64) as tap:
                here = v.at(source, table_entry(b, offsets, tap.index))
                factor = v.broadcast(b.load(v.at(factors, table_entry(b, numbers, tap.index))))
                for held in sums:
                    b.store(v.fma(factor, v.load(here), b.load(held)), held)
                    here = v.at(here, pitch)
            target = v.pointer(out)
            for held in sums:
                v.store_within([b.load(held)], target, room)
                target, room = v.at(target, out_pitch), b.sub(room, out_pitch)
            return context.get_dummy_value()

        return signature, emit

    return sum_taps


_sum_row, _sum_rows = _make_sum(1), _make_sum(BLOCK)


@intrinsic
def _sum_squares(
    typingctx: Any, like: Any, x: Any, pitch: Any, weights: Any, step: Any, bias: Any,
    columns: Any, out: Any, out_pitch: Any,
) -> Any:  # fmt: skip
    """BLOCK whole rows, for taps of 3 x 3 neighbours: each pixel is read once.

    The weights stay in registers. Rows narrower than a vector are written as a vector.
    """
    signature = types.void(like, *[types.int64] * 4, like, *[types.int64] * 3)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Windows(builder, signature.args[0])
        _, x, pitch, weights, step, bias, columns, out, out_pitch = args
        factors = v.pointer(weights)
        taps = [v.broadcast(b.load(v.at(factors, b.mul(step, number(t))))) for t in range(9)]
        bias = v.broadcast(bias)
        last = b.sub(columns, number(v.lanes))
        last = b.select(b.icmp_signed("<", last, number(0)), number(0), last)
        with cgutils.for_range_slice(b, number(0), columns, number(v.lanes), _I64) as (column, _):
            j = b.select(b.icmp_signed("<", column, last), column, last)
            line, target = v.at(v.pointer(x), j), v.at(v.pointer(out), j)
            sums = [bias] * BLOCK
            for y in range(BLOCK + 2):
                for s in range(3):
                    pixels = v.load(v.at(line, number(s)))
                    for g in range(max(0, y - 2), min(BLOCK, y + 1)):
                        sums[g] = v.fma(taps[3 * (y - g) + s], pixels, sums[g])
                line = v.at(line, pitch)
            for value in sums:
                v.store(value, target)
                target = v.at(target, out_pitch)
        return context.get_dummy_value()

    return signature, emit


@helper
def sum_plane(
    like: Any, itemsize: int, x: int, pitch: int, offsets: int, numbers: int, weights: int,
    taps: int, square: int, bias: Any, size: Pair, out: int, out_pitch: int, room: int,
) -> None:  # fmt: skip
    """Compute a plane of outputs of `size`; `room` elements may be written from `out` on.

    square: 1 where the taps are 3 x 3 neighbours, -1 where they run backwards, else 0.
    """
    vector = VECTOR_BYTES // itemsize
    rows, columns = size
    first = 8 if square < 0 else 0
    corner = x + load_int(offsets + 8 * first) * itemsize if square else x
    step = BLOCK if rows >= BLOCK else 1
    for row in range(0, rows, step):
        i = min(row, rows - step)
        left = room - i * out_pitch
        if square and step > 1 and (columns >= vector or left >= (BLOCK - 1) * out_pitch + vector):
            _sum_squares(
                like, corner + i * pitch * itemsize, pitch, weights + first * itemsize, square,
                bias, columns, out + i * out_pitch * itemsize, out_pitch,
            )  # fmt: skip
            continue
        for column in range(0, columns, vector):
            j = max(0, min(column, columns - vector))
            source = x + (i * pitch + j) * itemsize
            place = i * out_pitch + j
            target, left = out + place * itemsize, room - place
            if step == 1:
                _sum_row(
                    like, source, pitch, offsets, numbers, weights, taps, bias, target, out_pitch,
                    left,
                )  # fmt: skip
            else:
                _sum_rows(
                    like, source, pitch, offsets, numbers, weights, taps, bias, target, out_pitch,
                    left,
                )  # fmt: skip


@intrinsic
def _weave_pair(typingctx: Any, like: Any, x: Any, y: Any, out: Any) -> Any:
    """out = x[0], y[0], x[1], y[1], ... for a vector of each."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Windows(builder, signature.args[0])
        _, x, y, out = args
        target = v.pointer(out)
        for value in v.zipped(v.load(v.pointer(x)), v.load(v.pointer(y))):
            v.store(value, target)
            target = v.at(target, number(v.lanes))
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 3), emit


@helper
def weave(phases: Array, stride: Pair, size: Pair, out: Array) -> None:
    """Write phases (sh sw, rows, columns) to the pixels (a + i sh, b + j sw) of a plane (H W)."""
    height, width = size
    sh, sw = stride
    vector = VECTOR_BYTES // out.itemsize
    like = out.dtype.type(0)
    for y in range(height):
        i, a = divmod(y, sh)
        lines = phases[a * sw : a * sw + sw, i]
        pairs = 0
        if sw == 2:
            start = address(out) + y * width * out.itemsize
            even, odd = address(lines[0]), address(lines[1])
            pairs = width // 2
            for column in range(0, pairs, vector):
                j = min(column, pairs - vector)
                if j < 0:
                    pairs = 0
                    break
                at = j * out.itemsize
                _weave_pair(like, even + at, odd + at, start + 2 * at)
        for b in range(sw):
            for j in range(pairs, (width - b + sw - 1) // sw):
                out[y * width + j * sw + b] = lines[b, j]


@intrinsic
def _split_pairs(typingctx: Any, like: Any, x: Any, even: Any, odd: Any) -> Any:
    """Store the even and the odd ones of two vectors' elements."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Windows(builder, signature.args[0])
        for values, place in zip(v.pairs(v.pointer(args[1])), args[2:], strict=True):
            v.store(values, v.pointer(place))
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 3), emit


@helper
def pack_plane(
    x: Array, size: Pair, border: Pair, stride: Pair, rows: int, columns: int, out: Array
) -> None:
    """Copy a plane (1, H W) to where it lies in its phases; the zeros around it stay."""
    if stride[1] != 2:
        pack_image(
            out.dtype.type(0), x.itemsize, address(x), x.shape[0], size, border[0], border[1],
            stride, rows, columns, address(out),
        )  # fmt: skip
        return
    height, width = size
    like = out.dtype.type(0)
    itemsize, vector = out.itemsize, VECTOR_BYTES // out.itemsize
    left = border[1]
    pairs = width // 2
    for y in range(height):
        i, a = divmod(y + border[0], stride[0])
        start = (2 * a * rows + i) * columns
        even = start + left % 2 * rows * columns + left // 2
        odd = start + (left + 1) % 2 * rows * columns + (left + 1) // 2
        pixels = x[0, y * width : (y + 1) * width]
        if pairs >= vector:
            for column in range(0, pairs, vector):
                j = min(column, pairs - vector)
                _split_pairs(
                    like, address(pixels) + 2 * j * itemsize, address(out) + (even + j) * itemsize,
                    address(out) + (odd + j) * itemsize,
                )  # fmt: skip
        else:
            for j in range(pairs):
                out[even + j] = pixels[2 * j]
                out[odd + j] = pixels[2 * j + 1]
        if width % 2:
            out[even + pairs] = pixels[width - 1]
