"""Cases of bias and activation in one op."""

from __future__ import annotations

import numpy as np

from trine.backends.cases.case import OpCase, Rng, Sample, register
from trine.backends.cases.linear_cases import ACTIVATIONS
from trine.dtypes import DType

SHAPES = ((1, 1), (31, 33), (0, 4), (2, 3, 5, 7), (3, 1, 257), (64, 6, 28, 28))


def _bias_act(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    for shape in SHAPES:
        for activation in ACTIVATIONS:
            x, bias = rng.normal(size=shape).astype(dtype), rng.normal(size=shape[1]).astype(dtype)
            attrs = {"activation": activation}
            found.append(Sample(f"{shape} {activation}", (x, bias), attrs))
            found.append(Sample(f"{shape} {activation}, no bias", (x, None), attrs))
    special = np.array([[0.0, -0.0, np.inf, -np.inf, np.nan, 30.0, -30.0, 1e-20]], dtype)
    for activation in ACTIVATIONS:
        zeros = np.zeros(special.shape[1], dtype)
        found.append(Sample(f"special, {activation}", (special, zeros), {"activation": activation}))
    return found


def _bias_act_backward(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    for shape in SHAPES:
        for activation in ACTIVATIONS:
            out = np.tanh(rng.normal(size=shape)).astype(dtype)
            grad_out = rng.normal(size=shape).astype(dtype)
            found.append(
                Sample(f"{shape} {activation}", (grad_out, out), {"activation": activation})
            )
    return found


def _timing(rng: Rng, dtype: DType) -> list[Sample]:
    sizes = (("tiny", (64, 3)), ("typical", (64, 6, 28, 28)), ("large", (32, 64, 56, 56)))
    return [
        Sample(
            label,
            (rng.normal(size=s).astype(dtype), rng.normal(size=s[1]).astype(dtype)),
            {"activation": "relu"},
        )
        for label, s in sizes
    ]


def _backward_timing(rng: Rng, dtype: DType) -> list[Sample]:
    return [Sample(s.label, (s.args[0], np.abs(s.args[0])), s.attrs) for s in _timing(rng, dtype)]


register(OpCase("bias_act", _bias_act, "elementwise", _timing))
register(OpCase("bias_act_backward", _bias_act_backward, "reduction", _backward_timing))
