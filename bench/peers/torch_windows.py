"""PyTorch's convolutions and poolings, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch.nn.functional as F

from trine.bench.peers import PeerCall
from trine.bench.peers.torch_calls import ACTIVATIONS, aten, empty, make_call


def conv2d(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int,
    activation: str,
) -> PeerCall:  # fmt: skip
    """Convolution with bias and activation."""
    f = ACTIVATIONS[activation]
    return make_call(
        lambda x, w, b: f(F.conv2d(x, w, b, stride, padding, dilation, groups)), x, weight, bias
    )


def _conv_backward(delta: Any, x: Any, weight: Any, mask: list[bool], a: dict[str, Any]) -> Any:
    return aten.convolution_backward(
        delta, x, weight, None, a["stride"], a["padding"], a["dilation"], False, [0, 0],
        a["groups"], mask,
    )  # fmt: skip


def conv2d_input_grad(grad_out: Any, weight: Any, input_size: Any, **geometry: Any) -> PeerCall:
    """Gradient of the input."""
    shape = (grad_out.shape[0], weight.shape[1] * geometry["groups"], *input_size)
    x = empty(shape, grad_out)
    return make_call(
        lambda d, w: _conv_backward(d, x, w, [True, False, False], geometry)[0], grad_out, weight
    )


def conv2d_weight_grad(grad_out: Any, x: Any, kernel_size: Any, **geometry: Any) -> PeerCall:
    """Gradient of the weight."""
    shape = (grad_out.shape[1], x.shape[1] // geometry["groups"], *kernel_size)
    weight = empty(shape, x)
    return make_call(
        lambda d, x: _conv_backward(d, x, weight, [False, True, False], geometry)[1], grad_out, x
    )


def conv_transpose2d(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any, dilation: Any,
    groups: int,
) -> PeerCall:  # fmt: skip
    """Transposed convolution."""
    return make_call(
        lambda x, w, b: F.conv_transpose2d(
            x, w, b, stride, padding, output_padding, groups, dilation
        ),
        x, weight, bias,
    )  # fmt: skip


def max_pool2d(
    x: Any, kernel_size: Any, stride: Any, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False,
) -> PeerCall:  # fmt: skip
    """Maxima, with the indices that training needs."""
    return make_call(
        lambda x: aten.max_pool2d_with_indices(
            x, kernel_size, stride, padding, dilation, ceil_mode
        ),
        x, shown=1,
    )  # fmt: skip


def max_pool2d_backward(
    grad_out: Any, argmax: Any, input_size: Any, kernel_size: Any, stride: Any,
    padding: Any = (0, 0), dilation: Any = (1, 1),
) -> PeerCall:  # fmt: skip
    """Gradient of the input; torch's indices number pixels, ours elements of a window."""
    p, q = grad_out.shape[2:]
    r, s = np.divmod(argmax.astype(np.int64), kernel_size[1])
    row = np.arange(p)[:, None] * stride[0] - padding[0] + r * dilation[0]
    column = np.arange(q) * stride[1] - padding[1] + s * dilation[1]
    x = empty((*grad_out.shape[:2], *input_size), grad_out)
    return make_call(
        lambda d, where: aten.max_pool2d_with_indices_backward(
            d, x, kernel_size, stride, padding, dilation, False, where
        ),
        grad_out, row * input_size[1] + column,
    )  # fmt: skip


def avg_pool2d(
    x: Any, kernel_size: Any, stride: Any, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int = 0,
) -> PeerCall:  # fmt: skip
    """Averages."""
    rest = (ceil_mode, count_include_pad, divisor_override or None)
    return make_call(lambda x: F.avg_pool2d(x, kernel_size, stride, padding, *rest), x)


def avg_pool2d_backward(
    grad_out: Any, input_size: Any, kernel_size: Any, stride: Any, padding: Any = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int = 0,
) -> PeerCall:  # fmt: skip
    """Gradient of the input."""
    x = empty((*grad_out.shape[:2], *input_size), grad_out)
    rest = (ceil_mode, count_include_pad, divisor_override or None)
    return make_call(
        lambda d: aten.avg_pool2d_backward(d, x, kernel_size, stride, padding, *rest), grad_out
    )


def adaptive_avg_pool2d(x: Any, output_size: Any) -> PeerCall:
    """Averages over bins."""
    return make_call(lambda x: F.adaptive_avg_pool2d(x, output_size), x)


def adaptive_avg_pool2d_backward(grad_out: Any, input_size: Any) -> PeerCall:
    """Gradient of the input."""
    x = empty((*grad_out.shape[:2], *input_size), grad_out)
    return make_call(lambda d: aten._adaptive_avg_pool2d_backward(d, x), grad_out)


FUNCTIONS: dict[str, Callable[..., PeerCall | None]] = {
    function.__name__: function
    for function in (
        conv2d, conv2d_input_grad, conv2d_weight_grad, conv_transpose2d, max_pool2d,
        max_pool2d_backward, avg_pool2d, avg_pool2d_backward, adaptive_avg_pool2d,
        adaptive_avg_pool2d_backward,
    )
}  # fmt: skip
"""By op name."""
