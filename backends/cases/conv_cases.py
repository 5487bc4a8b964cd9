"""Cases of convolution, its two gradients, and transposed convolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trine.backends.cases.activation_cases import ACTIVATIONS, normal
from trine.backends.cases.case import OpCase, Rng, Sample, register
from trine.backends.reference.windows import Pair, output_sizes
from trine.dtypes import DType


@dataclass(frozen=True)
class Layer:
    """A convolution of images (n, c, *size) with k kernels."""

    n: int
    c: int
    size: Pair
    k: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def label(self) -> str:
        """The numbers that are not at their defaults."""
        extra = {
            "stride": (self.stride, (1, 1)), "padding": (self.padding, (0, 0)),
            "dilation": (self.dilation, (1, 1)), "groups": (self.groups, 1),
        }  # fmt: skip
        words = [f"{name} {value}" for name, (value, usual) in extra.items() if value != usual]
        shape = (self.n, self.c, *self.size)
        return ", ".join([f"{shape} by {(self.k, *self.kernel)}", *words])

    @property
    def geometry(self) -> dict[str, Any]:
        """The attributes that all ops of this file share."""
        return {
            "stride": self.stride, "padding": self.padding, "dilation": self.dilation,
            "groups": self.groups,
        }  # fmt: skip

    @property
    def out_size(self) -> Pair:
        """Height and width of the output."""
        return output_sizes(self.size, self.kernel, self.stride, self.padding, self.dilation)

    def x(self, rng: Rng, dtype: DType) -> Any:
        """Images."""
        return normal(rng, dtype, (self.n, self.c, *self.size))

    def weight(self, rng: Rng, dtype: DType) -> Any:
        """Kernels as layers start with them: z of order one, not where activations saturate."""
        shape = (self.k, self.c // self.groups, *self.kernel)
        return (rng.normal(size=shape) / math.prod(shape[1:]) ** 0.5).astype(dtype)

    def delta(self, rng: Rng, dtype: DType) -> Any:
        """An error of the output."""
        return normal(rng, dtype, (self.n, self.k, *self.out_size))


LAYERS = (
    Layer(0, 2, (4, 4), 3, (3, 3)),
    Layer(1, 1, (1, 1), 1, (1, 1)),
    Layer(1, 1, (3, 2), 1, (3, 2)),
    Layer(2, 1, (28, 28), 6, (5, 5), padding=(2, 2)),
    Layer(2, 6, (14, 14), 16, (5, 5)),
    Layer(3, 5, (7, 9), 4, (3, 2), padding=(1, 0)),
    Layer(2, 3, (9, 7), 5, (2, 3), stride=(2, 1), padding=(0, 2)),
    Layer(2, 4, (11, 10), 6, (3, 3), stride=(3, 2), padding=(2, 1)),
    Layer(1, 3, (8, 8), 2, (1, 1), stride=(3, 3)),
    Layer(2, 2, (12, 11), 3, (3, 2), dilation=(2, 3)),
    Layer(2, 2, (13, 12), 3, (3, 3), stride=(2, 3), padding=(2, 2), dilation=(2, 1)),
    Layer(2, 4, (8, 7), 6, (3, 3), padding=(1, 1), groups=2),
    Layer(2, 5, (8, 7), 5, (3, 3), padding=(1, 1), groups=5),
    Layer(2, 32, (9, 7), 33, (3, 3), padding=(1, 1)),
    Layer(2, 64, (5, 4), 64, (3, 3), padding=(1, 1)),
    Layer(2, 130, (5, 3), 37, (1, 1)),
    Layer(1, 33, (3, 5), 130, (1, 1)),
    Layer(1, 128, (7, 7), 32, (1, 1)),
    Layer(1, 34, (6, 27), 64, (2, 3), stride=(2, 1), padding=(1, 0), groups=2),
    Layer(1, 4, (9, 9), 8, (3, 2), stride=(2, 2), padding=(1, 1), dilation=(1, 2), groups=4),
    Layer(2, 3, (6, 33), 3, (3, 3), padding=(1, 1), groups=3),
    Layer(2, 3, (7, 33), 6, (5, 5), stride=(2, 2), padding=(2, 2), groups=3),
    Layer(1, 33, (6, 5), 31, (3, 3), padding=(1, 1)),
    Layer(1, 257, (3, 3), 3, (2, 2)),
    Layer(0, 3, (4, 2), 5, (4, 2)),
    Layer(33, 16, (5, 3), 34, (5, 3), stride=(2, 2)),
    Layer(2, 3, (1, 1), 4, (1, 1), dilation=(2, 3)),
    Layer(33, 3, (5, 4), 2, (2, 2)),
    Layer(1, 2, (31, 65), 3, (3, 3), padding=(3, 4)),
    Layer(1, 1, (5, 5), 2, (4, 4), padding=(5, 4)),
)
"""One element, no image, sizes beside 32 and 256, and every attribute alone and together."""

TIMED = (
    ("tiny", Layer(8, 1, (28, 28), 6, (5, 5), padding=(2, 2))),
    ("typical", Layer(64, 6, (14, 14), 16, (5, 5))),
    ("large", Layer(16, 64, (56, 56), 64, (3, 3), padding=(1, 1))),
)

MakeCall = Callable[[Rng, DType, Layer], tuple[tuple[Any, ...], dict[str, Any]]]


def _samples(call: MakeCall, layers: tuple[Layer, ...] = LAYERS) -> Callable[..., list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        return [Sample(layer.label, *call(rng, dtype, layer)) for layer in layers]

    return samples


def _timed(call: MakeCall) -> Callable[[Rng, DType], list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        return [Sample(label, *call(rng, dtype, layer)) for label, layer in TIMED]

    return samples


def _conv2d_call(rng: Rng, dtype: DType, layer: Layer) -> tuple[tuple[Any, ...], dict[str, Any]]:
    arrays = layer.x(rng, dtype), layer.weight(rng, dtype), normal(rng, dtype, (layer.k,))
    return arrays, {**layer.geometry, "activation": "none"}


def _conv2d(rng: Rng, dtype: DType) -> list[Sample]:
    found = _samples(_conv2d_call)(rng, dtype)
    for layer in (LAYERS[5], LAYERS[11]):
        for name in ACTIVATIONS:
            (x, weight, bias), attrs = _conv2d_call(rng, dtype, layer)
            attrs["activation"] = name
            found.append(Sample(f"{layer.label}, {name}", (x, weight, bias), attrs))
            found.append(Sample(f"{layer.label}, {name}, no bias", (x, weight, None), attrs))
    # An image of NaN gives NaN and leaves its neighbour alone; which elements of an image one NaN
    # reaches may differ, as transforms of tiles spread it.
    (x, weight, bias), attrs = _conv2d_call(rng, dtype, LAYERS[3])
    x[0] = np.nan
    return [*found, Sample("an image of NaN", (x, weight, bias), attrs)]


def _input_grad_call(
    rng: Rng, dtype: DType, layer: Layer
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    arrays = layer.delta(rng, dtype), layer.weight(rng, dtype)
    return arrays, {"input_size": layer.size, **layer.geometry}


def _weight_grad_call(
    rng: Rng, dtype: DType, layer: Layer
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    arrays = layer.delta(rng, dtype), layer.x(rng, dtype)
    return arrays, {"kernel_size": layer.kernel, **layer.geometry}


def _transpose_call(rng: Rng, dtype: DType, layer: Layer) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Carry the output of a layer back to its input: output_padding is what its stride left over."""
    arrays = layer.delta(rng, dtype), layer.weight(rng, dtype), normal(rng, dtype, (layer.c,))
    left_over = tuple(
        layer.size[i] + 2 * layer.padding[i] - layer.dilation[i] * (layer.kernel[i] - 1) - 1
        - (layer.out_size[i] - 1) * layer.stride[i]
        for i in (0, 1)
    )  # fmt: skip
    return arrays, {"output_padding": left_over, **layer.geometry}


