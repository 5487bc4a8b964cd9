"""Cases of the fully connected layer."""

from __future__ import annotations

import numpy as np

from trine.backends.cases.case import OpCase, Rng, Sample, register
from trine.dtypes import DType

ACTIVATIONS = ("none", "relu", "sigmoid", "tanh")


def _linear(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    for n, i, o in ((1, 1, 1), (31, 33, 32), (0, 3, 2), (5, 257, 7), (64, 784, 10)):
        for activation in ACTIVATIONS:
            x, weight = rng.normal(size=(n, i)).astype(dtype), rng.normal(size=(o, i)).astype(dtype)
            weight /= dtype.type(np.sqrt(i))
            bias = rng.normal(size=o).astype(dtype)
            attrs = {"activation": activation}
            found.append(Sample(f"{n}x{i}x{o} {activation}", (x, weight, bias), attrs))
            found.append(Sample(f"{n}x{i}x{o} {activation}, no bias", (x, weight, None), attrs))
    return found


def _linear_backward(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    for n, i, o in ((1, 1, 1), (31, 33, 32), (5, 257, 7), (64, 784, 10)):
        for activation in ACTIVATIONS:
            x, weight = rng.normal(size=(n, i)).astype(dtype), rng.normal(size=(o, i)).astype(dtype)
            out = np.tanh(rng.normal(size=(n, o))).astype(dtype)
            grad_out = rng.normal(size=(n, o)).astype(dtype)
            args = (grad_out, x, weight, out)
            found.append(Sample(f"{n}x{i}x{o} {activation}", args, {"activation": activation}))
    return found


def _timing(rng: Rng, dtype: DType) -> list[Sample]:
    sizes = (("tiny", 64, 12, 3), ("typical", 128, 784, 256), ("large", 512, 2048, 2048))
    return [
        Sample(
            label,
            (
                rng.normal(size=(n, i)).astype(dtype),
                rng.normal(size=(o, i)).astype(dtype),
                rng.normal(size=o).astype(dtype),
            ),
            {"activation": "relu"},
        )
        for label, n, i, o in sizes
    ]


def _flops(sample: Sample) -> int:
    x, weight = sample.args[:2]
    return 2 * x.shape[0] * weight.size


register(OpCase("linear", _linear, "reduction", _timing, _flops))
register(OpCase("linear_backward", _linear_backward, "reduction"))
