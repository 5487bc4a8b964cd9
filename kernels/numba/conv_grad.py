"""The gradient of a convolution's weights: for each tap a dot product over pixels.

The error is spread to the pitch of the packed image, with zeros between its rows, so that one dot
product takes all rows of an image. A zero times Inf or NaN is NaN, hence an image that holds them
is taken row by row.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba import geometry
from trine.kernels.numba.conv import ITEMS, Pair, pack
from trine.kernels.numba.jit import FAST_SUM, helper, parallel
from trine.kernels.registry import kernel


@helper(fastmath=FAST_SUM)
def dot_taps(first: Array, second: Array, x: Array, offsets: Array, sums: Array) -> None:
    """Add sum_j error[j] x[offsets[t] + j] to sums[t, k] for two channels k of the error.

    Four taps at a time: eight sums stay in registers.
    """
    n = first.size
    zero = first.dtype.type(0)
    taps = offsets.size
    quads = taps - taps % 4
    for t in range(0, quads, 4):
        x0 = x[offsets[t] :]
        x1 = x[offsets[t + 1] :]
        x2 = x[offsets[t + 2] :]
        x3 = x[offsets[t + 3] :]
        a0, a1, a2, a3 = zero, zero, zero, zero
        b0, b1, b2, b3 = zero, zero, zero, zero
        for j in range(n):
            a, b = first[j], second[j]
            a0 += a * x0[j]
            a1 += a * x1[j]
            a2 += a * x2[j]
            a3 += a * x3[j]
            b0 += b * x0[j]
            b1 += b * x1[j]
            b2 += b * x2[j]
            b3 += b * x3[j]
        sums[t, 0] += a0
        sums[t, 1] += b0
        sums[t + 1, 0] += a1
        sums[t + 1, 1] += b1
        sums[t + 2, 0] += a2
        sums[t + 2, 1] += b2
        sums[t + 3, 0] += a3
        sums[t + 3, 1] += b3
    for t in range(quads, taps):
        x0 = x[offsets[t] :]
        a0, b0 = zero, zero
        for j in range(n):
            a0 += first[j] * x0[j]
            b0 += second[j] * x0[j]
        sums[t, 0] += a0
        sums[t, 1] += b0


@parallel()
def _weight_grad(
    error: Array,
    x: Array,
    offsets: Array,
    pitch: int,
    segments: int,
    length: int,
    sums: Array,
) -> None:
    """Dot products of errors (N, G, K, pixels) with packed images (N, G, pixels).

    Each image is taken in `segments` of `length` pixels that begin `pitch` apart. Images are cut
    into a fixed number of chunks: sums (chunks, G, pairs, taps, 2), float64.
    """
    images, channels = error.shape[0], error.shape[2]
    chunks, groups, pairs = sums.shape[0], sums.shape[1], sums.shape[2]
    for item in prange(chunks * groups * pairs):
        chunk, rest = divmod(np.int64(item), groups * pairs)  # signed: unsigned gives floats
        group, pair = divmod(rest, pairs)
        total = sums[chunk, group, pair]
        total[:] = 0.0
        k = 2 * pair
        other = min(k + 1, channels - 1)
        for image in range(chunk * images // chunks, (chunk + 1) * images // chunks):
            first = error[image, group, k]
            second = error[image, group, other]
            for segment in range(segments):
                start = segment * pitch
                stop = start + length
                pixels = x[image, group, start:]
                dot_taps(first[start:stop], second[start:stop], pixels, offsets, total)


def _is_finite(x: Array) -> bool:
    with np.errstate(all="ignore"):
        return math.isfinite(x.sum(dtype=np.float64))


@kernel("conv2d_weight_grad", backend="numba", name="taps", replayable=False)
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
    """grad_w[k, c, r, s] = sum_nij grad_out[n, k, i, j] x[n, c, i sh - ph + r dh, ...]."""
    n, filters, rows, columns = grad_out.shape
    channels, height, width = x.shape[1:]
    each, depth = filters // groups, channels // groups
    layout = geometry.forward(depth, (height, width), kernel_size, stride, padding, dilation)
    pitch = layout.columns
    segments, length = (1, (rows - 1) * pitch + columns) if _is_finite(x) else (rows, columns)
    if layout.packed:
        x = pack(x, padding[0], padding[1], stride, layout.rows, pitch)
    if pitch != columns:
        grad_out = pack(grad_out, 0, 0, (1, 1), rows, pitch)
    pairs = (each + 1) // 2
    chunks = max(1, min(n, -(-ITEMS // (groups * pairs))))
    sums = np.empty((chunks, groups, pairs, layout.offsets.size, 2))
    _weight_grad(
        grad_out.size * layout.offsets.size,
        grad_out.reshape(n, groups, each, rows * pitch),
        x.reshape(n, groups, depth * layout.phases * layout.rows * pitch),
        layout.offsets,
        pitch,
        segments,
        length,
        sums,
    )
    total = sums.sum(axis=0).swapaxes(2, 3).reshape(groups, 2 * pairs, layout.offsets.size)
    grad_weight[...] = total[:, :each].reshape(grad_weight.shape)
