"""Where the taps of a convolution lie in a packed image, worked out once for each geometry.

A packed image has its border in place, and for strides (sh, sw) it is split into sh * sw phases
whose pixels lie side by side: phase (a, b) holds the rows a, a + sh, ... and columns b, b + sw, ...
In it every tap is a fixed distance from every output pixel, and neighbouring outputs are
neighbours, at any stride, padding and dilation. So a run over flat positions computes several rows
of outputs at once; what falls between the rows is thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Pair = tuple[int, int]
Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Forward:
    """The packed input of a convolution and its taps in it."""

    rows: int
    columns: int
    phases: int
    packed: bool
    """Whether the image must be packed; otherwise it is used as it lies."""
    offsets: Offsets
    """Distance of each tap (c, r, s) of a group from the output pixel, in elements."""


@lru_cache(maxsize=256)
def forward(
    channels: int, size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Forward:
    """Return the layout of images of `channels` (of a group) for a convolution."""
    (height, width), (sh, sw) = size, stride
    rows = -(-(height + 2 * padding[0]) // sh)
    columns = -(-(width + 2 * padding[1]) // sw)
    c, r, s = np.ogrid[:channels, : kernel[0], : kernel[1]]
    down, right = r * dilation[0], s * dilation[1]
    phase = (down % sh) * sw + right % sw
    offsets = ((c * sh * sw + phase) * rows + down // sh) * columns + right // sw
    packed = stride != (1, 1) or padding != (0, 0)
    return Forward(rows, columns, sh * sw, packed, offsets.astype(np.int64).ravel())


@dataclass(frozen=True)
class Phase:
    """The input pixels (row + i sh, column + j sw), and the taps that reach them."""

    row: int
    column: int
    rows: int
    columns: int
    taps_r: tuple[int, ...]
    taps_s: tuple[int, ...]
    offsets: Offsets
    """Distance of each tap (k, r, s) of a group in the bordered error, in elements."""


@dataclass(frozen=True)
class Backward:
    """The bordered error of a convolution, and the phases of its input gradient."""

    top: int
    left: int
    rows: int
    columns: int
    phases: tuple[Phase, ...]


def _axis(
    size: int, out_size: int, kernel: int, stride: int, padding: int, dilation: int
) -> tuple[int, int, list[tuple[int, dict[int, int]]]]:
    """Return border, bordered size and for each phase its pixels and tap -> shift, on one axis."""
    phases = []
    lowest, highest = 0, out_size - 1
    for a in range(min(stride, size)):
        count = -(-(size - a) // stride)
        shifts = {
            r: (a + padding - r * dilation) // stride
            for r in range(kernel)
            if (a + padding - r * dilation) % stride == 0
        }
        for shift in shifts.values():
            lowest = min(lowest, shift)
            highest = max(highest, shift + count - 1)
        phases.append((count, shifts))
    return -lowest, highest - lowest + 1, phases


@lru_cache(maxsize=256)
def backward(
    channels: int,
    size: Pair,
    out_size: Pair,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Backward:
    """Return the layout of errors of `channels` (of a group) for the gradient of the input."""
    top, rows, down = _axis(size[0], out_size[0], kernel[0], stride[0], padding[0], dilation[0])
    left, columns, across = _axis(
        size[1], out_size[1], kernel[1], stride[1], padding[1], dilation[1]
    )
    phases = []
    for a, (count_h, shifts_h) in enumerate(down):
        for b, (count_w, shifts_w) in enumerate(across):
            k = np.arange(channels, dtype=np.int64)[:, None, None]
            r = np.array(list(shifts_h.values()), dtype=np.int64)[None, :, None] + top
            s = np.array(list(shifts_w.values()), dtype=np.int64)[None, None, :] + left
            offsets = ((k * rows + r) * columns + s).ravel()
            phases.append(Phase(a, b, count_h, count_w, tuple(shifts_h), tuple(shifts_w), offsets))
    return Backward(top, left, rows, columns, tuple(phases))
