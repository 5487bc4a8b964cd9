"""How a convolution by tiles is cut into work, decided once for each shape.

Forward and backward are the same sum over taps; they differ in where the taps lie (`geometry`) and
in how many phases the outputs have.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np

from trine.dtypes import Array
from trine.kernels.numba import geometry
from trine.kernels.numba.conv import Pair
from trine.kernels.numba.simd import LINE_SHAPES, MOST_VECTORS, ROWS, TALL, VECTOR_BYTES, lanes

CACHE_BYTES = 20 * 1024
"""How much of the image a block of tiles may touch: with its weights it stays in the first cache."""
GATHER_FROM = 32
"""Channels on both sides from which gathering a block's pixels tap by tap repays itself."""
GATHERED_BYTES = 320 * 1024
"""How much is gathered at once: it stays in the second-level cache."""
MOST_PIXELS = 768
"""Pixels of a block: their sums stay in the first-level cache too."""
MOST_WIDE = {rows: max(n for r, n in LINE_SHAPES if r == rows) for rows in TALL}
OVERRUN = 4 * VECTOR_BYTES // 4
"""Elements that a tile may touch beyond an image or its sums."""

TAPS_FROM, TAPS, HEIGHT, WIDTH, ROW, COLUMN, WEIGHTS_FROM = range(7)
"""The columns of the table of phases."""


@dataclass(frozen=True)
class Shape:
    """What is convolved: images (N, G, C, H, W) to outputs (N, G, K, *out_size)."""

    images: int
    groups: int
    depth: int
    size: Pair
    channels: int
    out_size: Pair
    itemsize: int
    threads: int


@dataclass(frozen=True)
class Plan:
    """Tables, tiles, blocks and memory of a convolution."""

    border: Pair
    stride: Pair
    packed: bool
    rows: int
    columns: int
    offsets: Array
    phases: Array
    chosen: tuple[Array, ...]
    """The taps of each phase, as places in a kernel; none if they are all, in order."""
    bands: Array
    """Lines that are computed together: the first, how many, their first tap and their taps."""
    steps: Pair
    flat: bool
    """Whether outputs are written as one long line."""
    tall: int
    wide: int
    panels: int
    splits: int
    workers: int
    pixels: int
    image_room: int
    sums_room: int
    gathered_room: int
    work: int


@lru_cache(maxsize=256)
def forward(shape: Shape, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Plan:
    """Return the plan of a convolution."""
    layout = geometry.forward(shape.depth, shape.size, kernel, stride, padding, dilation)
    taps = layout.offsets.size
    phases = np.array([[0, taps, *shape.out_size, 0, 0, 0]], dtype=np.int64)
    reach = [(0, taps)] * shape.out_size[0]
    where = padding, stride, layout.packed, layout.rows, layout.columns
    return _plan(shape, where, layout.offsets, phases, (), reach, (1, 1))


@lru_cache(maxsize=256)
def backward(shape: Shape, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Plan:
    """Return the plan of an input gradient, whose images are errors.

    Taps come in the order (r, k, s): for stride 1 those that meet errors in a line are neighbours.
    """
    errors, size, filters = shape.size, shape.out_size, shape.depth
    layout = geometry.backward(filters, size, errors, kernel, stride, padding, dilation)
    offsets, phases, chosen = [], [], []
    taps_before = 0
    tall = _tall(shape)
    weights_of_a_tap = shape.groups * -(-shape.channels // tall) * tall
    for phase in layout.phases:
        taps = phase.offsets.size
        size_and_place = phase.rows, phase.columns, phase.row, phase.column
        phases.append([taps_before, taps, *size_and_place, taps_before * weights_of_a_tap])
        r, k, s = np.ix_(phase.taps_r, range(filters), phase.taps_s)
        chosen.append(((k * kernel[0] + r) * kernel[1] + s).astype(np.int64).ravel())
        by_filter = phase.offsets.reshape(filters, len(phase.taps_r), len(phase.taps_s))
        offsets.append(by_filter.swapaxes(0, 1).ravel())
        taps_before += taps
    reach = []
    for i in range(size[0] if stride == (1, 1) else 0):
        places = [i + padding[0] - r * dilation[0] for r in range(kernel[0])]
        met = [r for r, place in enumerate(places) if 0 <= place < errors[0]]
        a_row = filters * kernel[1]
        reach.append((met[0] * a_row, (met[-1] + 1) * a_row) if met else (0, 0))
    packed = (layout.rows, layout.columns) != errors
    where = (layout.top, layout.left), (1, 1), packed, layout.rows, layout.columns
    table = np.array(phases, dtype=np.int64)
    return _plan(shape, where, np.concatenate(offsets), table, tuple(chosen), reach, stride)


def _gathers(shape: Shape) -> bool:
    return shape.channels >= GATHER_FROM and shape.depth >= GATHER_FROM


def _tall(shape: Shape) -> int:
    """Return the rows of a tile, so that few rows stay empty."""
    if _gathers(shape):
        return ROWS
    return min(TALL, key=lambda rows: -(-shape.channels // rows) * rows)


def _plan(
    shape: Shape, where: tuple[Pair, Pair, bool, int, int], offsets: Array, phases: Array,
    chosen: tuple[Array, ...], reach: list[Pair], steps: Pair,
) -> Plan:  # fmt: skip
    """Choose tiles and blocks; reach: the first and the last tap of each line, if lines are whole."""
    _, stride, _, rows, columns = where
    height, width = shape.out_size
    vector = lanes(shape.itemsize)
    gathers, tall = _gathers(shape), _tall(shape)
    wide = MOST_VECTORS if gathers else MOST_WIDE[tall]
    line = -(-width // vector) * vector
    a_column = shape.depth * stride[0] * stride[1] * shape.itemsize
    bands = np.empty((0, 4), np.int64)
    # a line by itself wastes the rest of its last vector, a run over flat positions all borders
    if reach and not gathers and width >= vector and 8 * line <= 9 * columns:
        bands = _bands(reach, max(1, CACHE_BYTES // max(1, a_column * columns)))
    block = wide * vector
    most_taps = int(phases[:, TAPS].max())
    pixels = CACHE_BYTES // max(1, a_column)
    if gathers:
        pixels = GATHERED_BYTES // max(1, most_taps * shape.itemsize)
    longest = int(((phases[:, HEIGHT] - 1) * columns + phases[:, WIDTH]).max())
    pixels = min(MOST_PIXELS, pixels, -(-longest // block) * block) // block * block
    pixels = max(block, pixels)
    panels = -(-shape.channels // tall)
    planes = shape.images * shape.groups
    splits = max(1, min(panels, shape.threads // max(1, planes)))
    image = shape.depth * stride[0] * stride[1] * rows * columns
    return Plan(
        *where, offsets, phases, chosen, bands, steps, gathers and steps == (1, 1), tall, wide,
        panels, splits, max(1, min(shape.threads, planes * splits)), pixels, image + OVERRUN,
        tall * pixels + OVERRUN, pixels * most_taps + 2 * block if gathers else 0,
        planes * shape.channels * height * width * max(1, most_taps),
    )  # fmt: skip


def _bands(reach: list[Pair], most: int) -> Array:
    """Return bands of at most so many neighbouring lines that use the same taps."""
    bands = []
    first = 0
    for (start, stop), lines in groupby(reach):
        count = len(list(lines))
        parts = -(-count // most)
        for part in range(parts):
            begin, end = part * count // parts, (part + 1) * count // parts
            bands.append([first + begin, end - begin, start, stop - start])
        first += count
    return np.array(bands, dtype=np.int64)
