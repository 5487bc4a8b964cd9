"""Convolution and the gradient of its input by register tiles, without im2col.

A tile is ROWS output channels by up to three vectors of neighbouring output pixels: packed weights
are broadcast, and the packed image (`geometry`) is read in vectors at the tables' taps. What a run
over flat positions computes between two rows of the image is thrown away. The input gradient is the
same sum over the bordered error, stride s in s * s phases with taps of their own.

An image is packed where it is used, by the thread that uses it, and stays in its cache. Every
output is summed in the order of the taps by one thread.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import prange

from trine.dtypes import Array, DType
from trine.kernels.numba import geometry
from trine.kernels.numba.conv import Pair
from trine.kernels.numba.jit import helper, parallel, scratch, threads
from trine.kernels.numba.maths import activate
from trine.kernels.numba.simd import (
    MOST_VECTORS,
    ROW_STEPS,
    ROWS,
    VECTOR_BYTES,
    address,
    finish_run,
    lanes,
    load_int,
    move_vector,
    tile_of_steps,
    tile_of_taps,
    transpose,
)
from trine.kernels.registry import kernel

GRAIN = 1 << 20
CACHE_BYTES = 20 * 1024
"""How much of the image a block of tiles may touch: with its weights it stays in the first cache."""
GATHER_FROM = 32
"""Channels on both sides from which gathering a block's pixels tap by tap repays itself."""
GATHERED_BYTES = 320 * 1024
"""How much is gathered at once: it stays in the second-level cache."""
MOST_PIXELS = 768
"""Pixels of a block: their sums stay in the first-level cache too."""

TAPS_FROM, TAPS, HEIGHT, WIDTH, ROW, COLUMN, WEIGHTS_FROM = range(7)
"""The columns of the table of phases."""


