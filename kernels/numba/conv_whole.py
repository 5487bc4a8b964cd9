"""Convolution by kernels as large as the image: one product of matrices, as in a full layer.

An output is one pixel, whose window is the whole image, so that images and kernels are rows of
C H W numbers as they lie in memory: the fifth layer of LeNet-5, or a classifier's convolution over a
last feature map.
"""

from __future__ import annotations

import math

from trine.dtypes import Array
from trine.kernels.numba.conv import Pair
from trine.kernels.numba.gemm import multiply
from trine.kernels.registry import kernel


def _covers(size: Pair, kernel_size: Pair, padding: Pair, groups: int) -> bool:
    """Whether a kernel's taps are the pixels of an image, each of them once."""
    return size == kernel_size and padding == (0, 0) and groups == 1


def _rows(a: Array) -> Array:
    """Return images or kernels (n, C, H, W) as a matrix, a row for each."""
    return a.reshape(len(a), math.prod(a.shape[1:]))


@kernel(
    "conv2d", backend="numba", name="whole", priority=3,
    supports=lambda x, weight, padding, groups, **_: _covers(
        x.shape[2:], weight.shape[2:], padding, groups
    ),
)  # fmt: skip
def conv2d(
    x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, activation: int, out: Array,
) -> None:  # fmt: skip
    """out[n, k] = act(sum_cij w[k, c, i, j] x[n, c, i, j] + b[k])."""
    multiply(_rows(x), False, _rows(weight), True, bias, activation, _rows(out))


@kernel(
    "conv2d_input_grad", backend="numba", name="whole", priority=3,
    supports=lambda weight, input_size, padding, groups, **_: _covers(
        input_size, weight.shape[2:], padding, groups
    ),
)  # fmt: skip
def conv2d_input_grad(
    grad_out: Array, weight: Array, input_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, grad_x: Array,
) -> None:  # fmt: skip
    """grad_x[n, c, i, j] = sum_k w[k, c, i, j] grad_out[n, k]."""
    multiply(_rows(grad_out), False, _rows(weight), False, None, 0, _rows(grad_x))


@kernel(
    "conv2d_weight_grad", backend="numba", name="whole", priority=4,
    supports=lambda x, kernel_size, padding, groups, **_: _covers(
        x.shape[2:], kernel_size, padding, groups
    ),
)  # fmt: skip
def conv2d_weight_grad(
    grad_out: Array, x: Array, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, grad_weight: Array,
) -> None:  # fmt: skip
    """grad_w[k, c, i, j] = sum_n grad_out[n, k] x[n, c, i, j]."""
    multiply(_rows(grad_out), True, _rows(x), False, None, 0, _rows(grad_weight))
