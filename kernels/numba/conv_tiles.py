"""Convolution and the gradient of its input by register tiles, without im2col.

A tile is some output channels by some vectors of neighbouring output pixels: packed weights are
broadcast, and the packed image (`geometry`) is read in vectors at the tables' taps. Long lines of an
image are computed by themselves, straight into the output; short ones in runs over flat positions,
and what a run computes between two lines is thrown away. The input gradient is the same sum over
the bordered error, stride s in s * s phases with taps of their own.

An image is packed where it is used, by the thread that uses it, and stays in its cache. Every
output is summed in the order of the taps by one thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trine.dtypes import Array, DType
from trine.kernels.numba import conv_plan
from trine.kernels.numba.activation import bias_act
from trine.kernels.numba.conv import Pair
from trine.kernels.numba.conv_plan import (
    COLUMN,
    HEIGHT,
    ROW,
    TAPS,
    TAPS_FROM,
    WEIGHTS_FROM,
    WIDTH,
    Plan,
    Shape,
)
from trine.kernels.numba.jit import assign, scratch, threads
from trine.kernels.numba.simd import (
    MOST_VECTORS,
    ROW_STEPS,
    ROWS,
    VECTOR_BYTES,
    address,
    finish_lines,
    lines_of_taps,
    load_int,
    move_apart,
    move_vector,
    tile_of_steps,
    transpose,
)
from trine.kernels.numba.spread import each, inner, spread
from trine.kernels.registry import kernel

GRAIN = 1 << 20
RELU = 1
"""The last activation that is done on the way out."""

NO_TAPS = np.empty(0, np.int64)
COPIES = 2 * MOST_VECTORS * VECTOR_BYTES // 4
"""Numbers that say how a tile's pixels are gathered: two for each part, of a pixel or more."""


