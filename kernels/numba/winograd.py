"""3x3 convolutions of stride 1 by Winograd's minimal filtering: F(2x2, 3x3) and F(4x4, 3x3).

    Y = A^T [ sum_c (G g G^T) (.) (B^T d B) ] A

for tiles d of (m + 2) x (m + 2) inputs and m x m outputs: 16 products a tile of four outputs instead of
36, or 36 instead of 144. The products over channels are register tiles, one for each of the (m + 2)^2
positions; a packed image in m * m phases makes neighbouring tiles neighbours in memory, so that the
transforms run on vectors of tiles without shuffles.

F(2x2) adds and halves only: its error is that of direct summation. F(4x4) multiplies by up to 8, and
its error is some four times larger; so it runs when it is asked for by name.

Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", 2015 (arXiv:1509.09308).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange
from numba.core import types
from numba.extending import intrinsic

from trine.dtypes import Array
from trine.kernels.numba.conv import Pair
from trine.kernels.numba.conv_tiles import clear, for_each, pack_image
from trine.kernels.numba.jit import helper, parallel, scratch, threads
from trine.kernels.numba.maths import activate
from trine.kernels.numba.simd import (
    MOST_VECTORS,
    ROW_STEPS,
    ROWS,
    VECTOR_BYTES,
    Vectors,
    address,
    finish_lines,
    lanes,
    number,
    tile_of_steps,
)
from trine.kernels.registry import kernel

GRAIN = 1 << 20
FEW_BLOCKS = 2
"""Blocks of tiles for which each transformed weight is read at least once more from its cache."""
TRANSFORMED_BYTES = 320 * 1024
"""How much of the transformed input is held at once: it stays in the second-level cache."""

APART = 5 * 64
"""Bytes, modulo a page, between what is read or written at neighbouring positions.

