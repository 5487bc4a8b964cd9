"""Launches of pooling.cu: maximum, average and adaptive average pooling, and their gradients."""

from __future__ import annotations

import math
from typing import Any

from trine.dtypes import Array
from trine.kernels.cuda import tiles
from trine.kernels.cuda.launch import Launch, Launches, blocks
from trine.kernels.registry import cuda_kernel

SOURCE = "pooling.cu"
THREADS = 256
Pair = tuple[int, int]

INT_ELEMENTS = 2**30
"""Arrays of more elements are indexed in 64 bits."""

WARP_BIN = 32
"""Elements of an adaptive bin from which a warp averages it rather than a thread."""


def _launch(function: str, size: int, arguments: tuple[Any, ...], lanes: int = 1) -> Launch:
    """Return a launch of `lanes` threads an element."""
    return Launch(blocks(size * lanes, THREADS), (THREADS,), arguments, function=function)


def _index(*arrays: Array) -> str:
    return "int" if max(a.size for a in arrays) <= INT_ELEMENTS else "long long"


def _argmax(array: Array) -> str:
    return "unsigned char" if array.dtype.itemsize == 1 else "int"


def _max_pool2d(
    x: Array, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool,
    out: Array, argmax: Array,
) -> Launches:  # fmt: skip
    if not out.size:
        return ()
    sizes = (*x.shape[2:], *out.shape[2:], *kernel_size, *stride, *padding, *dilation)
    function = f"max_pool2d<{{T}}, {_argmax(argmax)}, {_index(x, out)}>"
    return _launch(function, out.size, (x, out, argmax, out.size, *sizes))


def _max_pool2d_backward(
    grad_out: Array, argmax: Array, input_size: Pair, kernel_size: Pair, stride: Pair,
    padding: Pair, dilation: Pair, grad_x: Array,
) -> Launches:  # fmt: skip
    if not grad_x.size:
        return ()
    sizes = (*input_size, *grad_out.shape[2:], *kernel_size, *stride, *padding, *dilation)
    function = f"max_pool2d_backward<{{T}}, {_argmax(argmax)}, {_index(grad_x, grad_out)}>"
    return _launch(function, grad_x.size, (grad_out, argmax, grad_x, grad_x.size, *sizes))


def _avg_pool2d(
    x: Array, kernel_size: Pair, stride: Pair, padding: Pair, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int, out: Array,
) -> Launches:  # fmt: skip
    if not out.size:
        return ()
    sizes = (*x.shape[2:], *out.shape[2:], *kernel_size, *stride, *padding)
    arguments = (x, out, out.size, *sizes, count_include_pad, divisor_override)
    return _launch(f"avg_pool2d<{{T}}, {_index(x, out)}>", out.size, arguments)


def _avg_pool2d_backward(
    grad_out: Array, input_size: Pair, kernel_size: Pair, stride: Pair, padding: Pair,
    ceil_mode: bool, count_include_pad: bool, divisor_override: int, grad_x: Array,
) -> Launches:  # fmt: skip
    if not grad_x.size:
        return ()
    sizes = (*input_size, *grad_out.shape[2:], *kernel_size, *stride, *padding)
    arguments = (grad_out, grad_x, grad_x.size, *sizes, count_include_pad, divisor_override)
    function = f"avg_pool2d_backward<{{T}}, {_index(grad_x, grad_out)}>"
    return _launch(function, grad_x.size, arguments)


def _adaptive_avg_pool2d(x: Array, output_size: Pair, out: Array) -> Launches:
    if not out.size:
        return ()
    tiles.check("adaptive_avg_pool2d", pixels_of_a_plane=math.prod(x.shape[2:]))
    lanes = 32 if x.size >= WARP_BIN * out.size else 1
    arguments = (x, out, out.size, *x.shape[2:], *output_size)
    return _launch(f"adaptive_avg_pool2d<{{T}}, {lanes}>", out.size, arguments, lanes)


def _adaptive_avg_pool2d_backward(grad_out: Array, input_size: Pair, grad_x: Array) -> Launches:
    if not grad_x.size:
        return ()
    arguments = (grad_out, grad_x, grad_x.size, *input_size, *grad_out.shape[2:])
    return _launch("adaptive_avg_pool2d_backward<{T}>", grad_x.size, arguments)


for _op, _function, _make in (
    ("max_pool2d", "max_pool2d<{T}, unsigned char, int>", _max_pool2d),
    ("max_pool2d_backward", "max_pool2d_backward<{T}, unsigned char, int>", _max_pool2d_backward),
    ("avg_pool2d", "avg_pool2d<{T}, int>", _avg_pool2d),
    ("avg_pool2d_backward", "avg_pool2d_backward<{T}, int>", _avg_pool2d_backward),
    ("adaptive_avg_pool2d", "adaptive_avg_pool2d<{T}, 1>", _adaptive_avg_pool2d),
    (
        "adaptive_avg_pool2d_backward",
        "adaptive_avg_pool2d_backward<{T}>",
        _adaptive_avg_pool2d_backward,
    ),
):
    cuda_kernel(_op, name="gather", source=SOURCE, function=_function, launch=_make)
