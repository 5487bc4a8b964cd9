"""Cases of the fully connected layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from trine.backends.cases.activation_cases import ACTIVATIONS, activated, normal
from trine.backends.cases.case import OpCase, Rng, Sample, register
from trine.dtypes import DType

SIZES = ((0, 3, 2), (1, 1, 1), (1, 31, 33), (2, 0, 3), (7, 257, 5), (33, 32, 31), (257, 2, 255),
         (64, 784, 10))  # fmt: skip
"""(rows, in, out)."""

TIMED = (("tiny", (64, 84, 10)), ("typical", (256, 784, 512)), ("large", (1024, 2048, 2048)))

Size = tuple[int, int, int]


def _forward(rng: Rng, dtype: DType, size: Size, biased: bool = True) -> tuple[Any, ...]:
    n, i, o = size
    # Weights as layers start with them: z of order one, not where an activation is saturated.
    weight = (rng.normal(size=(o, i)) / max(i, 1) ** 0.5).astype(dtype)
    return normal(rng, dtype, (n, i)), weight, normal(rng, dtype, (o,)) if biased else None


def _linear(rng: Rng, dtype: DType) -> list[Sample]:
    found = [
        Sample(f"{size} {name}", _forward(rng, dtype, size), {"activation": name})
        for size in SIZES
        for name in ACTIVATIONS
    ]
    for name in ACTIVATIONS:
        arrays = _forward(rng, dtype, (33, 31, 7), biased=False)
        found.append(Sample(f"no bias, {name}", arrays, {"activation": name}))
    x, weight, bias = _forward(rng, dtype, (5, 4, 3))
    x[1] = np.nan
    x[3] = np.abs(x[3]) + 1
    x[3, 0], weight[:, 0] = np.inf, np.abs(weight[:, 0]) + 1
    found.extend(
        Sample(f"NaN and Inf, {name}", (x, weight, bias), {"activation": name})
        for name in ACTIVATIONS
    )
    return found


def _backward(rng: Rng, dtype: DType, size: Size, activation: str) -> tuple[Any, ...]:
    n, i, o = size
    out = activated(rng, dtype, (n, o), activation)
    return normal(rng, dtype, (n, o)), normal(rng, dtype, (n, i)), normal(rng, dtype, (o, i)), out


def _linear_backward(rng: Rng, dtype: DType) -> list[Sample]:
    return [
        Sample(f"{size} {name}", _backward(rng, dtype, size, name), {"activation": name})
        for size in SIZES
        for name in ACTIVATIONS
    ]


def _without_weight(samples: list[Sample]) -> list[Sample]:
    """Return calls of the weight gradient from those of both gradients."""
    found = []
    for sample in samples:
        grad_out, x, _, out = sample.args
        found.append(Sample(sample.label, (grad_out, x, out), sample.attrs))
    return found


def _timed(backward: bool) -> Any:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        return [
            Sample(
                label,
                _backward(rng, dtype, size, "relu") if backward else _forward(rng, dtype, size),
                {"activation": "relu"},
            )
            for label, size in TIMED
        ]

    return samples


def _flops(sample: Sample) -> int:
    x, weight = sample.args[0], sample.args[1]
    return 2 * int(x.shape[0] * weight.size)


def _backward_flops(sample: Sample) -> int:
    return 4 * int(sample.args[0].shape[0] * sample.args[2].size)


register(OpCase("linear", _linear, "reduction", _timed(False), _flops))
register(OpCase("linear_backward", _linear_backward, "reduction", _timed(True), _backward_flops))
register(
    OpCase(
        "linear_weight_grad",
        lambda rng, dtype: _without_weight(_linear_backward(rng, dtype)),
        "reduction",
        lambda rng, dtype: _without_weight(_timed(True)(rng, dtype)),
        lambda sample: 2 * int(sample.args[0].size * sample.args[1].shape[1]),
    )
)
