"""Convolution by 1x1 kernels, and the gradient of its input: a product for every image.

Neighbouring pixels of an image, as many as a tile is wide, are brought side by side channel by
channel; they stay in the first-level cache while all filters pass over them. Tiles add the bias,
rectify and write straight into the output, so nothing else is stored.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from trine.dtypes import Array
from trine.kernels.numba.activation import bias_act
from trine.kernels.numba.conv import Pair
from trine.kernels.numba.conv_plan import OVERRUN
from trine.kernels.numba.conv_tiles import GRAIN, NO_TAPS, RELU, for_each, pack_weights
from trine.kernels.numba.gemm import transposed
from trine.kernels.numba.jit import scratch, threads
from trine.kernels.numba.simd import (
    VECTOR_BYTES,
    address,
    lanes,
    lines_of_taps,
    move_vector,
)
from trine.kernels.numba.spread import each, inner, spread
from trine.kernels.registry import kernel

ROWS, WIDE = (8, 3) if VECTOR_BYTES == 64 else (6, 2)
"""Filters and vectors of a tile: a narrow one leaves room for weights beside its pixels."""
LEAST_DEPTH = 128
"""Channels of the input from which a tile's sums are long against what writing them scattered costs."""
LEAST_FILTERS = 32
MOST_PIXELS = 1024
"""Pixels of an image up to which its channels lie so close together that their pages stay known."""


@inner
def _tile(vectors: int, tiles: int, tile: int, area: int, vector: int) -> tuple[int, int, int]:
    """Return a tile's vectors, its first pixel, and where in it the last vector begins.

    The last vector of an image's pixels overlaps the one before it.
    """
    begin, end = tile * vectors // tiles, (tile + 1) * vectors // tiles
    first = min(begin * vector, area - vector)
    return end - begin, first, min((end - 1) * vector, area - vector) - first


@inner
def _convolve_pixels(
    w: int, workers: int, x: Array, weights: Array, bias: Array, rectify: int, steps: Array,
    panels: Array, out: Array,
) -> None:  # fmt: skip
    """Worker w of some: out (N, K, pixels) = weights x + bias, for images x (N, C, pixels).

    weights: (ceil(K / ROWS), C, ROWS); steps: where each channel's pixels begin in a panel; panels: a
    row for each worker.
    """
    images, filters, area = out.shape
    channels = x.shape[1]
    itemsize = x.itemsize
    like = x.dtype.type(0)
    vector = VECTOR_BYTES // itemsize
    vectors = (area + vector - 1) // vector
    tiles = (vectors + WIDE - 1) // WIDE
    panel = address(panels) + w * panels.shape[1] * itemsize
    spare = panel + channels * WIDE * VECTOR_BYTES
    items = images * tiles
    for item in range(w * items // workers, (w + 1) * items // workers):
        image, tile = divmod(item, tiles)
        own, j, last = _tile(vectors, tiles, tile, area, vector)
        source, target = address(x) + (image * channels * area + j) * itemsize, panel
        for _ in range(channels):
            for i in range(own - 1):
                move_vector(like, source + i * VECTOR_BYTES, target + i * VECTOR_BYTES)
            move_vector(like, source + last * itemsize, target + last * itemsize)
            source += area * itemsize
            target += WIDE * VECTOR_BYTES
        target = address(out) + (image * filters * area + j) * itemsize
        for k in range(0, filters, ROWS):
            lines_of_taps(
                like, ROWS, own, address(weights) + k * channels * itemsize, panel, 0,
                address(steps), channels, address(bias) + k * itemsize, rectify, 1, last,
                target + k * area * itemsize, 0, area, filters - k, spare,
            )  # fmt: skip


@spread(grain=GRAIN)
def _convolve(pool: int, threads: int, workers: int, *args: Any) -> None:
    """Convolve all images."""
    each(_convolve_pixels, pool, threads, workers, args)


@lru_cache(maxsize=64)
def _steps(channels: int, width: int) -> Array:
    """Return where each channel begins in a panel."""
    return np.arange(channels, dtype=np.int64) * width


def _run(x: Array, weight: Array, bias: Array | None, activation: int, out: Array) -> None:
    """out (N, K, H, W) = act(weight (K, C) x (N, C, H, W) + bias)."""
    if not out.size:
        return
    if activation > RELU:
        plain = scratch("without activation", out.size, out.dtype)[: out.size].reshape(out.shape)
        _run(x, weight, bias, 0, plain)
        bias_act(plain, None, activation, out)
        return
    filters, channels = weight.shape
    panels = -(-filters // ROWS)
    packed = scratch("weights", panels * channels * ROWS, x.dtype)
    pack_weights(
        weight.size, panels, ROWS, weight.reshape(1, filters, channels), NO_TAPS, 0, packed
    )
    if bias is None:
        bias = np.zeros(filters, x.dtype)
    width = WIDE * lanes(x.itemsize)
    workers = threads.count
    _convolve(
        out.size * channels, workers, workers, x.reshape(x.shape[0], channels, -1), packed, bias,
        activation, _steps(channels, width),
        for_each("panels", workers, channels * width + OVERRUN, x.dtype),
        out.reshape(out.shape[0], filters, -1),
    )  # fmt: skip


def _serves(
    depth: int, filters: int, weight: Array, pixels: tuple[int, ...], stride: Pair, padding: Pair,
    groups: int,
) -> bool:  # fmt: skip
    """Whether the convolution is a product of matrices that tiles with their own pixels do best."""
    return (
        weight.shape[2:] == (1, 1)
        and (stride, padding, groups) == ((1, 1), (0, 0), 1)
        and depth >= LEAST_DEPTH
        and filters >= LEAST_FILTERS
        and lanes(weight.itemsize) <= pixels[0] * pixels[1] <= MOST_PIXELS
    )


@kernel(
    "conv2d", backend="numba", name="pointwise", priority=2,
    supports=lambda x, weight, stride, padding, groups, **_: _serves(
        weight.shape[1], weight.shape[0], weight, x.shape[2:], stride, padding, groups
    ),
)  # fmt: skip
def conv2d(
    x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, activation: int, out: Array,
) -> None:  # fmt: skip
    """out[n, k, i, j] = act(sum_c w[k, c] x[n, c, i, j] + b)."""
    _run(x, weight.reshape(weight.shape[:2]), bias, activation, out)


@kernel(
    "conv2d_input_grad", backend="numba", name="pointwise", priority=2,
    supports=lambda weight, input_size, stride, padding, groups, **_: _serves(
        weight.shape[0], weight.shape[1], weight, input_size, stride, padding, groups
    ),
)  # fmt: skip
def conv2d_input_grad(
    grad_out: Array, weight: Array, input_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, grad_x: Array,
) -> None:  # fmt: skip
    """grad_x[n, c, i, j] = sum_k w[k, c] grad_out[n, k, i, j]."""
    _run(grad_out, transposed(weight.reshape(weight.shape[:2])), None, 0, grad_x)
