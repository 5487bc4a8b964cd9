"""Named shapes, frozen, so that figures of different months and machines stand beside each other.

They are the layers of LeNet-5, AlexNet and ResNet, small images with few channels, depthwise
convolution, pooling at memory speed, full layers and an LSTM: the shapes of the project's first
study of peers. A name, once here, keeps its meaning: change nothing, add new names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trine.backends.cases import Rng, Sample
from trine.backends.cases.conv_cases import Layer as Conv
from trine.backends.cases.pool_cases import Layer as Pool
from trine.dtypes import DType

CONVOLUTIONS = {
    "lenet-1": Conv(64, 1, (28, 28), 6, (5, 5), padding=(2, 2)),
    "lenet-2": Conv(64, 6, (14, 14), 16, (5, 5)),
    "image-3-32": Conv(32, 3, (32, 32), 32, (3, 3), padding=(1, 1)),
    "block-64-32": Conv(32, 64, (32, 32), 64, (3, 3), padding=(1, 1)),
    "resnet-64-56": Conv(16, 64, (56, 56), 64, (3, 3), padding=(1, 1)),
    "resnet-128-28": Conv(16, 128, (28, 28), 128, (3, 3), padding=(1, 1)),
    "resnet-256-14": Conv(16, 256, (14, 14), 256, (3, 3), padding=(1, 1)),
    "pointwise-256-14": Conv(16, 256, (14, 14), 256, (1, 1)),
    "down-64-128": Conv(32, 64, (32, 32), 128, (3, 3), stride=(2, 2), padding=(1, 1)),
    "alexnet-1": Conv(16, 3, (224, 224), 64, (11, 11), stride=(4, 4), padding=(2, 2)),
    "depthwise-64-32": Conv(32, 64, (32, 32), 64, (3, 3), padding=(1, 1), groups=64),
}
POOLINGS = {
    "pool-2": Pool((32, 64, 56, 56), (2, 2), (2, 2)),
    "pool-3-2": Pool((32, 64, 56, 56), (3, 3), (2, 2), (1, 1)),
}
LINEARS = {"mlp-1": (128, 784, 256), "mlp-2": (128, 256, 10), "square-2048": (2048, 2048, 2048)}
"""(rows, in, out)."""
LSTMS = {"lstm-50": (50, 32, 64, 128)}
"""(steps, batch, inputs, units)."""

Call = tuple[tuple[Any, ...], dict[str, Any]]


def names() -> tuple[str, ...]:
    """Return every name."""
    return (*CONVOLUTIONS, *POOLINGS, *LINEARS, *LSTMS)


def _draw(rng: Rng, dtype: DType, *shape: int) -> Any:
    return rng.normal(size=shape).astype(dtype)


def _conv2d(rng: Rng, dtype: DType, a: Conv) -> Call:
    arrays = a.x(rng, dtype), a.weight(rng, dtype), _draw(rng, dtype, a.k)
    return arrays, {**a.geometry, "activation": "none"}


def _conv2d_input_grad(rng: Rng, dtype: DType, a: Conv) -> Call:
    return (a.delta(rng, dtype), a.weight(rng, dtype)), {"input_size": a.size, **a.geometry}


def _conv2d_weight_grad(rng: Rng, dtype: DType, a: Conv) -> Call:
    return (a.delta(rng, dtype), a.x(rng, dtype)), {"kernel_size": a.kernel, **a.geometry}


def _max_pool2d(rng: Rng, dtype: DType, a: Pool) -> Call:
    extra = {"dilation": a.dilation, "ceil_mode": a.ceil_mode}
    return (_draw(rng, dtype, *a.shape),), {**a.window, **extra}


def _max_pool2d_backward(rng: Rng, dtype: DType, a: Pool) -> Call:
    """Point each window at its first element that lies inside, or at one drawn among all."""
    argmax = rng.integers(0, a.kernel[0] * a.kernel[1], a.out_shape).astype(np.uint8)
    if a.padding != (0, 0):  # a border's windows may point outside: take their centre
        argmax[:, :, 0], argmax[:, :, -1] = 4, 4
        argmax[..., 0], argmax[..., -1] = 4, 4
    attrs = {"input_size": a.size, **a.window, "dilation": a.dilation}
    return (_draw(rng, dtype, *a.out_shape), argmax), attrs


def _avg_attrs(a: Pool) -> dict[str, Any]:
    extra = {"count_include_pad": True, "divisor_override": 0}
    return {**a.window, "ceil_mode": a.ceil_mode, **extra}


def _avg_pool2d(rng: Rng, dtype: DType, a: Pool) -> Call:
    return (_draw(rng, dtype, *a.shape),), _avg_attrs(a)


def _avg_pool2d_backward(rng: Rng, dtype: DType, a: Pool) -> Call:
    return (_draw(rng, dtype, *a.out_shape),), {"input_size": a.size, **_avg_attrs(a)}


def _linear(rng: Rng, dtype: DType, size: tuple[int, int, int]) -> Call:
    n, i, o = size
    weight = (rng.normal(size=(o, i)) / i**0.5).astype(dtype)
    return (_draw(rng, dtype, n, i), weight, _draw(rng, dtype, o)), {"activation": "none"}


def _linear_backward(rng: Rng, dtype: DType, size: tuple[int, int, int]) -> Call:
    n, i, o = size
    arrays = [_draw(rng, dtype, *shape) for shape in ((n, o), (n, i), (o, i), (n, o))]
    return tuple(arrays), {"activation": "none"}


def _lstm(rng: Rng, dtype: DType, size: tuple[int, int, int, int]) -> Call:
    t, n, i, h = size
    shapes = ((t, n, i), (n, h), (n, h), (4 * h, i), (4 * h, h), (4 * h,), (4 * h,))
    scales = (1, 0.5, 0.5, *[h**-0.5] * 4)
    arrays = [(rng.normal(size=s) * k).astype(dtype) for s, k in zip(shapes, scales, strict=True)]
    return tuple(arrays), {}


MAKERS: dict[str, tuple[dict[str, Any], Callable[..., Call]]] = {
    "conv2d": (CONVOLUTIONS, _conv2d),
    "conv2d_input_grad": (CONVOLUTIONS, _conv2d_input_grad),
    "conv2d_weight_grad": (CONVOLUTIONS, _conv2d_weight_grad),
    "max_pool2d": (POOLINGS, _max_pool2d),
    "max_pool2d_backward": (POOLINGS, _max_pool2d_backward),
    "avg_pool2d": (POOLINGS, _avg_pool2d),
    "avg_pool2d_backward": (POOLINGS, _avg_pool2d_backward),
    "linear": (LINEARS, _linear),
    "linear_backward": (LINEARS, _linear_backward),
    "lstm": (LSTMS, _lstm),
}
"""Op -> its named shapes, and what makes a call of one."""


def samples(op: str, wanted: Callable[[str], bool], seed: int, dtype: DType) -> list[Sample]:
    """Return the named samples of an op that are wanted: each the same whatever else is."""
    shapes, make = MAKERS.get(op, ({}, _linear))
    return [
        Sample(name, *make(np.random.default_rng(seed), dtype, shape))
        for name, shape in shapes.items()
        if wanted(name)
    ]