@inner
def pack_image(
    like: float, itemsize: int, x: int, channels: int, size: Pair, top: int, left: int,
    stride: Pair, rows: int, columns: int, out: int,
) -> None:  # fmt: skip
    """Copy channels (C, H W) to where they lie in a packed image; the zeros around them stay."""
    height, width = size
    sh, sw = stride
    nothing = -like  # added to anything, it changes nothing
    for c in range(channels):
        for phase in range(sh * sw):
            a, b = phase // sw - top, phase % sw - left
            first = max(0, (-b + sw - 1) // sw)
            count = min(columns, (width - 1 - b) // sw + 1) - first
            if count <= 0:
                continue
            i = max(0, (-a + sh - 1) // sh)
            lines = min(rows, (height - 1 - a) // sh + 1) - i
            source = x + ((c * height + i * sh + a) * width + first * sw + b) * itemsize
            target = out + (((c * sh * sw + phase) * rows + i) * columns + first) * itemsize
            if sw == 1:
                finish_lines(like, source, sh * width, nothing, 0, lines, count, target, columns)
            else:
                for _ in range(lines):
                    move_apart(like, source, sw, count, target, 1, nothing)
                    source += sh * width * itemsize
                    target += columns * itemsize


@inner
def clear(x: Array) -> None:
    """x = 0 for vectors."""
    zero = x.dtype.type(0)
    for i in range(x.size):
        x[i] = zero


@inner
def _store(
    like: float, itemsize: int, sums: int, first: int, count: int, pitch: int, columns: int,
    bias: float, rectify: int, steps: Pair, width: int, out: int,
) -> None:  # fmt: skip
    """Write the sums of flat positions first ... first + count to the lines of an image."""
    i, j = divmod(first, pitch)
    done = 0
    while done < count:
        whole = (count - done + pitch - columns) // pitch  # lines, but for what follows the last
        lines = whole if j == 0 and whole > 0 else 1
        run = min(pitch * lines - j, count - done)
        valid = min(run, columns - j) if lines == 1 else columns
        if valid > 0:
            source = sums + done * itemsize
            target = out + (i * steps[0] * width + j * steps[1]) * itemsize
            if steps[1] == 1:
                finish_lines(
                    like, source, pitch, bias, rectify, lines, valid, target, steps[0] * width
                )
            else:
                for line in range(lines):
                    move_apart(
                        like, source + line * pitch * itemsize, 1, valid,
                        target + line * steps[0] * width * itemsize, steps[1], bias,
                    )  # fmt: skip
        done += run
        i, j = i + lines, 0


@inner
def _gather(
    image: int, table: int, taps: int, first: int, count: int, across: int, pitch: int, like: float,
    itemsize: int, copies: Array, start: int,
) -> None:  # fmt: skip
    """Copy pixels first ... first + count at every tap: at `start` [p][t, :] for `width` pixels each.

    Pixels of one row of the image are copied in whole vectors; what is too much is overwritten by
    the next row's, tap's or panel's.
    """
    vector = VECTOR_BYTES // itemsize
    width = MOST_VECTORS * vector
    for p in range(0, count, width):
        pixels = min(width, count - p)
        own = (pixels + vector - 1) // vector * vector
        segments = 0
        q = np.int64(0)
        while q < pixels:
            i, j = divmod(first + p + q, across)
            run = min(across - j, pixels - q)
            for v in range(0, run, vector):
                copies[2 * segments] = (i * pitch + j + v) * itemsize
                copies[2 * segments + 1] = (q + v) * itemsize
                segments += 1
            q += run
        target = start + p * taps * itemsize
        if segments == 3:  # the usual case, with everything in registers
            from0, from1, from2 = copies[0], copies[2], copies[4]
            to0, to1, to2 = copies[1], copies[3], copies[5]
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
                    move_vector(like, source + copies[2 * g], target + copies[2 * g + 1])
                target += own * itemsize


@inner
def _convolve_lines(
    like: float, itemsize: int, source: int, columns: int, table: int, taps: int, bands: Array,
    weights: int, bias: int, rectify: int, tall: int, wide: int, first_panel: int, last_panel: int,
    channels: int, size: Pair, spare: int, out: int,
) -> None:  # fmt: skip
    """Sum the taps of one packed image, line by line: out (K, H, W) at an address.

    A line is cut into tiles of whole vectors, the last of which ends where it ends. Each of `bands`
    has its first line, its lines, its first tap and its taps.
    """
    height, width = size
    vector = VECTOR_BYTES // itemsize
    vectors = (width + vector - 1) // vector
    tiles = (vectors + wide - 1) // wide
    for band in range(bands.shape[0]):
        first, lines = bands[band, 0], bands[band, 1]
        first_tap, depth = bands[band, 2], bands[band, 3]
        for panel in range(first_panel, last_panel):
            k = panel * tall
            factors = weights + (panel * taps + first_tap) * tall * itemsize
            for tile in range(tiles):
                begin, end = tile * vectors // tiles, (tile + 1) * vectors // tiles
                j = begin * vector
                last = min((end - 1) * vector, width - vector) - j
                lines_of_taps(
                    like, tall, end - begin, factors, source + (first * columns + j) * itemsize,
                    columns, table + first_tap * 8, depth, bias + k * itemsize, rectify, lines, last,
                    out + ((k * height + first) * width + j) * itemsize, width, height * width,
                    channels - k, spare,
                )  # fmt: skip


@inner
def _sum_taps(
    like: float, itemsize: int, weights: int, row_steps: int, tall: int, wide: int, taps: int,
    source: int, table: int, gathered: int, count: int, pixels: int, bias: int, rectify: int,
    valid: int, sums: int, spare: int,
) -> None:  # fmt: skip
    """Sum the taps of `count` pixels for `tall` channels: sums (tall, pixels)."""
    vector = VECTOR_BYTES // itemsize
    width = wide * vector
    for p in range(0, count, width):
        vectors = min(wide, (count - p + vector - 1) // vector)
        target = sums + p * itemsize
        if gathered:
            tile_of_steps(
                like, vectors, weights, row_steps, ROWS, gathered + p * taps * itemsize,
                vectors * vector, taps, 0, target, pixels,
            )  # fmt: skip
        else:
            lines_of_taps(
                like, tall, vectors, weights, source + p * itemsize, 0, table, taps, bias, rectify,
                1, (vectors - 1) * vector, target, 0, pixels, valid, spare,
            )  # fmt: skip


@inner
def _convolve_images(
    w: int, workers: int, x: Array, size: Pair, border: Pair, stride: Pair, packed: bool,
    rows: int, columns: int, offsets: Array, phases: Array, bands: Array, weights: Array,
    bias: Array, rectify: int, tall: int, wide: int, steps: Pair, splits: int, pixels: int,
    row_steps: Array, buffers: Array, sums: Array, gathered: Array, copies: Array, out: Array,
) -> None:  # fmt: skip
    """Worker w of some: sum over the taps of images x (N, G, C, H W) into out (N, G, K, H, W).

    An image has `size`, and packed (rows, columns) in its phases. For each phase of `phases`,
    weights from its start: (G, panels, taps, tall). buffers, sums, gathered, copies: a row for each
    worker; where `gathered` has room, pixels are gathered tap by tap before use. Where there are
    `bands`, lines are computed by themselves and not in runs over flat positions. An image whose
    outputs all follow one another may come as out (N, G, K, 1, H W).
    """
    images, groups, channels, height, width = out.shape
    panels = (channels + tall - 1) // tall
    itemsize = x.itemsize
    like = x.dtype.type(0)
    room = gathered.shape[1]
    by_lines = bands.shape[0] > 0
    flat = height == 1
    items = images * groups * splits
    buffer = address(buffers) + w * buffers.shape[1] * itemsize
    run = address(sums) + w * sums.shape[1] * itemsize
    spare = run + tall * pixels * itemsize
    ready: Any = np.int64(-1)
    for item in range(w * items // workers, (w + 1) * items // workers):
        plane, split = divmod(item, splits)
        group = plane % groups
        source = address(x) + plane * x.shape[2] * x.shape[3] * itemsize
        if packed or (
            plane == images * groups - 1 and not by_lines
        ):  # runs may read beyond the last
            if plane != ready:
                if ready < 0:
                    clear(buffers[w])
                pack_image(
                    like, itemsize, source, x.shape[2], size, border[0], border[1], stride, rows,
                    columns, buffer,
                )  # fmt: skip
                ready = plane
            source = buffer
        first_panel, last_panel = split * panels // splits, (split + 1) * panels // splits
        target = address(out) + plane * channels * height * width * itemsize
        biases = address(bias) + group * channels * itemsize
        if by_lines:
            taps = phases[0, TAPS]
            factors = address(weights) + group * panels * taps * tall * itemsize
            _convolve_lines(
                like, itemsize, source, columns, address(offsets), taps, bands, factors, biases,
                rectify, tall, wide, first_panel, last_panel, channels, (height, width), spare,
                target,
            )  # fmt: skip
            continue
        for f in range(phases.shape[0]):
            taps = phases[f, TAPS]
            table = address(offsets) + phases[f, TAPS_FROM] * 8
            across = phases[f, WIDTH]
            pitch = across if room else columns
            total = (phases[f, HEIGHT] - 1) * pitch + across
            line = total if flat else pitch
            visible = total if flat else across
            corner = target + (phases[f, ROW] * width + phases[f, COLUMN]) * itemsize
            for first in range(0, total, pixels):
                count = min(pixels, total - first)
                pixel_table = address(gathered) + w * room * itemsize if room else 0
                if room:
                    _gather(
                        source, table, taps, first, count, across, columns, like, itemsize, copies[w],
                        pixel_table,
                    )  # fmt: skip
                for panel in range(first_panel, last_panel):
                    k = panel * tall
                    start = phases[f, WEIGHTS_FROM] + (group * panels + panel) * taps * tall
                    _sum_taps(
                        like, itemsize, address(weights) + start * itemsize, address(row_steps), tall,
                        wide, taps, source + first * itemsize, table, pixel_table, count, pixels,
                        biases + k * itemsize, rectify, channels - k, run, spare,
                    )  # fmt: skip
                    for g in range(min(tall, channels - k)):
                        _store(
                            like, itemsize, run + g * pixels * itemsize, first, count, line, visible,
                            bias[group * channels + k + g] if room else like, rectify, steps, width,
                            corner + (k + g) * height * width * itemsize,
                        )  # fmt: skip


@spread(grain=GRAIN)
def _convolve(pool: int, threads: int, workers: int, *args: Any) -> None:
    """Convolve all images."""
    each(_convolve_images, pool, threads, workers, args)


@inner
def _pack_panel(item: int, tall: int, weight: Array, chosen: Array, first: int, out: Array) -> None:
    """Bring the chosen taps of some filters of (G, K, taps) to (taps, tall).

    No chosen taps stand for all of them, in order.
    """
    channels = weight.shape[1]
    taps = chosen.size if chosen.size else weight.shape[2]
    group, panel = divmod(item, (channels + tall - 1) // tall)
    start = first + item * taps * tall
    k = panel * tall
    zero = weight.dtype.type(0)
    if not chosen.size:  # all taps, in order: rows beyond K are never looked at
        transpose(
            zero, weight.itemsize, address(weight) + (group * channels + k) * taps * weight.itemsize,
            taps, min(tall, channels - k), taps, address(out) + start * weight.itemsize, tall,
        )  # fmt: skip
        return
    for g in range(tall):
        if k + g < channels:
            for t in range(taps):
                out[start + t * tall + g] = weight[group, k + g, chosen[t]]
        else:
            for t in range(taps):
                out[start + t * tall + g] = zero


@spread(grain=1 << 14)
def pack_weights(pool: int, threads: int, panels: int, *args: Any) -> None:
    """Bring weights (G, K, taps) to (G, panels, chosen taps, tall)."""
    each(_pack_panel, pool, threads, panels, args)


def _run(
    plan: Plan, size: Pair, x: Array, weights: Array, bias: Array | None, rectify: int, out: Array
) -> None:
    """Lend memory to the workers and convolve x (N, G, C, H W) to out (N, G, K, H, W)."""
    if plan.flat:
        out = out.reshape(*out.shape[:3], 1, -1)
    if bias is None:
        bias = np.zeros(out.shape[1] * out.shape[2], x.dtype)
    workers, dtype = plan.workers, x.dtype
    _convolve(
        plan.work, workers, workers, x, size, plan.border, plan.stride, plan.packed, plan.rows,
        plan.columns, plan.offsets, plan.phases, plan.bands, weights, bias, rectify, plan.tall,
        plan.wide, plan.steps, plan.splits, plan.pixels, ROW_STEPS,
        for_each("images", workers, plan.image_room, dtype),
        for_each("sums", workers, plan.sums_room, dtype),
        for_each("gathered", workers, plan.gathered_room, dtype),
        for_each("copies", workers, COPIES, np.dtype(np.int64)), out,
    )  # fmt: skip


def for_each(purpose: str, workers: int, size: int, dtype: DType) -> Array:
    """Return scratch memory (workers, size)."""
    return scratch(purpose, workers * size, dtype)[: workers * size].reshape(workers, size)


def _serves(groups: int, of: int) -> bool:
    """Whether a group has enough channels to fill tiles; else sums of single channels are faster."""
    return of >= (1 if groups == 1 else 3)


@kernel(
    "conv2d", backend="numba", name="tiles", priority=1,
    supports=lambda weight, groups, **_: _serves(groups, weight.shape[0] // groups),
)  # fmt: skip
def conv2d(
    x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, activation: int, out: Array,
) -> None:  # fmt: skip
    """out[n, k, i, j] = act(sum_crs w[k, c, r, s] x[n, c, i sh - ph + r dh, j sw - pw + s dw] + b)."""
    if not out.size:
        return
    if activation > RELU:
        plain = scratch("without activation", out.size, out.dtype)[: out.size].reshape(out.shape)
        conv2d(x, weight, bias, stride, padding, dilation, groups, 0, plain)
        bias_act(plain, None, activation, out)
        return
    n, _, *size = x.shape
    filters, depth, *kernel_size = weight.shape
    each, taps = filters // groups, depth * kernel_size[0] * kernel_size[1]
    shape = Shape(
        n, groups, depth, (size[0], size[1]), each, out.shape[2:], x.itemsize, threads.count
    )
    plan = conv_plan.forward(shape, (kernel_size[0], kernel_size[1]), stride, padding, dilation)
    panels = groups * plan.panels
    packed = scratch("weights", panels * taps * plan.tall, x.dtype)
    by_group = weight.reshape(groups, each, taps)
    pack_weights(weight.size, panels, plan.tall, by_group, NO_TAPS, 0, packed)
    _run(
        plan, shape.size, x.reshape(n, groups, depth, size[0] * size[1]), packed, bias, activation,
        out.reshape(n, groups, each, *shape.out_size),
    )  # fmt: skip


@kernel(
    "conv2d_input_grad", backend="numba", name="tiles", priority=1,
    supports=lambda weight, groups, **_: _serves(groups, weight.shape[1]),
)  # fmt: skip
def conv2d_input_grad(
    grad_out: Array, weight: Array, input_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, grad_x: Array,
) -> None:  # fmt: skip
    """grad_x[n, c, y, x] = sum of w[k, c, r, s] grad_out[n, k, i, j] over i sh - ph + r dh = y, ..."""
    _transposed(grad_out, weight, None, stride, padding, dilation, groups, grad_x)


@kernel("conv_transpose2d", backend="numba", name="tiles")
def conv_transpose2d(
    x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Pair, output_padding: Pair,
    dilation: Pair, groups: int, out: Array,
) -> None:  # fmt: skip
    """out[n, k, p, q] = b[k] + sum of w[c, k, r, s] x[n, c, i, j] over i sh - ph + r dh = p, ..."""
    _transposed(x, weight, bias, stride, padding, dilation, groups, out)


def _transposed(
    x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, out: Array,
) -> None:  # fmt: skip
    """The transpose of a convolution with weight (C, K, R, S), from x (N, C, ...) to `out`."""
    if not out.size:
        return
    n, channels, *size = x.shape
    each, (depth, *kernel_size) = channels // groups, weight.shape[1:]
    area = kernel_size[0] * kernel_size[1]
    shape = Shape(
        n, groups, each, (size[0], size[1]), depth, out.shape[2:], x.itemsize, threads.count
    )
    plan = conv_plan.backward(shape, (kernel_size[0], kernel_size[1]), stride, padding, dilation)
    panels = groups * plan.panels
    packed = scratch("weights", max(1, plan.offsets.size * panels * plan.tall), x.dtype)
    turned = scratch("turned weights", weight.size, x.dtype)[: weight.size]
    by_output = turned.reshape(groups, depth, each, area)
    assign(by_output, weight.reshape(groups, each, depth, area).swapaxes(1, 2))
    for phase, taps in zip(plan.phases, plan.chosen, strict=True):
        if taps.size:
            pack_weights(
                groups * depth * taps.size, panels, plan.tall,
                by_output.reshape(groups, depth, each * area), taps, int(phase[WEIGHTS_FROM]), packed,
            )  # fmt: skip
    _run(
        plan, shape.size, x.reshape(n, groups, each, size[0] * size[1]), packed, bias, 0,
        out.reshape(n, groups, depth, *shape.out_size),
    )  # fmt: skip
