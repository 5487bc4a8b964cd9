"""Convolution and the gradient of its input: one loop over the taps of a packed image.

Both add, for two output channels at a time, weighted copies of the packed image, shifted by the
taps, to a run of outputs that stays in the first-level cache. The gradient of the input is the
same sum over the error with a border; stride s makes it s * s sums over the taps of each phase.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba import geometry
from trine.kernels.numba.jit import FAST, helper, parallel
from trine.kernels.numba.maths import activate
from trine.kernels.registry import kernel

Pair = tuple[int, int]

RUN = 512
"""Outputs of one channel that are computed together."""
ITEMS = 32
"""Work is cut into at least so many pieces, where it has them, so that threads share it evenly."""


@helper
def pack_plane(x: Array, top: int, left: int, sh: int, sw: int, out: Array) -> None:
    """Copy a plane (H, W) with zeros around it into its phases (sh * sw, rows, columns)."""
    height, width = x.shape
    zero = x.dtype.type(0)
    for phase in range(sh * sw):
        a = phase // sw - top
        b = phase % sw - left
        for i in range(out.shape[1]):
            row = out[phase, i]
            source = i * sh + a
            n = row.size
            if source < 0 or source >= height:
                for j in range(n):
                    row[j] = zero
                continue
            pixels = x[source]
            first = min(n, max(0, (-b + sw - 1) // sw))
            last = max(first, min(n, (width - b + sw - 1) // sw))
            for j in range(first):
                row[j] = zero
            if sw == 1:
                inside = pixels[first + b : last + b]
                target = row[first:last]
                for j in range(target.size):
                    target[j] = inside[j]
            else:
                for j in range(first, last):
                    row[j] = pixels[j * sw + b]
            for j in range(last, n):
                row[j] = zero


@parallel()
def _pack(x: Array, top: int, left: int, sh: int, sw: int, out: Array) -> None:
    """Pack planes (P, H, W) into (P, sh * sw, rows, columns)."""
    for plane in prange(x.shape[0]):
        pack_plane(x[plane], top, left, sh, sw, out[plane])


def pack(x: Array, top: int, left: int, stride: Pair, rows: int, columns: int) -> Array:
    """Return the planes of (N, C, H, W) with zeros around them, in phases, at a given size."""
    n, c, h, w = x.shape
    out = np.empty((n * c, stride[0] * stride[1], rows, columns), x.dtype)
    _pack(out.size, x.reshape(n * c, h, w), top, left, stride[0], stride[1], out)
    return out


@helper(fastmath=FAST)
def add_taps(x: Array, offsets: Array, weights: Array, n: int, sums: Array) -> None:
    """Add sum_t weights[t, k] x[offsets[t] + j] to sums[k RUN + j], for k = 0, 1 and j < n.

    Four taps at a time: eight multiplications for each sum loaded and stored.
    """
    taps = offsets.size
    quads = taps - taps % 4
    first = sums[:n]
    second = sums[RUN : RUN + n]
    for t in range(0, quads, 4):
        x0 = x[offsets[t] :]
        x1 = x[offsets[t + 1] :]
        x2 = x[offsets[t + 2] :]
        x3 = x[offsets[t + 3] :]
        a0, b0 = weights[t, 0], weights[t, 1]
        a1, b1 = weights[t + 1, 0], weights[t + 1, 1]
        a2, b2 = weights[t + 2, 0], weights[t + 2, 1]
        a3, b3 = weights[t + 3, 0], weights[t + 3, 1]
        for j in range(n):
            first[j] = (((first[j] + a0 * x0[j]) + a1 * x1[j]) + a2 * x2[j]) + a3 * x3[j]
            second[j] = (((second[j] + b0 * x0[j]) + b1 * x1[j]) + b2 * x2[j]) + b3 * x3[j]
    for t in range(quads, taps):
        x0 = x[offsets[t] :]
        a0, b0 = weights[t, 0], weights[t, 1]
        for j in range(n):
            first[j] += a0 * x0[j]
            second[j] += b0 * x0[j]


@helper(fastmath=FAST)
def _store(
    sums: Array, rows: int, columns: int, pitch: int, activation: int, steps: Pair, out: Array
) -> None:
    """Write a run, rows x columns outputs that lie `pitch` apart, to out[::steps, ::steps]."""
    zero = sums.dtype.type(0)
    for row in range(rows):
        values = sums[row * pitch : row * pitch + columns]
        target = out[row * steps[0]]
        if steps[1] == 1:
            activate(values, zero, activation, target[:columns])
        else:
            for column in range(columns):
                target[column * steps[1]] = values[column]


@helper(fastmath=FAST)
def _convolve_pair(
    x: Array,
    offsets: Array,
    weights: Array,
    bias: Array,
    activation: int,
    pitch: int,
    size: Pair,
    steps: Pair,
    start: Pair,
    out: Array,
) -> None:
    """Compute one or two output channels of one image: out (1 or 2, H, W)."""
    sums = np.empty(2 * RUN, x.dtype)
    most_rows = max(1, RUN // pitch)
    most_columns = size[1] if pitch <= RUN else RUN
    for i in range(0, size[0], most_rows):
        rows = min(most_rows, size[0] - i)
        for j in range(0, size[1], most_columns):
            columns = min(most_columns, size[1] - j)
            n = (rows - 1) * pitch + columns
            for q in range(n):
                sums[q] = bias[0]
                sums[RUN + q] = bias[1]
            add_taps(x[i * pitch + j :], offsets, weights, n, sums)
            for k in range(out.shape[0]):
                target = out[k, start[0] + i * steps[0] :, start[1] + j * steps[1] :]
                run = sums[k * RUN : k * RUN + n]
                _store(run, rows, columns, pitch, activation, steps, target)


@parallel()
def _convolve(
    x: Array,
    offsets: Array,
    weights: Array,
    bias: Array,
    activation: int,
    pitch: int,
    size: Pair,
    steps: Pair,
    start: Pair,
    splits: int,
    out: Array,
) -> None:
    """Sum over the taps of packed images x (N, G, pixels) into out (N, G, K, H, W).

    weights: (G, pairs, taps, 2), bias: (G, pairs, 2); outputs (i, j) of `size` go to
    out[..., start + steps (i, j)].
    """
    images, groups, channels = out.shape[0], out.shape[1], out.shape[2]
    pairs = weights.shape[1]
    for item in prange(images * groups * splits):
        image, rest = divmod(np.int64(item), groups * splits)  # signed: unsigned gives floats
        group, split = divmod(rest, splits)
        for pair in range(split * pairs // splits, (split + 1) * pairs // splits):
            _convolve_pair(
                x[image, group],
                offsets,
                weights[group, pair],
                bias[group, pair],
                activation,
                pitch,
                size,
                steps,
                start,
                out[image, group, 2 * pair : min(2 * pair + 2, channels)],
            )


def _in_pairs(weight: Array) -> Array:
    """Return weights (G, K, taps) as (G, ceil(K / 2), taps, 2), an odd last one filled with 0."""
    groups, channels, taps = weight.shape
    pairs = np.zeros((groups, (channels + 1) // 2, taps, 2), weight.dtype)
    pairs[:, :, :, 0] = weight[:, 0::2]
    pairs[:, : channels // 2, :, 1] = weight[:, 1::2]
    return pairs


def _splits(items: int, pairs: int) -> int:
    return max(1, min(pairs, -(-ITEMS // max(1, items))))


@kernel("conv2d", backend="numba", name="taps", replayable=False)
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
    """out[n, k, i, j] = act(sum_crs w[k, c, r, s] x[n, c, i sh - ph + r dh, j sw - pw + s dw] + b)."""
    n, _, height, width = x.shape
    filters, depth, *kernel_size = weight.shape
    rows, columns = out.shape[2:]
    layout = geometry.forward(
        depth, (height, width), (kernel_size[0], kernel_size[1]), stride, padding, dilation
    )
    if layout.packed:
        x = pack(x, padding[0], padding[1], stride, layout.rows, layout.columns)
    each = filters // groups
    weights = _in_pairs(weight.reshape(groups, each, layout.offsets.size))
    added = np.zeros(filters, x.dtype) if bias is None else bias
    added = _in_pairs(added.reshape(groups, each, 1))[:, :, 0]
    _convolve(
        out.size * layout.offsets.size,
        x.reshape(n, groups, depth * layout.phases * layout.rows * layout.columns),
        layout.offsets,
        weights,
        added,
        activation,
        layout.columns,
        (rows, columns),
        (1, 1),
        (0, 0),
        _splits(n * groups, weights.shape[1]),
        out.reshape(n, groups, each, rows, columns),
    )


@kernel("conv2d_input_grad", backend="numba", name="taps", replayable=False)
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
    """grad_x[n, c, y, x] = sum of w[k, c, r, s] grad_out[n, k, i, j] over i sh - ph + r dh = y, ..."""
    n, filters, rows, columns = grad_out.shape
    each = filters // groups
    depth, kernel_h, kernel_w = weight.shape[1:]
    layout = geometry.backward(
        each, input_size, (rows, columns), (kernel_h, kernel_w), stride, padding, dilation
    )
    if (layout.rows, layout.columns) != (rows, columns):
        grad_out = pack(grad_out, layout.top, layout.left, (1, 1), layout.rows, layout.columns)
    error = grad_out.reshape(n, groups, each * layout.rows * layout.columns)
    taps = weight.reshape(groups, each, depth, kernel_h, kernel_w).transpose(0, 2, 1, 3, 4)
    target = grad_x.reshape(n, groups, depth, *input_size)
    no_bias = np.zeros((groups, (depth + 1) // 2, 2), weight.dtype)
    for phase in layout.phases:
        chosen = taps[:, :, :, phase.taps_r][..., phase.taps_s]
        weights = _in_pairs(chosen.reshape(groups, depth, phase.offsets.size))
        _convolve(
            n * groups * depth * phase.rows * phase.columns * max(1, phase.offsets.size),
            error,
            phase.offsets,
            weights,
            no_bias,
            0,
            layout.columns,
            (phase.rows, phase.columns),
            stride,
            (phase.row, phase.column),
            _splits(n * groups, weights.shape[1]),
            target,
        )
