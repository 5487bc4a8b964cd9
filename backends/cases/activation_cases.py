"""Cases of bias and activation in one op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np

from trine.backends.cases.case import OpCase, Rng, Sample, register
from trine.backends.op import Activation
from trine.dtypes import DType

ACTIVATIONS: tuple[str, ...] = get_args(Activation)

SHAPES: tuple[tuple[int, ...], ...] = (
    (0, 3), (1, 1), (33, 31), (2, 257), (3, 5, 7), (2, 3, 0, 4), (2, 3, 5, 31), (1, 2, 16, 16),
    (4, 33, 3, 3), (2, 6, 96, 96),
)  # fmt: skip
"""Rows and images; empty, either side of a warp, beyond one grid of blocks."""

TIMED: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("tiny", (64, 84)), ("typical", (64, 6, 28, 28)), ("large", (64, 64, 56, 56)),
)  # fmt: skip


def normal(rng: Rng, dtype: DType, shape: tuple[int, ...]) -> Any:
    """Return standard normals in a dtype."""
    return rng.normal(size=shape).astype(dtype)


def activated(rng: Rng, dtype: DType, shape: tuple[int, ...], activation: str) -> Any:
    """Return what an activation may have put out."""
    z = rng.normal(size=shape)
    if activation == "relu":
        z = np.maximum(z, 0)  # half of it exactly zero, where the gradient is zero too
    elif activation == "sigmoid":
        z = 1 / (1 + np.exp(-z))
    elif activation == "tanh":
        z = np.tanh(z)
    return z.astype(dtype)


def _bias_act(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    special = np.array([[0.0, -0.0, 1.0, -1.0], [np.inf, -np.inf, np.nan, 1e-30],
                        [88.0, -104.0, 750.0, -750.0]], dtype=dtype)  # fmt: skip
    for name in ACTIVATIONS:
        attrs = {"activation": name}
        for shape in SHAPES:
            x, bias = normal(rng, dtype, shape), normal(rng, dtype, shape[1:2])
            found.append(Sample(f"{shape} {name}", (x, bias), attrs))
        found.append(Sample(f"no bias, {name}", (normal(rng, dtype, (3, 5, 33)), None), attrs))
        found.append(Sample(f"special values, {name}", (special, None), attrs))
    return found


def _backward_call(rng: Rng, dtype: DType, shape: tuple[int, ...], name: str) -> Sample:
    arrays = normal(rng, dtype, shape), activated(rng, dtype, shape, name)
    return Sample(f"{shape} {name}", arrays, {"activation": name})


def _bias_act_backward(rng: Rng, dtype: DType) -> list[Sample]:
    return [_backward_call(rng, dtype, shape, name) for name in ACTIVATIONS for shape in SHAPES]


def _timed(backward: bool) -> Callable[[Rng, DType], list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = []
        for label, shape in TIMED:
            if backward:
                arrays = _backward_call(rng, dtype, shape, "relu").args
            else:
                arrays = normal(rng, dtype, shape), normal(rng, dtype, shape[1:2])
            found.append(Sample(label, arrays, {"activation": "relu"}))
        return found

    return samples


register(OpCase("bias_act", _bias_act, "elementwise", _timed(False)))
register(OpCase("act_backward", _bias_act_backward, "elementwise", _timed(True)))
register(OpCase("bias_act_backward", _bias_act_backward, "reduction", _timed(True)))
