"""The gradient of a depthwise convolution's weights: dot products of errors with shifted planes.

A vector of sums for each tap stays in a register while the error is walked over. Images are cut into
chunks whose number depends on the shapes alone, and their sums are added in order, so the bytes do
not depend on the number of threads.
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
from trine.kernels.numba.conv_tiles import clear, for_each
from trine.kernels.numba.depthwise import GRAIN, is_square, serves
from trine.kernels.numba.jit import helper, parallel, threads
from trine.kernels.numba.plane_taps import pack_plane, table_entry
from trine.kernels.numba.simd import VECTOR_BYTES, address, lanes, number
from trine.kernels.numba.windows import Windows
from trine.kernels.registry import kernel

_I64 = ir.IntType(64)
DOTS = 9
"""Taps whose sums are held in registers together, besides a vector of errors and one of pixels."""
CHUNKS = 8


class _Dots:
    """Emits sums of products of an error with shifted pixels, a vector of sums for each tap.

    mask: address of the lanes that count in a row's last vector where it is not a whole one. They
    are cleared in both factors, as 0 times what lies there may be NaN.
    """

    def __init__(self, builder: Any, like: Any, columns: Any, mask: Any, sums: Any) -> None:
        self.b, self.v = builder, Windows(builder, like)
        b, v = self.b, self.v
        total = v.pointer(sums)
        self.places = [v.at(total, number(t * v.lanes)) for t in range(DOTS)]
        self.held = [cgutils.alloca_once_value(b, v.load(place)) for place in self.places]
        self.columns = columns
        self.kept = b.bitcast(v.load(v.pointer(mask)), v.counters)

    def add(self, tap: int, error: Any, pixels: Any) -> None:
        """Emit sums[tap] += error * pixels."""
        held = self.held[tap]
        self.b.store(self.v.fma(error, pixels, self.b.load(held)), held)

    def masked(self, pointer: Any) -> Any:
        b, v = self.b, self.v
        return b.bitcast(b.and_(b.bitcast(v.load(pointer), v.counters), self.kept), v.type)

    def along_row(self, emit: Callable[[Callable[[Any], Any], Any], None]) -> None:
        """Call emit(read, j) for the vectors of a row, the last of which may be a part of one."""
        b, v = self.b, self.v
        left = b.urem(self.columns, number(v.lanes))
        whole = b.sub(self.columns, left)
        last = b.sub(self.columns, number(v.lanes))
        last = b.select(b.icmp_signed("<", last, number(0)), number(0), last)
        with cgutils.for_range_slice(b, number(0), whole, number(v.lanes), _I64) as (j, _):
            emit(v.load, j)
        with b.if_then(b.icmp_signed("!=", left, number(0))):
            emit(self.masked, last)

    def store(self) -> None:
        for place, held in zip(self.places, self.held, strict=True):
            self.v.store(self.b.load(held), place)


@intrinsic
def _dot_taps(
    typingctx: Any, like: Any, error: Any, rows: Any, columns: Any, x: Any, pitch: Any,
    offsets: Any, mask: Any, sums: Any,
) -> Any:  # fmt: skip
    """sums[t] += sum_ij error[i, j] x[offsets[t] + i pitch + j] for DOTS taps; see `_Dots`."""
    signature = types.void(like, *[types.int64] * 8)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, error, rows, columns, x, pitch, offsets, mask, sums = args
        b, dots = builder, _Dots(builder, signature.args[0], columns, mask, sums)
        v = dots.v
        errors, pixels = v.pointer(error), v.pointer(x)
        starts = [v.at(pixels, table_entry(b, offsets, number(t))) for t in range(DOTS)]
        with cgutils.for_range(b, rows, intp=_I64) as row:
            line, at = b.mul(row.index, columns), b.mul(row.index, pitch)

            def add(read: Callable[[Any], Any], j: Any, line: Any = line, at: Any = at) -> None:
                factor = read(v.at(errors, b.add(line, j)))
                for t, start in enumerate(starts):
                    dots.add(t, factor, read(v.at(start, b.add(at, j))))

            dots.along_row(add)
        dots.store()
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def _dot_square(
    typingctx: Any, like: Any, error: Any, rows: Any, columns: Any, x: Any, pitch: Any, mask: Any,
    sums: Any,
) -> Any:  # fmt: skip
    """sums[3 r + s] += sum_ij error[i, j] x[(i + r) pitch + j + s], r and s < 3, rows >= 2.

    It walks down the columns: each row of pixels meets the errors of three rows, two of which are
    still in registers, so that nine products take four loads.
    """
    signature = types.void(like, *[types.int64] * 7)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, error, rows, columns, x, pitch, mask, sums = args
        b, dots = builder, _Dots(builder, signature.args[0], columns, mask, sums)
        v = dots.v
        errors, pixels = v.pointer(error), v.pointer(x)
        one_above, two_above = (cgutils.alloca_once(b, v.type) for _ in range(2))

        def down(read: Callable[[Any], Any], j: Any) -> None:
            def error_of(row: Any) -> Any:
                return read(v.at(errors, b.add(b.mul(row, columns), j)))

            def meet(row: Any, errors_by_r: dict[int, Any]) -> None:
                start = v.at(pixels, b.add(b.mul(row, pitch), j))
                for s in range(3):
                    shifted = read(v.at(start, number(s)))
                    for r, factor in errors_by_r.items():
                        dots.add(3 * r + s, factor, shifted)

            first, second = error_of(number(0)), error_of(number(1))
            meet(number(0), {0: first})
            meet(number(1), {0: second, 1: first})
            b.store(second, one_above)
            b.store(first, two_above)
            with cgutils.for_range_slice(b, number(2), rows, number(1), _I64) as (row, _):
                here, above = error_of(row), b.load(one_above)
                meet(row, {0: here, 1: above, 2: b.load(two_above)})
                b.store(above, two_above)
                b.store(here, one_above)
            meet(rows, {1: b.load(one_above), 2: b.load(two_above)})
            meet(b.add(rows, number(1)), {2: b.load(one_above)})

        dots.along_row(down)
        dots.store()
        return context.get_dummy_value()

    return signature, emit


@helper
def _dot_images(
    error: Array, x: Array, images: Pair, channels: Pair, size: Pair, out_size: Pair, border: Pair,
    stride: Pair, packed: bool, rows: int, columns: int, offsets: Array, square: bool, mask: Array,
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
                target = sums[c - channels[0], k]
                if square:
                    _dot_square(
                        like, place, out_size[0], out_size[1], source, columns, address(mask),
                        address(target),
                    )  # fmt: skip
                    continue
                for t in range(0, offsets.size, DOTS):
                    _dot_taps(
                        like, place, out_size[0], out_size[1], source, columns,
                        address(offsets) + 8 * t, address(mask), address(target[t]),
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
    rows: int, columns: int, offsets: Array, square: bool, mask: Array, splits: int, workers: int,
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
                border, stride, packed, rows, columns, offsets, square, mask, copies[w], sums[w],
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
    supports=lambda x, groups, **_: serves(x.shape[1] // groups, groups),
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
        is_square(kernel_size, stride, dilation) and out_size[0] > 1,
        _mask(out_size[1], x.dtype),
        splits,
        workers,
        for_each("images", workers, 2 * room, x.dtype).reshape(workers, 2, room),
        sums,
        totals,
    )
    grad_weight[...] = totals.sum(axis=0).reshape(grad_weight.shape)
