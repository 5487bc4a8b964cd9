"""The gradient of a convolution's weights by register tiles whose depth is pixels.

For each image the error is turned into [pixel][filter], some hundred pixels at a time, so that they
stay in the first-level cache; every tap of the packed image is broadcast against it. A tile is ROWS
taps by up to three vectors of filters.

Images are cut into chunks whose number depends on the shapes alone; their sums are added in order, so
the bytes do not depend on the number of threads.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba import geometry
from trine.kernels.numba.conv import Pair
from trine.kernels.numba.conv_tiles import GRAIN, clear, for_each, pack_image
from trine.kernels.numba.jit import parallel, threads
from trine.kernels.numba.simd import (
    MOST_VECTORS,
    ROWS,
    VECTOR_BYTES,
    address,
    lanes,
    tile_of_pixels,
    transpose,
)
from trine.kernels.registry import kernel

PIXELS = 256
"""Pixels whose errors are turned together: with their taps they stay in the first-level cache."""
CHUNKS = 8
MOST_SUMS = 1 << 22
"""Elements of all chunks' sums together; fewer chunks where a layer has many weights."""


@parallel(grain=GRAIN)
def _weight_grad(
    error: Array, x: Array, size: Pair, border: Pair, stride: Pair, packed: bool, rows: int,
    columns: int, offsets: Array, pixels: Array, taps: int, splits: int, buffers: Array,
    turned: Array, sums: Array,
) -> None:  # fmt: skip
    """sums[chunk, group, filter vectors][tap] += errors (N, G, K, P Q) by images (N, G, C, H W).

    offsets are padded to a multiple of ROWS; pixels: where each output's first tap lies in a packed
    image. Filters are summed in blocks of vectors: a block of `own` filters has (taps, own) sums.
    """
    images, channels, area = error.shape[0], error.shape[2], error.shape[3]
    chunks, groups = sums.shape[0], sums.shape[1]
    itemsize = x.itemsize
    like = x.dtype.type(0)
    vector = VECTOR_BYTES // itemsize
    width = MOST_VECTORS * vector
    blocks = (channels + width - 1) // width
    for item in prange(chunks * groups * splits):
        chunk, rest = divmod(np.int64(item), groups * splits)
        group, split = divmod(rest, splits)
        first_block, last_block = split * blocks // splits, (split + 1) * blocks // splits
        add = 0
        if packed:
            clear(buffers[item])
        for image in range(chunk * images // chunks, (chunk + 1) * images // chunks):
            if packed:
                pack_image(
                    x[image, group], size, border[0], border[1], stride, rows, columns,
                    buffers[item],
                )  # fmt: skip
                source = address(buffers[item])
            else:
                source = address(x[image, group])
            for start in range(0, area, PIXELS):
                count = min(PIXELS, area - start)
                for block in range(first_block, last_block):
                    k = block * width
                    filters = min(width, channels - k)
                    own = (filters + vector - 1) // vector * vector
                    transpose(
                        like, itemsize, address(error[image, group, k]) + start * itemsize, area,
                        filters, count, address(turned[item]), own,
                    )  # fmt: skip
                    for t in range(0, taps, ROWS):
                        tile_of_pixels(
                            like,
                            own // vector,
                            source,
                            address(offsets) + t * 8,
                            address(pixels) + start * 8,
                            address(turned[item]),
                            own,
                            count,
                            add,
                            address(sums[chunk, group]) + (k * offsets.size + t * own) * itemsize,
                            own,
                        )
                add = 1


@parallel(grain=1 << 14)
def _finish(sums: Array, taps: int, padded: int, grad_weight: Array) -> None:
    """grad_weight (G, K, taps) = the sum over chunks of sums, turned back."""
    chunks, groups = sums.shape[0], sums.shape[1]
    channels = grad_weight.shape[1]
    itemsize = sums.itemsize
    vector = VECTOR_BYTES // itemsize
    width = MOST_VECTORS * vector
    blocks = (channels + width - 1) // width
    for item in prange(groups * blocks):
        group, block = divmod(np.int64(item), blocks)
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


@lru_cache(maxsize=256)
def _tables(
    channels: int, size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
    out_size: Pair,
) -> tuple[geometry.Forward, Array, Array]:  # fmt: skip
    """Return the layout, its offsets padded to whole tiles, and the places of the pixels."""
    layout = geometry.forward(channels, size, kernel_size, stride, padding, dilation)
    taps = layout.offsets.size
    offsets = np.concatenate([layout.offsets, np.repeat(layout.offsets[-1:], -taps % ROWS)])
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
    layout, offsets, pixels = _tables(
        depth, (height, width), kernel_size, stride, padding, dilation, (rows, columns)
    )
    vector = lanes(x.itemsize)
    length = -(-each // vector) * vector * offsets.size
    chunks = max(1, min(n, CHUNKS, MOST_SUMS // max(1, length * groups)))
    blocks = -(-each // (MOST_VECTORS * vector))
    splits = max(1, min(blocks, 2 * threads.count // (chunks * groups)))
    items = chunks * groups * splits
    image = depth * layout.phases * layout.rows * layout.columns if layout.packed else 0
    sums = for_each("sums", chunks * groups, length, x.dtype).reshape(chunks, groups, length)
    _weight_grad(
        grad_out.size * layout.offsets.size,
        grad_out.reshape(n, groups, each, rows * columns),
        x.reshape(n, groups, depth, height * width),
        (height, width), padding, stride, layout.packed, layout.rows, layout.columns, offsets,
        pixels, layout.offsets.size, splits, for_each("images", items, image, x.dtype),
        for_each("turned", items, PIXELS * MOST_VECTORS * vector, x.dtype), sums,
    )  # fmt: skip
    taps = layout.offsets.size
    _finish(sums.size, sums, taps, offsets.size, grad_weight.reshape(groups, each, taps))
