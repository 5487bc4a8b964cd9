"""Cases of the recurrent nets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trine.backends.cases.case import OpCase, Rng, Sample, register
from trine.dtypes import DType

Call = tuple[Any, ...]
Size = tuple[int, int, int, int]

SIZES = ((4, 2, 3, 5), (1, 1, 1, 1), (1, 3, 2, 4), (7, 1, 5, 1), (3, 33, 31, 8), (20, 2, 4, 33),
         (2, 3, 1, 65), (2, 5, 4, 24), (3, 9, 2, 7), (3, 0, 2, 4))  # fmt: skip
"""Steps, sequences, inputs, units."""

TIMED = (
    ("tiny", (8, 4, 8, 16)),
    ("typical", (50, 32, 64, 128)),
    ("large", (128, 8, 128, 256)),
)

BLOCKS = {"rnn": 1, "gru": 3, "lstm": 4}
"""Blocks of H rows in the weights."""


def _call(op: str, rng: Rng, dtype: DType, size: Size) -> Call:
    """Return x, the first states, weights and biases."""
    steps, batch, inputs, units = size
    rows, bound = BLOCKS[op] * units, units**-0.5
    x = rng.normal(size=(steps, batch, inputs)).astype(dtype)
    states = [rng.normal(size=(batch, units)).astype(dtype) for _ in range(1 + (op == "lstm"))]
    shapes = ((rows, inputs), (rows, units), (rows,), (rows,))
    params = (rng.uniform(-bound, bound, shape).astype(dtype) for shape in shapes)
    return (x, *states, *params)


def _backward_call(op: str, rng: Rng, dtype: DType, size: Size) -> Call:
    """Return gradients of the outputs, inputs without biases, and outputs as the op could give."""
    steps, batch, _, units = size
    inputs = _call(op, rng, dtype, size)[:-2]
    states = (steps, batch, units)
    grads = [rng.normal(size=states), *(rng.normal(size=states[1:]) for _ in inputs[1:-2])]
    out = rng.uniform(-1, 1, states)
    gates = rng.uniform(0, 1, (steps, batch, 4 * units))
    gates[..., 2 * units : 3 * units] *= 2
    gates[..., 2 * units : 3 * units] -= 1  # the candidate is a tanh
    saved = {"rnn": [out], "gru": [out, gates], "lstm": [out, rng.normal(size=states), gates]}[op]
    return (*(g.astype(dtype) for g in grads), *inputs, *(s.astype(dtype) for s in saved))


def _lengths(rng: Rng, size: Size) -> Any:
    """Return lengths of which the first is 1 and the last T."""
    found = rng.integers(1, size[0] + 1, size[1])
    found[:1], found[-1:] = 1, size[0]
    return found.astype(np.int64)


def _ragged(arrays: Call, rng: Rng, dtype: DType, size: Size, place: int) -> tuple[Call, Any]:
    """Return a call whose x is NaN beyond each sequence's length, and the lengths."""
    lengths = _lengths(rng, size)
    x = arrays[place].copy()
    x[np.arange(size[0])[:, None] >= lengths] = np.nan  # what is not read may be anything
    return (*arrays[:place], x, *arrays[place + 1 :]), lengths


def _variants(op: str) -> tuple[dict[str, Any], ...]:
    if op != "rnn":
        return ({},)
    return ({"nonlinearity": "tanh"}, {"nonlinearity": "relu"})


def _forward(op: str) -> Callable[[Rng, DType], list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = []
        for variant in _variants(op):
            name = " ".join(variant.values())
            for size in SIZES:
                arrays = _call(op, rng, dtype, size)
                found.append(Sample(f"T, N, I, H = {size} {name}", arrays, variant))
            for size in ((4, 2, 3, 5), (7, 6, 3, 9)):
                arrays = _call(op, rng, dtype, size)
                back = {**variant, "reverse": True}
                found.append(Sample(f"reverse {size} {name}", arrays, back))
                arrays, lengths = _ragged(arrays, rng, dtype, size, 0)
                found.append(Sample(f"ragged {size} {name}", (*arrays, lengths), variant))
                found.append(Sample(f"ragged reverse {size} {name}", (*arrays, lengths), back))
            arrays = _call(op, rng, dtype, (3, 2, 4, 5))
            both = arrays[-2:]
            found.append(Sample(f"no biases {name}", arrays[:-2], variant))
            found.append(Sample(f"first bias only {name}", arrays[:-1], variant))
            found.append(Sample(f"second bias {name}", (*arrays[:-2], None, both[1]), variant))
            large = (arrays[0] * dtype.type(1e4), *arrays[1:])
            found.append(Sample(f"large inputs {name}", large, variant))
            faulty = arrays[0].copy()
            faulty[1, 0, 0] = np.nan
            found.append(Sample(f"NaN {name}", (faulty, *arrays[1:]), variant))
        return found

    return samples


def _backward(op: str) -> Callable[[Rng, DType], list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = []
        place = 3 if op == "lstm" else 2
        for variant in _variants(op):
            name = " ".join(variant.values())
            for size in SIZES:
                arrays = _backward_call(op, rng, dtype, size)
                found.append(Sample(f"T, N, I, H = {size} {name}", arrays, variant))
            for size in ((4, 2, 3, 5), (7, 6, 3, 9)):
                arrays = _backward_call(op, rng, dtype, size)
                back = {**variant, "reverse": True}
                found.append(Sample(f"reverse {size} {name}", arrays, back))
                arrays, lengths = _ragged(arrays, rng, dtype, size, place)
                found.append(Sample(f"ragged {size} {name}", (*arrays, lengths), variant))
                found.append(Sample(f"ragged reverse {size} {name}", (*arrays, lengths), back))
            arrays = _backward_call(op, rng, dtype, (3, 2, 4, 5))
            weights_only = {**variant, "input_grad": False}
            found.append(Sample(f"without grad_x {name}", arrays, weights_only))
            faulty = arrays[0].copy()
            faulty[1, 0, 0] = np.nan
            found.append(Sample(f"NaN {name}", (faulty, *arrays[1:]), variant))
        return found

    return samples


def _timed(make: Callable[..., Call], op: str) -> Callable[[Rng, DType], list[Sample]]:
    return lambda rng, dtype: [Sample(label, make(op, rng, dtype, size)) for label, size in TIMED]


def _flops(op: str, place: int, products: int) -> Callable[[Sample], int]:
    """Return a count of the arithmetic: `products` times W_ih x + W_hh h over all steps."""

    def count(sample: Sample) -> int:
        steps, batch, inputs = sample.args[place].shape
        units = sample.args[place + 1].shape[1]
        return int(products * 2 * steps * batch * BLOCKS[op] * units * (inputs + units))

    return count


for _op in BLOCKS:
    _place = 3 if _op == "lstm" else 2
    register(OpCase(_op, _forward(_op), "recurrent", _timed(_call, _op), _flops(_op, 0, 1)))
    register(
        OpCase(
            f"{_op}_backward",
            _backward(_op),
            "recurrent",
            _timed(_backward_call, _op),
            _flops(_op, _place, 2),
        )
    )