@helper
def pack_image(
    x: Array, size: Pair, top: int, left: int, stride: Pair, rows: int, columns: int, out: Array
) -> None:
    """Copy channels (C, H W) to where they lie in a packed image; the zeros around them stay."""
    height, width = size
    sh, sw = stride
    itemsize = x.itemsize
    nothing = x.dtype.type(-0.0)  # added to anything, it changes nothing
    for c in range(x.shape[0]):
        for phase in range(sh * sw):
            a, b = phase // sw - top, phase % sw - left
            first = max(0, (-b + sw - 1) // sw)
            count = min(columns, (width - 1 - b) // sw + 1) - first
            if count <= 0:
                continue
            start = (c * sh * sw + phase) * rows * columns
            for i in range(max(0, (-a + sh - 1) // sh), min(rows, (height - 1 - a) // sh + 1)):
                source = (i * sh + a) * width + first * sw + b
                target = start + i * columns + first
                if sw == 1:
                    finish_run(
                        nothing, address(x[c]) + source * itemsize, nothing, 0, count,
                        address(out) + target * itemsize,
                    )  # fmt: skip
                elif sw == 2:
                    for j in range(count):
                        out[target + j] = x[c, source + 2 * j]
                else:
                    for j in range(count):
                        out[target + j] = x[c, source + sw * j]


@helper
def clear(x: Array) -> None:
    """x = 0 for vectors."""
    zero = x.dtype.type(0)
    for i in range(x.size):
        x[i] = zero


@helper
def _store(
    sums: Array, first: int, count: int, pitch: int, columns: int, bias: float, activation: int,
    steps: Pair, out: Array,
) -> None:  # fmt: skip
    """Write the sums of flat positions first ... first + count to the rows of out (H, W)."""
    added = sums.dtype.type(bias)
    size = sums.itemsize
    i, j = divmod(first, pitch)
    done = 0
    while done < count:
        run = min(pitch - j, count - done)
        valid = min(run, columns - j)
        if valid > 0:
            if steps[1] == 1 and activation < 2:
                finish_run(
                    added, address(sums) + done * size, added, activation, valid,
                    address(out) + i * out.strides[0] * steps[0] + j * size,
                )  # fmt: skip
            elif steps[1] == 1:
                activate(
                    sums[done : done + valid], added, activation, out[i * steps[0], j : j + valid]
                )
            else:
                target = out[i * steps[0], j * steps[1] :]
                values = sums[done : done + valid]
                for q in range(valid):
                    target[q * steps[1]] = values[q] + added
        done += run
        i, j = i + 1, 0


@helper
def _gather(
    image: int, table: int, taps: int, first: int, count: int, across: int, pitch: int, like: float,
    itemsize: int, columns: Array, panels: Array,
) -> None:  # fmt: skip
    """Copy pixels first ... first + count at every tap: panels[p][t, :] for `width` pixels each.

    Pixels of one row of the image are copied in whole vectors; what is too much is overwritten by
    the next row's, tap's or panel's.
    """
    vector = VECTOR_BYTES // itemsize
    width = MOST_VECTORS * vector
    start = address(panels)
    for p in range(0, count, width):
        pixels = min(width, count - p)
        own = (pixels + vector - 1) // vector * vector
        segments = 0
        q = np.int64(0)
        while q < pixels:
            i, j = divmod(first + p + q, across)
            run = min(across - j, pixels - q)
            for v in range(0, run, vector):
                columns[segments, 0] = (i * pitch + j + v) * itemsize
                columns[segments, 1] = (q + v) * itemsize
                segments += 1
            q += run
        target = start + p * taps * itemsize
        if segments == 3:  # the usual case, with everything in registers
            from0, from1, from2 = columns[0, 0], columns[1, 0], columns[2, 0]
            to0, to1, to2 = columns[0, 1], columns[1, 1], columns[2, 1]
            for t in range(taps):
                source = image + load_int(table + 8 * t) * itemsize
                move_vector(like, source + from0, target + to0)
                move_vector(like, source + from1, target + to1)
                move_vector(like, source + from2, target + to2)
                target += own * itemsize
        else:
            for t in range(taps):
                source = image + load_int(table + 8 * t) * itemsize
                for g in range(segments):
                    move_vector(like, source + columns[g, 0], target + columns[g, 1])
                target += own * itemsize


@helper
def _sum_taps(
    like: float, itemsize: int, weights: int, row_steps: Array, taps: int, source: int, table: int,
    gathered: Array, count: int, pixels: int, sums: Array,
) -> None:  # fmt: skip
    """Sum the taps of `count` pixels for ROWS channels: sums (ROWS, pixels)."""
    vector = VECTOR_BYTES // itemsize
    width = MOST_VECTORS * vector
    for p in range(0, count, width):
        vectors = min(MOST_VECTORS, (count - p + vector - 1) // vector)
        target = address(sums) + p * itemsize
        if gathered.size:
            tile_of_steps(
                like, vectors, weights, address(row_steps), ROWS,
                address(gathered) + p * taps * itemsize, vectors * vector, taps, 0, target, pixels,
            )  # fmt: skip
        else:
            tile_of_taps(
                like, vectors, weights, address(row_steps), ROWS, source + p * itemsize, table,
                taps, 0, target, pixels,
            )  # fmt: skip


@parallel(grain=GRAIN)
def _convolve(
    x: Array, size: Pair, border: Pair, stride: Pair, packed: bool, rows: int, columns: int,
    offsets: Array, phases: Array, weights: Array, bias: Array, activation: int, steps: Pair,
    splits: int, pixels: int, row_steps: Array, buffers: Array, sums: Array, gathered: Array,
    out: Array,
) -> None:  # fmt: skip
    """Sum over the taps of images x (N, G, C, H W) into out (N, G, K, H, W).

    An image has `size`, and packed (rows, columns) in its phases. For each phase of `phases`,
    weights from its start: (G, panels, taps, ROWS). buffers, sums, gathered: a row for each thread;
    where `gathered` has room, pixels are gathered tap by tap before they are used. An image whose
    outputs all follow one another may come as out (N, G, K, 1, H W).
    """
    images, groups, channels = out.shape[0], out.shape[1], out.shape[2]
    panels = (channels + ROWS - 1) // ROWS
    itemsize = x.itemsize
    like = x.dtype.type(0)
    width = MOST_VECTORS * (VECTOR_BYTES // itemsize)
    gathers = gathered.shape[1] > 0
    flat = out.shape[3] == 1
    workers = buffers.shape[0]
    items = images * groups * splits
    for worker in prange(workers):
        w = np.int64(worker)
        run = sums[w]
        copies = np.empty((2 * width + MOST_VECTORS, 2), np.int64)
        ready: Any = np.int64(-1)
        for item in range(w * items // workers, (w + 1) * items // workers):
            plane, split = divmod(item, splits)
            image, group = divmod(plane, groups)
            if packed or plane == images * groups - 1:  # runs may read beyond the last image
                if plane != ready:
                    if ready < 0:
                        clear(buffers[w])
                    pack_image(
                        x[image, group], size, border[0], border[1], stride, rows, columns,
                        buffers[w],
                    )  # fmt: skip
                    ready = plane
                source = address(buffers[w])
            else:
                source = address(x[image, group])
            for f in range(phases.shape[0]):
                taps = phases[f, TAPS]
                table = address(offsets) + phases[f, TAPS_FROM] * 8
                across = phases[f, WIDTH]
                pitch = across if gathers else columns
                total = (phases[f, HEIGHT] - 1) * pitch + across
                line = total if flat else pitch
                visible = total if flat else across
                for first in range(0, total, pixels):
                    count = min(pixels, total - first)
                    if gathers:
                        _gather(
                            source, table, taps, first, count, across, columns, like, itemsize,
                            copies, gathered[w],
                        )  # fmt: skip
                    for panel in range(split * panels // splits, (split + 1) * panels // splits):
                        start = phases[f, WEIGHTS_FROM] + (group * panels + panel) * taps * ROWS
                        factors = address(weights) + start * itemsize
                        _sum_taps(
                            like, itemsize, factors, row_steps, taps, source + first * itemsize, table,
                            gathered[w], count, pixels, run,
                        )  # fmt: skip
                        for g in range(min(ROWS, channels - panel * ROWS)):
                            k = panel * ROWS + g
                            _store(
                                run[g * pixels : (g + 1) * pixels], first, count, line, visible,
                                bias[group * channels + k], activation, steps,
                                out[image, group, k, phases[f, ROW] :, phases[f, COLUMN] :],
                            )  # fmt: skip


@parallel(grain=1 << 14)
def _pack_weights(weight: Array, chosen: Array, first: int, out: Array) -> None:
    """Bring weights (G, K, taps) to (G, panels, chosen taps, ROWS) at `first`; rows beyond K are 0."""
    groups, channels, _ = weight.shape
    taps = chosen.size
    panels = (channels + ROWS - 1) // ROWS
    zero = weight.dtype.type(0)
    for item in prange(groups * panels):
        group, panel = divmod(np.int64(item), panels)
        start = first + item * taps * ROWS
        if taps == weight.shape[2]:  # all of them, in order: rows beyond K are never looked at
            k = panel * ROWS
            transpose(
                zero, weight.itemsize, address(weight[group, k]), taps, min(ROWS, channels - k), taps,
                address(out) + start * weight.itemsize, ROWS,
            )  # fmt: skip
            continue
        for g in range(ROWS):
            k = panel * ROWS + g
            if k < channels:
                row = weight[group, k]
                for t in range(taps):
                    out[start + t * ROWS + g] = row[chosen[t]]
            else:
                for t in range(taps):
                    out[start + t * ROWS + g] = zero


def _run(
    x: Array, size: Pair, border: Pair, stride: Pair, packed: bool, rows: int, columns: int,
    offsets: Array, phases: Array, weights: Array, bias: Array, activation: int, steps: Pair,
    out: Array,
) -> None:  # fmt: skip
    """Choose blocks and workers, lend them memory, and convolve."""
    images, groups, channels = out.shape[:3]
    width = MOST_VECTORS * lanes(x.itemsize)
    plane = stride[0] * stride[1] * rows * columns
    most_taps = int(phases[:, TAPS].max())
    gathers = channels >= GATHER_FROM and x.shape[2] >= GATHER_FROM
    if gathers:
        pixels = GATHERED_BYTES // max(1, most_taps * x.itemsize)
    else:
        pixels = CACHE_BYTES // max(1, x.shape[2] * stride[0] * stride[1] * x.itemsize)
    pixels = min(MOST_PIXELS, pixels) // width * width
    longest = int(((phases[:, HEIGHT] - 1) * columns + phases[:, WIDTH]).max())
    pixels = max(width, min(pixels, -(-longest // width) * width))
    if gathers and steps == (1, 1):
        out = out.reshape(images, groups, channels, 1, -1)
    panels = -(-channels // ROWS)
    count = threads.count
    splits = max(1, min(panels, count // max(1, images * groups)))
    workers = max(1, min(count, images * groups * splits))
    length = x.shape[2] * plane + width
    room = (pixels * most_taps + 2 * width) if gathers else 0
    work = images * out.size // max(1, images) * max(1, most_taps)
    _convolve(
        work, x, size, border, stride, packed, rows, columns, offsets, phases, weights, bias,
        activation, steps, splits, pixels, ROW_STEPS, for_each("images", workers, length, x.dtype),
        for_each("sums", workers, ROWS * pixels, x.dtype),
        for_each("gathered", workers, room, x.dtype), out,
    )  # fmt: skip


def for_each(purpose: str, workers: int, size: int, dtype: DType) -> Array:
    """Return scratch memory (workers, size)."""
    return scratch(purpose, workers * size, dtype)[: workers * size].reshape(workers, size)


def _serves(weight: Array, groups: int, of: int) -> bool:
    """Whether a group has enough channels to fill tiles; else sums of single channels are faster."""
    return of >= (1 if groups == 1 else 3)


@kernel(
    "conv2d", backend="numba", name="tiles", priority=1,
    supports=lambda weight, groups, **_: _serves(weight, groups, weight.shape[0] // groups),
)  # fmt: skip
def conv2d(
    x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, activation: int, out: Array,
) -> None:  # fmt: skip
    """out[n, k, i, j] = act(sum_crs w[k, c, r, s] x[n, c, i sh - ph + r dh, j sw - pw + s dw] + b)."""
    if not out.size:
        return
    n, _, height, width = x.shape
    filters, depth = weight.shape[:2]
    kernel_size = (weight.shape[2], weight.shape[3])
    layout = geometry.forward(depth, (height, width), kernel_size, stride, padding, dilation)
    taps = layout.offsets.size
    panels = groups * -(-(filters // groups) // ROWS)
    packed_weights = scratch("weights", panels * taps * ROWS, x.dtype)
    chosen = _all_taps(taps)
    _pack_weights(weight.size, weight.reshape(groups, -1, taps), chosen, 0, packed_weights)
    phases = _one_phase(taps, out.shape[2], out.shape[3])
    _run(
        x.reshape(n, groups, depth, height * width), (height, width), padding, stride,
        layout.packed, layout.rows, layout.columns, layout.offsets, phases, packed_weights,
        np.zeros(filters, x.dtype) if bias is None else bias, activation, (1, 1),
        out.reshape(n, groups, filters // groups, *out.shape[2:]),
    )  # fmt: skip


@lru_cache(maxsize=256)
def _all_taps(taps: int) -> Array:
    return np.arange(taps, dtype=np.int64)


@lru_cache(maxsize=256)
def _one_phase(taps: int, height: int, width: int) -> Array:
    return np.array([[0, taps, height, width, 0, 0, 0]], dtype=np.int64)


@lru_cache(maxsize=256)
def _phases(
    filters: int, size: Pair, out_size: Pair, kernel_size: Pair, stride: Pair, padding: Pair,
    dilation: Pair, weights_of_a_tap: int,
) -> tuple[Array, Array, tuple[Array, ...]]:  # fmt: skip
    """Return the offsets of all phases, the table of phases, and each one's taps (k, r, s)."""
    layout = geometry.backward(filters, size, out_size, kernel_size, stride, padding, dilation)
    offsets, table, chosen = [], [], []
    taps_before = 0
    area = kernel_size[0] * kernel_size[1]
    for phase in layout.phases:
        taps = phase.offsets.size
        table.append(
            [
                taps_before, taps, phase.rows, phase.columns, phase.row, phase.column,
                taps_before * weights_of_a_tap,
            ]
        )  # fmt: skip
        k, r, s = np.ix_(range(filters), phase.taps_r, phase.taps_s)
        chosen.append((k * area + r * kernel_size[1] + s).astype(np.int64).ravel())
        offsets.append(phase.offsets)
        taps_before += taps
    return np.concatenate(offsets), np.array(table, dtype=np.int64), tuple(chosen)


@kernel(
    "conv2d_input_grad", backend="numba", name="tiles", priority=1,
    supports=lambda weight, groups, **_: _serves(weight, groups, weight.shape[1]),
)  # fmt: skip
def conv2d_input_grad(
    grad_out: Array, weight: Array, input_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, grad_x: Array,
) -> None:  # fmt: skip
    """grad_x[n, c, y, x] = sum of w[k, c, r, s] grad_out[n, k, i, j] over i sh - ph + r dh = y, ..."""
    if not grad_x.size:
        return
    n, filters, rows, columns = grad_out.shape
    each = filters // groups
    depth, *kernel_shape = weight.shape[1:]
    kernel_size = (kernel_shape[0], kernel_shape[1])
    layout = geometry.backward(
        each, input_size, (rows, columns), kernel_size, stride, padding, dilation
    )
    panels = groups * -(-depth // ROWS)
    offsets, phases, chosen = _phases(
        each, input_size, (rows, columns), kernel_size, stride, padding, dilation, panels * ROWS
    )
    packed_weights = scratch("weights", max(1, offsets.size * panels * ROWS), weight.dtype)
    area = kernel_size[0] * kernel_size[1]
    turned = weight.reshape(groups, each, depth, area).swapaxes(1, 2)
    turned = np.ascontiguousarray(turned).reshape(groups, depth, each * area)
    for phase, taps in zip(phases, chosen, strict=True):
        if taps.size:
            _pack_weights(
                groups * depth * taps.size, turned, taps, int(phase[WEIGHTS_FROM]), packed_weights
            )
    _run(
        grad_out.reshape(n, groups, each, rows * columns), (rows, columns),
        (layout.top, layout.left), (1, 1), (layout.rows, layout.columns) != (rows, columns),
        layout.rows, layout.columns, offsets, phases, packed_weights,
        np.zeros(groups * depth, weight.dtype), 0, stride,
        grad_x.reshape(n, groups, depth, *input_size),
    )  # fmt: skip
