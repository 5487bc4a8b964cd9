"""Launches of convolution.cu: convolution, its two gradients, and transposed convolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from trine.dtypes import Array
from trine.kernels.cuda import tiles
from trine.kernels.cuda.launch import Launch, Launches, Scratch
from trine.kernels.cuda.products import add_parts
from trine.kernels.cuda.tiles import Tile
from trine.kernels.registry import cuda_kernel

SOURCE = "convolution.cu"
Pair = tuple[int, int]
Choose = Callable[[int, int, int], Tile]
"""From rows, columns and how many such products: the tile."""

DIRECT = tuple(Tile(f"Direct{rows}", rows, 128, 128) for rows in (1, 8, 16))
"""For few rows a group; the last one's rows are as many as it serves."""

DEEP = Tile("Deep", 1, 4, 256)
FEW_SUMS = 256
"""Up to so many weights a group one block for four of them beats tiles that are mostly empty."""


def _direct(rows: int, columns: int, layers: int) -> Tile:
    return next((tile for tile in DIRECT if tile.rows >= rows), DIRECT[-1])


def _geometry(
    image: Array, kernel: tuple[int, ...], out: Array, stride: Pair, padding: Pair, dilation: Pair,
    groups: int,
) -> tuple[int, ...]:  # fmt: skip
    """Return n, c, h, w, k, r, s, p, q and the attributes, as all kernels of the file take them."""
    sizes = (*image.shape, out.shape[1], *kernel, *out.shape[2:])
    return (*sizes, *stride, *padding, *dilation, groups)


def _conv2d(choose: Choose) -> Callable[..., Launches]:
    def launch(
        x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Pair, dilation: Pair,
        groups: int, activation: int, out: Array,
    ) -> Launches:  # fmt: skip
        if not out.size:
            return ()
        rows, pixels = out.shape[1] // groups, out.size // out.shape[1]
        tiles.check("conv2d", output_pixels=pixels, weights_of_a_kernel=math.prod(weight.shape[1:]))
        tile = choose(rows, pixels, groups)
        geometry = _geometry(x, weight.shape[2:], out, stride, padding, dilation, groups)
        return Launch(
            tile.grid("conv2d", rows, pixels, groups),
            (tile.threads,),
            (x, weight, bias, out, *geometry, activation),
            function=f"conv2d<{{T}}, {tile.name}>",
        )

    return launch


def _input_grad(
    op: str, choose: Choose, delta: Array, weight: Array, bias: Array | None, grad: Array,
    stride: Pair, padding: Pair, dilation: Pair, groups: int,
) -> Launches:  # fmt: skip
    if not grad.size:
        return ()
    n, c, h, w = grad.shape
    residues = stride[0] * stride[1]
    pixels = n * -(-h // stride[0]) * -(-w // stride[1])
    tiles.check(op, input_pixels=n * h * w, weights_of_a_channel=weight.size // weight.shape[1])
    rows, layers = c // groups, groups * residues
    tile = choose(rows, pixels, layers)
    geometry = _geometry(grad, weight.shape[2:], delta, stride, padding, dilation, groups)
    return Launch(
        tile.grid(op, rows, pixels, layers),
        (tile.threads,),
        (delta, weight, bias, grad, *geometry),
        function=f"conv2d_input_grad<{{T}}, {tile.name}>",
    )


def _conv2d_input_grad(choose: Choose) -> Callable[..., Launches]:
    def launch(
        grad_out: Array, weight: Array, input_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
        groups: int, grad_x: Array,
    ) -> Launches:  # fmt: skip
        return _input_grad(
            "conv2d_input_grad", choose, grad_out, weight, None, grad_x, stride, padding, dilation,
            groups,
        )  # fmt: skip

    return launch


def _conv_transpose2d(choose: Choose) -> Callable[..., Launches]:
    def launch(
        x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Pair,
        output_padding: Pair, dilation: Pair, groups: int, out: Array,
    ) -> Launches:  # fmt: skip
        return _input_grad(
            "conv_transpose2d", choose, x, weight, bias, out, stride, padding, dilation, groups
        )

    return launch


def _conv2d_weight_grad(choose: Choose) -> Callable[..., Launches]:
    def launch(
        grad_out: Array, x: Array, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
        groups: int, grad_weight: Array,
    ) -> Launches:  # fmt: skip
        if not grad_weight.size:
            return ()
        rows, columns = grad_weight.shape[0] // groups, math.prod(grad_weight.shape[1:])
        depth = math.prod((grad_out.shape[0], *grad_out.shape[2:]))
        tiles.check("conv2d_weight_grad", output_pixels=depth, weights=grad_weight.size)
        tile = choose(rows, columns, groups)
        splits = tiles.splits_of(tile, rows, columns, depth, groups)
        target = grad_weight if splits == 1 else Scratch((splits, grad_weight.size), x.dtype)
        geometry = _geometry(x, kernel_size, grad_out, stride, padding, dilation, groups)
        sums = Launch(
            tile.grid("conv2d_weight_grad", rows, columns, groups * splits),
            (tile.threads,),
            (grad_out, x, target, *geometry, splits),
            function=f"conv2d_weight_grad<{{T}}, {tile.name}>",
        )
        if isinstance(target, Scratch):
            return [sums, add_parts(target, None, grad_weight, columns=1)]
        return sums

    return launch


def _few_kernels(weight: Array, groups: int, **_: Any) -> bool:
    return bool(weight.shape[0] // groups <= DIRECT[-1].rows)


def _few_channels(weight: Array, **_: Any) -> bool:
    return bool(weight.shape[1] <= DIRECT[-1].rows)


def _few_weights(grad_out: Array, x: Array, kernel_size: Pair, groups: int, **_: Any) -> bool:
    weights = grad_out.shape[1] // groups * (x.shape[1] // groups) * math.prod(kernel_size)
    return bool(weights <= FEW_SUMS)


def _in_precision(
    make: Callable[[Choose], Callable[..., Launches]], precision: str
) -> Callable[..., Launches]:
    return make(partial(tiles.choose, precision=precision))


for _op, _make, _function, _serves, _tile, _choose in (
    ("conv2d", _conv2d, "conv2d", _few_kernels, DIRECT[-1], _direct),
    ("conv2d_input_grad", _conv2d_input_grad, "conv2d_input_grad", _few_channels, DIRECT[-1], _direct),
    ("conv_transpose2d", _conv_transpose2d, "conv2d_input_grad", _few_channels, DIRECT[-1], _direct),
    ("conv2d_weight_grad", _conv2d_weight_grad, "conv2d_weight_grad", _few_weights, DEEP,
     lambda *_: DEEP),
):  # fmt: skip
    cuda_kernel(
        _op,
        name="direct",
        source=SOURCE,
        function=f"{_function}<{{T}}, {_tile.name}>",
        launch=_make(_choose),
        supports=_serves,
        priority=1,
    )
    tiles.in_every_precision(
        _op,
        name="implicit_gemm",
        source=SOURCE,
        function=f"{_function}<{{T}}, SMALL>",
        make=partial(_in_precision, _make),
    )