At whole pages all positions would compete for the same few places of the first cache.
"""


def apart(elements: int, itemsize: int) -> int:
    """Return the least distance of at least so many elements that is `APART` beyond whole pages."""
    return elements + (APART - elements * itemsize) % 4096 // itemsize


# For F(2x2, 3x3) and F(4x4, 3x3), by m: the transforms of input, weight and output.
BT: dict[int, list[list[float]]] = {
    2: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    4: [
        [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
    ],
}  # fmt: skip
G = {
    2: [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
    4: [
        [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
    ],
}  # fmt: skip
AT: dict[int, list[list[float]]] = {
    2: [[1, 1, 1, 0], [0, 1, -1, -1]],
    4: [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
}


def combined(v: Vectors, matrix: list[list[float]], values: list[Any]) -> list[Any]:
    """Return matrix @ values for vectors, with no multiplication by 0 and 1."""
    results = []
    for row in matrix:
        total = None
        for factor, value in sorted(zip(row, values, strict=True), key=lambda pair: -pair[0]):
            if factor == 0:
                continue
            if total is None:
                constant = ir.Constant(v.type, [float(factor)] * v.lanes)
                total = value if factor == 1 else v.b.fmul(constant, value)
            elif factor == 1:
                total = v.b.fadd(total, value)
            elif factor == -1:
                total = v.b.fsub(total, value)
            else:
                total = v.fma(ir.Constant(v.type, [float(factor)] * v.lanes), value, total)
        results.append(total)
    return results


def both_sides(v: Vectors, matrix: list[list[float]], square: list[list[Any]]) -> list[list[Any]]:
    """Return matrix @ square @ matrix^T."""
    left = [combined(v, matrix, list(column)) for column in zip(*square, strict=True)]
    return [combined(v, matrix, list(row)) for row in zip(*left, strict=True)]


def _make_transforms(m: int) -> tuple[Any, Any]:
    """Make the transforms of one vector of neighbouring tiles."""
    n = m + 2

    @intrinsic
    def transform_input(
        typingctx: Any, like: Any, x: Any, plane: Any, pitch: Any, out: Any, out_step: Any
    ) -> Any:
        """B^T d B: d from phases `plane` apart in rows of `pitch`; position t to out + t out_step."""
        signature = types.void(like, *[types.int64] * 5)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            b, v = builder, Vectors(builder, signature.args[0])
            _, x, plane, pitch, out, out_step = args
            source, target = v.pointer(x), v.pointer(out)
            square = []
            for i in range(n):
                row = []
                for j in range(n):
                    place = b.add(
                        b.mul(plane, number(i % m * m + j % m)),
                        b.add(b.mul(pitch, number(i // m)), number(j // m)),
                    )
                    row.append(v.load(v.at(source, place)))
                square.append(row)
            flat = [value for row in both_sides(v, BT[m], square) for value in row]
            for t, value in enumerate(flat):
                v.store(value, v.at(target, b.mul(out_step, number(t))))
            return context.get_dummy_value()

        return signature, emit

    @intrinsic
    def transform_output(typingctx: Any, like: Any, x: Any, step: Any, out: Any, row: Any) -> Any:
        """A^T y A: position t of y at x + t step; m rows of m lanes pixels, `row` apart, to out."""
        signature = types.void(like, *[types.int64] * 4)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            b, v = builder, Vectors(builder, signature.args[0])
            _, x, step, out, row_step = args
            source, target = v.pointer(x), v.pointer(out)
            square = [
                [v.load(v.at(source, b.mul(step, number(i * n + j)))) for j in range(n)]
                for i in range(n)
            ]
            for i, pixels in enumerate(both_sides(v, AT[m], square)):
                start = v.at(target, b.mul(row_step, number(i)))
                for j, value in enumerate(_interleaved(v, pixels)):
                    v.store(value, v.at(start, number(j * v.lanes)))
            return context.get_dummy_value()

        return signature, emit

    return transform_input, transform_output


def _interleaved(v: Vectors, values: list[Any]) -> list[Any]:
    """Return vectors that hold the first elements of all, then the second elements, and so on."""
    if len(values) == 1:
        return values
    even, odd = _interleaved(v, values[0::2]), _interleaved(v, values[1::2])
    half = v.lanes // 2
    result = []
    for x, y in zip(even, odd, strict=True):
        for first in (0, half):
            order = [place for i in range(first, first + half) for place in (i, v.lanes + i)]
            result.append(v.b.shuffle_vector(x, y, ir.Constant(v.indices, order)))
    return result


transform_input2, _output2 = _make_transforms(2)
_input4, _output4 = _make_transforms(4)


@helper
def _transform_input(
    like: float, m: int, x: int, plane: int, pitch: int, out: int, out_step: int
) -> None:
    if m == 2:
        transform_input2(like, x, plane, pitch, out, out_step)
    else:
        _input4(like, x, plane, pitch, out, out_step)


@helper
def _transform_output(like: float, m: int, x: int, step: int, out: int, row: int) -> None:
    if m == 2:
        _output2(like, x, step, out, row)
    else:
        _output4(like, x, step, out, row)


@parallel(grain=1 << 12)
def _transform_weights(weight: Array, turned: bool, g: Array, out: Array) -> None:
    """G w G^T of weights (K, C, 3, 3) to out (n n, panels, C, ROWS); `turned`: (C, K), rotated."""
    n = g.shape[0]
    panels, channels = out.shape[1], out.shape[2]
    filters = weight.shape[1] if turned else weight.shape[0]
    for item in prange(panels * channels):
        panel, c = divmod(np.int64(item), channels)
        half = np.empty((n, 3), weight.dtype)
        for row in range(ROWS):
            k = min(panel * ROWS + row, filters - 1)  # rows beyond the last repeat it
            w = weight[c, k] if turned else weight[k, c]
            for i in range(n):
                for s in range(3):
                    if turned:
                        half[i, s] = (
                            g[i, 0] * w[2, 2 - s] + g[i, 1] * w[1, 2 - s] + g[i, 2] * w[0, 2 - s]
                        )
                    else:
                        half[i, s] = g[i, 0] * w[0, s] + g[i, 1] * w[1, s] + g[i, 2] * w[2, s]
            for i in range(n):
                for j in range(n):
                    out[i * n + j, panel, c, row] = (
                        g[j, 0] * half[i, 0] + g[j, 1] * half[i, 1] + g[j, 2] * half[i, 2]
                    )


@parallel(grain=GRAIN)
def _convolve(  # noqa: PLR0912
    m: int, x: Array, size: Pair, border: Pair, rows: int, columns: int, together: int,
    weights: Array, bias: Array, activation: int, splits: int, most: int, spread: int, step: int,
    row_steps: Array, buffers: Array, transformed: Array, products: Array, pixels: Array, out: Array,
) -> None:  # fmt: skip
    """Convolve images (N, C, H W) to out (N, K, H, W); weights: (n n, panels, C, ROWS).

    Some images lie `together`, side by side in the rows of one packed image, `columns` each: a
    small one by itself would not fill vectors. `most` tiles at a time; buffers, transformed,
    products, pixels: a row for each thread. A block's inputs at a position lie `spread` elements
    after those at the one before, and its products `step`.
    """
    images, channels = x.shape[0], x.shape[1]
    filters = out.shape[1]
    positions, panels = weights.shape[0], weights.shape[1]
    itemsize = x.itemsize
    like = x.dtype.type(0)
    vector = VECTOR_BYTES // itemsize
    block = MOST_VECTORS * vector
    pitch = together * columns
    plane = rows * pitch
    workers = buffers.shape[0]
    items = (images + together - 1) // together * splits
    for worker in prange(workers):
        w = np.int64(worker)
        ready: Any = np.int64(-1)
        clear(buffers[w])
        for item in range(w * items // workers, (w + 1) * items // workers):
            group, split = divmod(item, splits)
            image = group * together
            here = min(together, images - image)
            if image != ready:
                for g in range(here):
                    pack_image(
                        like, itemsize, address(x[image + g]), channels, size, border[0], border[1],
                        (m, m), rows, pitch, address(buffers[w]) + g * columns * itemsize,
                    )  # fmt: skip
                ready = image
            total = (rows - 2) * pitch + here * columns - 1
            for first in range(0, total, most):
                count = min(most, total - first)
                for p in range(0, count, block):
                    own = min(block, (count - p + vector - 1) // vector * vector)
                    target = address(transformed[w]) + p // block * positions * spread * itemsize
                    for c in range(channels):
                        source = address(buffers[w]) + (c * m * m * plane + first + p) * itemsize
                        for v in range(0, own, vector):
                            _transform_input(
                                like, m, source + v * itemsize, plane, pitch,
                                target + (c * own + v) * itemsize, spread,
                            )  # fmt: skip
                first_panel, last_panel = split * panels // splits, (split + 1) * panels // splits
                for t in range(positions):
                    for p in range(0, count, block):  # a block's inputs stay in the first cache
                        own = min(block, (count - p + vector - 1) // vector * vector)
                        source = (
                            address(transformed[w]) + p // block * positions * spread * itemsize
                        )
                        for panel in range(first_panel, last_panel):
                            tile_of_steps(
                                like, own // vector, address(weights[t, panel]), address(row_steps),
                                ROWS, source + t * spread * itemsize, own, channels, 0,
                                address(products[w])
                                + (t * step + (panel - first_panel) * ROWS * most + p) * itemsize,
                                most,
                            )  # fmt: skip
                for k in range(first_panel * ROWS, min(last_panel * ROWS, filters)):
                    row = (k - first_panel * ROWS) * most
                    for p in range(0, count, vector):
                        _transform_output(
                            like, m, address(products[w]) + (row + p) * itemsize, step,
                            address(pixels[w]) + p * m * itemsize, m * most,
                        )  # fmt: skip
                    _store(
                        pixels[w], m, first, count, columns, together, most, bias[k], activation,
                        out[image : image + here, k],
                    )  # fmt: skip


@helper
def _store(
    pixels: Array, m: int, first: int, count: int, columns: int, together: int, most: int,
    bias: float, activation: int, out: Array,
) -> None:  # fmt: skip
    """Write `count` tiles from flat position `first` on, m rows of pixels, to images (N, H, W)."""
    added = pixels.dtype.type(bias)
    size = pixels.itemsize
    images, height, width = out.shape
    i, place = divmod(first, columns * together)
    done = 0
    while done < count:
        image, j = divmod(place, columns)
        run = min(columns - j, count - done)
        valid = min(min(run, columns - 1 - j) * m, width - j * m)  # the last column is a border
        if valid > 0 and image < images:
            for a in range(min(m, height - i * m)):
                start = a * m * most + done * m
                target = out[image, i * m + a]
                if activation < 2:
                    finish_lines(
                        added, address(pixels) + start * size, 0, added, activation, 1, valid,
                        address(target) + j * m * size, 0,
                    )  # fmt: skip
                else:
                    activate(
                        pixels[start : start + valid], added, activation,
                        target[j * m : j * m + valid],
                    )  # fmt: skip
        done += run
        place += run
        if place == columns * together:
            i, place = i + 1, 0


def _run(
    m: int, x: Array, padding: Pair, weight: Array, turned: bool, bias: Array | None,
    activation: int, out: Array,
) -> None:  # fmt: skip
    """Transform the weights, choose blocks and workers, and convolve."""
    if not out.size:
        return
    n, channels, height, width = x.shape
    filters, *size = out.shape[1:]
    positions = (m + 2) ** 2
    panels = -(-filters // ROWS)
    shape = (positions, panels, channels, ROWS)
    weights = scratch("winograd weights", int(np.prod(shape)), x.dtype)[: int(np.prod(shape))]
    weights = weights.reshape(shape)
    factors = np.array(G[m], dtype=x.dtype)
    _transform_weights(panels * ROWS * channels * 30, weight, turned, factors, weights)
    rows, columns = (-(-s // m) + 1 for s in size)
    block = MOST_VECTORS * lanes(x.itemsize)
    together = min(n, -(-FEW_BLOCKS * block // (rows * columns)))
    groups = -(-n // together)
    together = -(-n // groups)  # alike
    most = TRANSFORMED_BYTES // (positions * channels * x.itemsize) // block * block
    most = max(FEW_BLOCKS * block, most)
    most = min(most, -(-rows * columns * together // block) * block)
    splits = max(1, min(panels, threads.count // groups))
    workers = max(1, min(threads.count, groups * splits))
    spread = apart(channels * block, x.itemsize)
    step = apart(-(-panels // splits) * ROWS * most, x.itemsize)
    _convolve(
        n * filters * channels * size[0] * size[1] * 4,
        m, x.reshape(n, channels, height * width), (height, width), padding, rows, columns, together,
        weights, np.zeros(filters, x.dtype) if bias is None else bias, activation, splits, most, spread, step,
        ROW_STEPS,
        for_each("images", workers, channels * m * m * rows * columns * together + 2 * block,
            x.dtype),
        for_each("transformed", workers, most // block * positions * spread, x.dtype),
        for_each("products", workers, positions * step, x.dtype),
        for_each("pixels", workers, m * m * most, x.dtype),
        out,
    )  # fmt: skip


def _fits(weight: Array, stride: Pair, dilation: Pair, groups: int, **_: Any) -> bool:
    return (
        weight.shape[2:] == (3, 3) and stride == (1, 1) and dilation == (1, 1) and groups == 1
    )  # fmt: skip


def _forward_pays(x: Array, weight: Array, **call: Any) -> bool:
    """From 32 channels on both sides the products outweigh the transforms."""
    return _fits(weight, **call) and min(weight.shape[:2]) >= PAYS_FROM


def _backward_fits(weight: Array, padding: Pair, **call: Any) -> bool:
    return _fits(weight, **call) and max(padding) <= 2


PAYS_FROM = 32


@kernel(
    "conv2d", backend="numba", name="winograd2", priority=2, supports=_forward_pays, flops=16 / 36
)
def conv2d_f2(
    x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, activation: int, out: Array,
) -> None:  # fmt: skip
    """A 3x3 convolution by F(2x2, 3x3)."""
    _run(2, x, padding, weight, False, bias, activation, out)


@kernel(
    "conv2d", backend="numba", name="winograd4", priority=-1, supports=_forward_pays, flops=36 / 144
)
def conv2d_f4(
    x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, activation: int, out: Array,
) -> None:  # fmt: skip
    """A 3x3 convolution by F(4x4, 3x3)."""
    _run(4, x, padding, weight, False, bias, activation, out)


def _backward_pays(weight: Array, padding: Pair, **call: Any) -> bool:
    return _backward_fits(weight, padding, **call) and min(weight.shape[:2]) >= PAYS_FROM


@kernel(
    "conv2d_input_grad",
    backend="numba",
    name="winograd2",
    priority=2,
    supports=_backward_pays,
    flops=16 / 36,
)
def conv2d_input_grad_f2(
    grad_out: Array, weight: Array, input_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, grad_x: Array,
) -> None:  # fmt: skip
    """The gradient of the input: the convolution of the error with the turned weights."""
    _run(2, grad_out, (2 - padding[0], 2 - padding[1]), weight, True, None, 0, grad_x)


@kernel(
    "conv2d_input_grad", backend="numba", name="winograd4", priority=-1, supports=_backward_pays
)
def conv2d_input_grad_f4(
    grad_out: Array, weight: Array, input_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, grad_x: Array,
) -> None:  # fmt: skip
    """The gradient of the input: the convolution of the error with the turned weights."""
    _run(4, grad_out, (2 - padding[0], 2 - padding[1]), weight, True, None, 0, grad_x)


def _transpose_pays(output_padding: Pair, **call: Any) -> bool:
    return output_padding == (0, 0) and _backward_pays(**call)


@kernel(
    "conv_transpose2d", backend="numba", name="winograd2", priority=2, supports=_transpose_pays,
    flops=16 / 36,
)  # fmt: skip
def conv_transpose2d_f2(
    x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Pair, output_padding: Pair,
    dilation: Pair, groups: int, out: Array,
) -> None:  # fmt: skip
    """A transposed convolution: one with the turned weights."""
    _run(2, x, (2 - padding[0], 2 - padding[1]), weight, True, bias, 0, out)
