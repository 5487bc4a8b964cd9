"""The gradient of a convolution's weights by register tiles whose depth is pixels.

For each image the error is turned into [pixel][filter], some hundred pixels at a time, so that they
stay in the first-level cache; every tap of the packed image is broadcast against it. A tile is some
taps by up to three vectors of filters.

Images are cut into chunks whose number depends on the shapes alone; their sums are added in order, so
the bytes do not depend on the number of threads.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from trine.dtypes import Array
from trine.kernels.numba import geometry
from trine.kernels.numba.conv import Pair
from trine.kernels.numba.conv_tiles import GRAIN, clear, for_each, pack_image
from trine.kernels.numba.jit import threads
from trine.kernels.numba.simd import (
    MOST_VECTORS,
    PIXEL_ROWS,
    VECTOR_BYTES,
    address,
    lanes,
    tile_of_pixels,
    transpose,
    turn,
)
from trine.kernels.numba.spread import each, inner, spread
from trine.kernels.registry import kernel

PIXELS = 256
"""Pixels whose errors are turned together: with their taps they stay in the first-level cache."""
CHUNKS = 8
MOST_SUMS = 1 << 22
"""Elements of all chunks' sums together; fewer chunks where a layer has many weights."""


@inner
def _add_images(
    item: int, error: Array, x: Array, size: Pair, border: Pair, stride: Pair, packed: bool,
    rows: int, columns: int, offsets: Array, pixels: Array, tall: int, wide: int, splits: int,
    buffers: Array, turned: Array, sums: Array,
) -> None:  # fmt: skip
    """sums[chunk, group, filter vectors][tap] += errors (N, G, K, P Q) by images (N, G, C, H W).

    There is an offset for each of a whole number of tiles' taps; pixels: where each output's first
    tap lies in a packed image. Filters are summed in blocks of `wide` vectors: a block of `own`
    filters has (taps, own) sums.
    """
    images, channels, area = error.shape[0], error.shape[2], error.shape[3]
    chunks, groups = sums.shape[0], sums.shape[1]
    itemsize = x.itemsize
    like = x.dtype.type(0)
    vector = VECTOR_BYTES // itemsize
    width = wide * vector
    blocks = (channels + width - 1) // width
    taps = offsets.size
    chunk, rest = divmod(item, groups * splits)
    group, split = divmod(rest, splits)
    first_block, last_block = split * blocks // splits, (split + 1) * blocks // splits
    buffer = address(buffers) + item * buffers.shape[1] * itemsize
    turned_error = address(turned) + item * turned.shape[1] * itemsize
    totals = address(sums) + (chunk * groups + group) * sums.shape[2] * itemsize
    add = 0
    if packed:
        clear(buffers[item])
    for image in range(chunk * images // chunks, (chunk + 1) * images // chunks):
        plane = image * groups + group
        source = address(x) + plane * x.shape[2] * x.shape[3] * itemsize
        errors = address(error) + plane * channels * area * itemsize
        if packed:
            pack_image(
                like, itemsize, source, x.shape[2], size, border[0], border[1], stride, rows,
                columns, buffer,
            )  # fmt: skip
            source = buffer
        for start in range(0, area, PIXELS):
            count = min(PIXELS, area - start)
            for block in range(first_block, last_block):
                k = block * width
                filters = min(width, channels - k)
                own = (filters + vector - 1) // vector * vector
                turn(
                    like, itemsize, errors + (k * area + start) * itemsize, area, filters, count,
                    turned_error, own,
                )  # fmt: skip
                for t in range(0, taps, tall):
                    tile_of_pixels(
                        like, tall, own // vector, source, address(offsets) + t * 8,
                        address(pixels) + start * 8, turned_error, own, count, add,
                        totals + (k * taps + t * own) * itemsize, own,
                    )  # fmt: skip
            add = 1


@spread(grain=GRAIN)
def _weight_grad(pool: int, threads: int, items: int, *args: Any) -> None:
    """Add up the images of all chunks, groups and splits."""
    each(_add_images, pool, threads, items, args)


@inner
def _add_chunks(
    item: int, sums: Array, taps: int, padded: int, wide: int, grad_weight: Array
) -> None:
    """grad_weight (G, K, taps) = the sum over chunks of sums, turned back."""
    chunks = sums.shape[0]
    channels = grad_weight.shape[1]
    itemsize = sums.itemsize
    vector = VECTOR_BYTES // itemsize
    width = wide * vector
    blocks = (channels + width - 1) // width
    group, block = divmod(item, blocks)
    k = block * width
    filters = min(width, channels - k)
    own = (filters + vector - 1) // vector * vector
    first, count = k * padded, taps * own
    total = sums[0, group, first : first + count]
    for chunk in range(1, chunks):
        more = sums[chunk, group, first : first + count]
        for i in range(count):
            total[i] += more[i]
    transpose(
        total.dtype.type(0), itemsize, address(total), own, taps, filters,
        address(grad_weight[group, k]), taps,
    )  # fmt: skip


@spread(grain=1 << 14)
def _finish(pool: int, threads: int, items: int, *args: Any) -> None:
    """Add the chunks of all groups and blocks of filters."""
    each(_add_chunks, pool, threads, items, args)


def _shape_of_tiles(taps: int, filters: int, vector: int) -> tuple[int, int]:
    """Return the rows and the vectors of the tiles that need the fewest cycles.

    A cycle takes two loads or two FMAs, and an FMA's sum is there four cycles later.
    """
    vectors = -(-filters // vector)
    wide = -(-vectors // -(-vectors // MOST_VECTORS))  # blocks of about the same width
    tall = min(
        PIXEL_ROWS[wide],
        key=lambda rows: -(-taps // rows) * max(4, rows * wide / 2, (rows + wide) / 2),
    )
    return tall, wide


@lru_cache(maxsize=256)
def _tables(
    channels: int, size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
    out_size: Pair, tall: int,
) -> tuple[geometry.Forward, Array, Array]:  # fmt: skip
    """Return the layout, its offsets padded to whole tiles, and the places of the pixels."""
    layout = geometry.forward(channels, size, kernel_size, stride, padding, dilation)
    taps = layout.offsets.size
    offsets = np.concatenate([layout.offsets, np.repeat(layout.offsets[-1:], -taps % tall)])
    i, j = np.ogrid[: out_size[0], : out_size[1]]
    return layout, offsets, (i * layout.columns + j).astype(np.int64).ravel()


@kernel(
    "conv2d_weight_grad", backend="numba", name="tiles", priority=1,
    supports=lambda grad_out, groups, **_: grad_out.shape[1] >= (3 * groups if groups > 1 else 1),
)  # fmt: skip
def conv2d_weight_grad(
    grad_out: Array, x: Array, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, grad_weight: Array,
) -> None:  # fmt: skip
    """grad_w[k, c, r, s] = sum_nij grad_out[n, k, i, j] x[n, c, i sh - ph + r dh, ...]."""
    if not grad_out.size or not grad_weight.size:
        grad_weight[...] = 0
        return
    n, filters, rows, columns = grad_out.shape
    channels, height, width = x.shape[1:]
    each, depth = filters // groups, channels // groups
    vector = lanes(x.itemsize)
    tall, wide = _shape_of_tiles(depth * kernel_size[0] * kernel_size[1], each, vector)
    layout, offsets, pixels = _tables(
        depth, (height, width), kernel_size, stride, padding, dilation, (rows, columns), tall
    )
    length = -(-each // vector) * vector * offsets.size
    chunks = max(1, min(n, CHUNKS, MOST_SUMS // max(1, length * groups)))
    blocks = -(-each // (wide * vector))
    splits = max(1, min(blocks, 2 * threads.count // (chunks * groups)))
    items = chunks * groups * splits
    image = depth * layout.phases * layout.rows * layout.columns if layout.packed else 0
    sums = for_each("sums", chunks * groups, length, x.dtype).reshape(chunks, groups, length)
    _weight_grad(
        grad_out.size * layout.offsets.size, items,
        grad_out.reshape(n, groups, each, rows * columns),
        x.reshape(n, groups, depth, height * width),
        (height, width), padding, stride, layout.packed, layout.rows, layout.columns, offsets,
        pixels, tall, wide, splits, for_each("images", items, image, x.dtype),
        for_each("turned", items, PIXELS * wide * vector, x.dtype), sums,
    )  # fmt: skip
    taps = layout.offsets.size
    _finish(
        sums.size,
        groups * blocks,
        sums,
        taps,
        offsets.size,
        wide,
        grad_weight.reshape(groups, each, taps),
    )
