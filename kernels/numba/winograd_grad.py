"""The gradient of 3x3 weights of stride 1 by Winograd's minimal filtering, F(3x3, 2x2).

    dW = A^T [ sum over tiles (G e G^T) (.) (B^T d B) ] A

for tiles e of 2x2 errors and d of 4x4 inputs: the inputs are transformed as for F(2x2, 3x3), and the
sums over tiles are 16 products of matrices, (filters, tiles) by (tiles, channels): 16 multiplications a
tile instead of 36. Some images at a time are transformed, so that what is transformed stays in the
last-level cache; which ones depends on the shapes alone, and each sum belongs to one thread.

Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", 2015 (arXiv:1509.09308).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from trine.dtypes import Array
from trine.kernels.numba.conv import Pair
from trine.kernels.numba.conv_tiles import for_each, pack_image
from trine.kernels.numba.simd import (
    MOST_VECTORS,
    ROWS,
    VECTOR_BYTES,
    Vectors,
    address,
    lanes,
    number,
    tile_of_steps,
    turn,
)
from trine.kernels.numba.spread import each, inner, spread
from trine.kernels.numba.winograd import apart, both_sides, transform_input2
from trine.kernels.registry import kernel

GRAIN = 1 << 20
POSITIONS = 16
PAYS_FROM = 64
"""Channels on both sides from which the products outweigh the transforms."""
TILES = 256
"""Tiles whose transforms are held at once, at least: a panel of them stays in the first cache."""
G: list[list[float]] = [[1, 0], [1 / 2, 1 / 2], [1 / 2, -1 / 2], [0, 1]]
AT: list[list[float]] = [[1, 1, 1, 0], [0, 1, -1, 0], [0, 1, 1, -1]]
"""With the B^T of F(2x2, 3x3)."""


@intrinsic
def _transform_error(typingctx: Any, like: Any, x: Any, plane: Any, out: Any, out_step: Any) -> Any:
    """G e G^T for neighbouring tiles: e from phases `plane` apart, position t to out + t out_step."""
    signature = types.void(like, *[types.int64] * 4)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Vectors(builder, signature.args[0])
        _, x, plane, out, out_step = args
        source, target = v.pointer(x), v.pointer(out)
        phases = [v.load(v.at(source, b.mul(plane, number(i)))) for i in range(4)]
        square = both_sides(v, G, [phases[:2], phases[2:]])
        for t, value in enumerate(value for row in square for value in row):
            v.store(value, v.at(target, b.mul(out_step, number(t))))
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def _transform_sums(typingctx: Any, like: Any, x: Any, step: Any, out: Any) -> Any:
    """A^T y A for neighbouring channels: position t of y at x + t step; 3x3 vectors to out."""
    signature = types.void(like, *[types.int64] * 3)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Vectors(builder, signature.args[0])
        _, x, step, out = args
        source, target = v.pointer(x), v.pointer(out)
        square = [
            [v.load(v.at(source, b.mul(step, number(4 * i + j)))) for j in range(4)]
            for i in range(4)
        ]
        for t, value in enumerate(value for row in both_sides(v, AT, square) for value in row):
            v.store(value, v.at(target, number(t * v.lanes)))
        return context.get_dummy_value()

    return signature, emit


@inner
def _transform_channel(
    item: int, image: int, here: int, x: Array, error: Array, size: Pair, error_size: Pair,
    border: Pair, rows: int, columns: int, total: int, pitch: int, planes: Array, inputs: Array,
    errors: Array,
) -> None:  # fmt: skip
    """Transform one channel of x (N, C, H W), or one of error (N, K, P Q), of some images.

    inputs (16, C pitch), errors (16, K pitch), and more between positions: `total` tiles of each
    image after those of the one before; what a vector writes too much is overwritten by the next.
    """
    channels = x.shape[1]
    like, itemsize = x.dtype.type(0), x.itemsize
    vector = VECTOR_BYTES // itemsize
    plane = rows * columns
    packed = address(planes[item])
    is_input = item < channels
    c = item if is_input else item - channels
    planes[item].fill(like)
    for n in range(here):
        if is_input:
            pack_image(
                like, itemsize, address(x[image + n, c]), 1, size, border[0], border[1], (2, 2), rows,
                columns, packed,
            )  # fmt: skip
        else:
            pack_image(
                like, itemsize, address(error[image + n, c]), 1, error_size, 0, 0, (2, 2), rows,
                columns, packed,
            )  # fmt: skip
        for p in range(0, total, vector):
            if is_input:
                target = address(inputs) + (c * pitch + n * total + p) * itemsize
                transform_input2(
                    like, packed + p * itemsize, plane, columns, target, inputs.shape[1]
                )
            else:
                target = address(errors) + (c * pitch + n * total + p) * itemsize
                _transform_error(like, packed + p * itemsize, plane, target, errors.shape[1])


@spread(grain=1 << 14)
def _transform(pool: int, threads: int, items: int, *args: Any) -> None:
    """Transform every channel."""
    each(_transform_channel, pool, threads, items, args)


@inner
def _multiply_panel(
    item: int, filters: int, channels: int, depth: int, add: int, pitch: int, inputs: Array,
    errors: Array, panels: Array, tables: Array, sums: Array,
) -> None:  # fmt: skip
    """sums[t, k, c] (+)= sum over tiles of errors[t, k] inputs[t, c], for a panel of channels."""
    like, itemsize = sums.dtype.type(0), sums.itemsize
    width = MOST_VECTORS * (VECTOR_BYTES // itemsize)
    count = (channels + width - 1) // width
    t, panel = divmod(item, count)
    first = panel * width
    own = min(width, channels - first)
    turned, rows = address(panels[item]), tables[item]
    turn(
        like,
        itemsize,
        address(inputs[t]) + first * pitch * itemsize,
        pitch,
        own,
        depth,
        turned,
        own,
    )
    for k in range(0, filters, ROWS):
        for g in range(ROWS):
            rows[g] = (k + g) * pitch
        tile_of_steps(
            like, own * itemsize // VECTOR_BYTES, address(errors[t]), address(rows), 1, turned, own,
            depth, add, address(sums[t]) + (k * channels + first) * itemsize, channels,
        )  # fmt: skip


@spread(grain=1 << 14)
def _multiply(pool: int, threads: int, items: int, *args: Any) -> None:
    """Multiply every panel at every position."""
    each(_multiply_panel, pool, threads, items, args)


@inner
def _finish_filter(k: int, sums: Array, vectors: Array, grad_weight: Array) -> None:
    """grad_weight[k] (C, 3 3) from the sums (K C) at the 16 positions."""
    channels = grad_weight.shape[1]
    like, itemsize = sums.dtype.type(0), sums.itemsize
    vector = VECTOR_BYTES // itemsize
    own = vectors[k]
    for c in range(0, channels, vector):
        _transform_sums(
            like, address(sums) + (k * channels + c) * itemsize, sums.shape[1], address(own)
        )
        for i in range(vector):
            target = grad_weight[k, c + i]
            for t in range(9):
                target[t] = own[t * vector + i]


@spread(grain=1 << 14)
def _finish(pool: int, threads: int, items: int, *args: Any) -> None:
    """Finish every filter."""
    each(_finish_filter, pool, threads, items, args)


def _serves(
    grad_out: Array, x: Array, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, **_: Any,
) -> bool:  # fmt: skip
    filters, channels = grad_out.shape[1], x.shape[1]
    return (
        (kernel_size, stride, dilation, groups) == ((3, 3), (1, 1), (1, 1), 1)
        and min(filters, channels) >= PAYS_FROM
        and filters % ROWS == 0
        and channels % lanes(x.itemsize) == 0
        and grad_out.size > 0
    )


@kernel(
    "conv2d_weight_grad", backend="numba", name="winograd2", priority=3, supports=_serves,
    flops=16 / 36,
)  # fmt: skip
def conv2d_weight_grad(
    grad_out: Array, x: Array, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, grad_weight: Array,
) -> None:  # fmt: skip
    """grad_w[k, c, r, s] = sum_nij grad_out[n, k, i, j] x[n, c, i - ph + r, j - pw + s]."""
    n, channels, height, width = x.shape
    filters, *error_size = grad_out.shape[1:]
    rows, columns = (-(-size // 2) + 1 for size in error_size)
    total = (rows - 1) * columns - 1  # tiles of an image; the last of each row but one is a border
    together = min(n, -(-TILES // total))
    vector = lanes(x.itemsize)
    pitch = -(-(together * total) // vector) * vector + vector
    dtype, width_of_panel = x.dtype, MOST_VECTORS * vector
    itemsize = x.itemsize
    inputs = for_each("winograd inputs", POSITIONS, apart(channels * pitch, itemsize), dtype)
    errors = for_each("winograd errors", POSITIONS, apart(filters * pitch, itemsize), dtype)
    sums = for_each("winograd sums", POSITIONS, apart(filters * channels, itemsize), dtype)
    items = POSITIONS * -(-channels // width_of_panel)
    planes = for_each("planes", channels + filters, 4 * rows * columns + 2 * vector, dtype)
    panels = for_each("winograd panels", items, (pitch + vector) * width_of_panel, dtype)
    tables = for_each("rows", items, ROWS, np.dtype(np.int64))
    images, all_errors = x.reshape(n, channels, -1), grad_out.reshape(n, filters, -1)
    for image in range(0, n, together):
        here = min(together, n - image)
        _transform(
            here * total * (channels + filters) * POSITIONS, channels + filters, image, here, images,
            all_errors, (height, width), (error_size[0], error_size[1]), padding, rows, columns,
            total, pitch, planes, inputs, errors,
        )  # fmt: skip
        _multiply(
            here * total * filters * channels * POSITIONS, items, filters, channels,
            here * total, int(image > 0), pitch, inputs, errors, panels, tables, sums,
        )  # fmt: skip
    vectors = for_each("winograd weights", filters, 9 * vector, dtype)
    _finish(
        filters * channels * POSITIONS, filters, sums, vectors,
        grad_weight.reshape(filters, channels, 9),
    )  # fmt: skip
