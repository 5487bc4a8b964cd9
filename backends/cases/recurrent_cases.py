"""Cases of the LSTM."""

from __future__ import annotations

from typing import Any

import numpy as np

from trine.backends.cases.case import OpCase, Rng, Sample, register
from trine.dtypes import DType

SIZES = ((4, 2, 3, 5), (1, 1, 1, 1), (1, 3, 2, 4), (7, 1, 5, 1), (3, 33, 31, 8), (20, 2, 4, 33),
         (2, 3, 1, 65), (3, 0, 2, 4))  # fmt: skip
"""Steps, sequences, inputs, units."""

TIMED = (("tiny", 8, 4, 8, 16), ("typical", 28, 64, 28, 128), ("large", 64, 64, 256, 512))


def _params(rng: Rng, dtype: DType, inputs: int, units: int) -> tuple[Any, ...]:
    bound = units**-0.5
    shapes = ((4 * units, inputs), (4 * units, units), (4 * units,), (4 * units,))
    return tuple(rng.uniform(-bound, bound, shape).astype(dtype) for shape in shapes)


def _forward_call(
    rng: Rng, dtype: DType, steps: int, batch: int, inputs: int, units: int
) -> tuple[Any, ...]:
    x = rng.normal(size=(steps, batch, inputs)).astype(dtype)
    h0, c0 = (rng.normal(size=(batch, units)).astype(dtype) for _ in range(2))
    return (x, h0, c0, *_params(rng, dtype, inputs, units))


def _backward_call(
    rng: Rng, dtype: DType, steps: int, batch: int, inputs: int, units: int
) -> tuple[Any, ...]:
    x, h0, c0, w_ih, w_hh, _, _ = _forward_call(rng, dtype, steps, batch, inputs, units)
    states = (steps, batch, units)
    gates = rng.uniform(0, 1, (steps, batch, 4 * units))
    gates[..., 2 * units : 3 * units] *= 2
    gates[..., 2 * units : 3 * units] -= 1  # the candidate is a tanh
    h, c = rng.uniform(-1, 1, states), rng.normal(size=states)
    grad_h, grad_c = rng.normal(size=states), rng.normal(size=(batch, units))
    saved = (h.astype(dtype), c.astype(dtype), gates.astype(dtype))
    return (grad_h.astype(dtype), grad_c.astype(dtype), x, h0, c0, w_ih, w_hh, *saved)


def _lstm(rng: Rng, dtype: DType) -> list[Sample]:
    found = [Sample(f"T, N, I, H = {size}", _forward_call(rng, dtype, *size)) for size in SIZES]
    arrays = _forward_call(rng, dtype, 3, 2, 4, 5)
    found.append(Sample("no biases", (*arrays[:5], None, None)))
    found.append(Sample("first bias only", (*arrays[:6], None)))
    found.append(Sample("second bias only", (*arrays[:5], None, arrays[6])))
    found.append(Sample("saturated", (arrays[0] * dtype.type(1e4), *arrays[1:])))
    faulty = arrays[0].copy()
    faulty[1, 0, 0] = np.nan
    return [*found, Sample("NaN", (faulty, *arrays[1:]))]


def _lstm_backward(rng: Rng, dtype: DType) -> list[Sample]:
    return [Sample(f"T, N, I, H = {size}", _backward_call(rng, dtype, *size)) for size in SIZES]


def _timed(rng: Rng, dtype: DType) -> list[Sample]:
    return [Sample(label, _forward_call(rng, dtype, *size)) for label, *size in TIMED]


def _timed_backward(rng: Rng, dtype: DType) -> list[Sample]:
    return [Sample(label, _backward_call(rng, dtype, *size)) for label, *size in TIMED]


def _products(x: Any, units: int) -> int:
    """Return the arithmetic of z = W_ih x + W_hh h over all steps."""
    steps, batch, inputs = x.shape
    return int(2 * steps * batch * 4 * units * (inputs + units))


register(
    OpCase("lstm", _lstm, "recurrent", _timed, lambda s: _products(s.args[0], s.args[1].shape[1]))
)
register(
    OpCase(
        "lstm_backward",
        _lstm_backward,
        "recurrent",
        _timed_backward,
        lambda s: 2 * _products(s.args[2], s.args[3].shape[1]),
    )
)