def _conv_transpose2d(rng: Rng, dtype: DType) -> list[Sample]:
    found = _samples(_transpose_call)(rng, dtype)
    (x, weight, _), attrs = _transpose_call(rng, dtype, LAYERS[7])
    found.append(Sample("no bias", (x, weight, None), attrs))
    (x, weight, bias), attrs = _transpose_call(rng, dtype, LAYERS[9])
    attrs["output_padding"] = (1, 2)  # a stride or more, as the dilation allows
    return [*found, Sample("output_padding beyond the stride", (x, weight, bias), attrs)]


def _flops(output: int, kernels: int) -> Callable[[Sample], int]:
    """Return 2 N P Q K C/g R S; `output` and `kernels` number the arrays with N P Q and the rest."""

    def flops(sample: Sample) -> int:
        n, _, p, q = sample.args[output].shape
        return 2 * int(n * p * q * sample.args[kernels].size)

    return flops


def _conv2d_flops(sample: Sample) -> int:
    x, weight = sample.args[0], sample.args[1]
    attrs = sample.attrs
    p, q = output_sizes(
        x.shape[2:], weight.shape[2:], attrs["stride"], attrs["padding"], attrs["dilation"]
    )
    return 2 * int(x.shape[0] * p * q * weight.size)


def _weight_grad_flops(sample: Sample) -> int:
    delta, x = sample.args
    r, s = sample.attrs["kernel_size"]
    return int(2 * delta.size * x.shape[1] // sample.attrs["groups"] * r * s)


register(OpCase("conv2d", _conv2d, "reduction", _timed(_conv2d_call), _conv2d_flops))
register(
    OpCase(
        "conv2d_input_grad", _samples(_input_grad_call), "reduction", _timed(_input_grad_call),
        _flops(0, 1),
    )
)  # fmt: skip
register(
    OpCase(
        "conv2d_weight_grad", _samples(_weight_grad_call), "reduction", _timed(_weight_grad_call),
        _weight_grad_flops,
    )
)  # fmt: skip
register(
    OpCase(
        "conv_transpose2d", _conv_transpose2d, "reduction", _timed(_transpose_call), _flops(0, 1)
    )
)
