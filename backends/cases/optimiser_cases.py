"""Cases of the optimiser steps and the sum of squares that clipping needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trine.backends.cases.case import OpCase, Rng, Sample, register
from trine.dtypes import DType

SIZES = (0, 1, 31, 33, 257, 4095, 4097, 70001)

TIMED = (("tiny", 1000), ("typical", 61_706), ("large", 4_000_000))
"""61,706 are the parameters of LeNet-5."""

SGD = {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0}
ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "decoupled": False}
RMSPROP = {"alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "weight_decay": 0.0}
ADAGRAD = {"lr_decay": 0.0, "eps": 1e-10, "weight_decay": 0.0}

Variant = tuple[str, tuple[bool, ...], dict[str, Any]]
"""A label, which buffers there are, the attributes."""

VARIANTS: dict[str, tuple[Variant, ...]] = {
    "sgd_step": (
        ("plain", (False,), SGD),
        ("decay", (False,), {**SGD, "weight_decay": 0.1}),
        ("momentum", (True,), {**SGD, "momentum": 0.9, "dampening": 0.3}),
        ("Nesterov", (True,), {**SGD, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}),
    ),
    "adam_step": (
        ("plain", (True, True), ADAM),
        ("decay", (True, True), {**ADAM, "weight_decay": 0.1, "beta1": 0.7, "eps": 1e-3}),
        ("decoupled decay", (True, True), {**ADAM, "weight_decay": 0.1, "decoupled": True}),
    ),
    "rmsprop_step": (
        ("plain", (True, False, False), RMSPROP),
        ("momentum", (True, True, False), {**RMSPROP, "momentum": 0.5, "weight_decay": 0.1}),
        ("centred", (True, False, True), {**RMSPROP, "eps": 1e-2}),
        ("centred momentum", (True, True, True), {**RMSPROP, "momentum": 0.9, "eps": 1e-2}),
    ),
    "adagrad_step": (
        ("plain", (True,), ADAGRAD),
        ("decay", (True,), {"lr_decay": 0.2, "eps": 1e-3, "weight_decay": 0.1}),
    ),
}

FLOPS = {"sgd_step": 6, "adam_step": 14, "rmsprop_step": 12, "adagrad_step": 8}


def _hyper(value: float) -> Any:
    return np.array([value])


def _buffers(rng: Rng, dtype: DType, op: str, used: tuple[bool, ...], size: int) -> list[Any]:
    """Return state as training leaves it: averages of squares are not below squares of averages."""
    averages = [rng.normal(0, 0.3, size) for _ in used]
    squares = {"adam_step": 1, "rmsprop_step": 0, "adagrad_step": 0}.get(op)
    if squares is not None:
        averages[squares] = rng.uniform(0.5, 2, size) + sum(a * a for a in averages)
    return [a.astype(dtype) if u else None for a, u in zip(averages, used, strict=True)]


def _call(
    rng: Rng, dtype: DType, op: str, used: tuple[bool, ...], size: int, step: int, scale: float
) -> tuple[Any, ...]:
    param, grad = (rng.normal(size=size).astype(dtype) for _ in range(2))
    hyper = [_hyper(0.01), np.array([step]), _hyper(scale)]
    if op == "rmsprop_step":
        del hyper[1]
    return (param, grad, *_buffers(rng, dtype, op, used, size), *hyper)


def _samples(op: str) -> Callable[[Rng, DType], list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = []
        for label, used, attrs in VARIANTS[op]:
            for step, scale in ((1, 1.0), (2, 0.5), (1000, 1.0), (3, np.nan), (3, np.inf)):
                arrays = _call(rng, dtype, op, used, 100, step, scale)
                found.append(Sample(f"{label}, step {step}, scale {scale}", arrays, attrs))
        label, used, attrs = VARIANTS[op][-1]
        for size in SIZES:
            arrays = _call(rng, dtype, op, used, size, 2, 0.5)
            found.append(Sample(f"{label}, {size} elements", arrays, attrs))
        arrays = _call(rng, dtype, op, used, 9, 2, 1.0)
        arrays[1][:3] = np.nan, np.inf, 0.0
        return [*found, Sample("a gradient of NaN and Inf, a finite scale", arrays, attrs)]

    return samples


def _timed(op: str) -> Callable[[Rng, DType], list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        _, used, attrs = VARIANTS[op][-1]
        return [
            Sample(label, _call(rng, dtype, op, used, size, 10, 1.0), attrs)
            for label, size in TIMED
        ]

    return samples


for _op in VARIANTS:
    register(
        OpCase(
            _op,
            _samples(_op),
            "elementwise",
            _timed(_op),
            lambda sample, count=FLOPS[_op]: count * int(sample.args[0].size),  # type: ignore[misc]
        )
    )


def _unit_step_call(
    rng: Rng, dtype: DType, size: int, norm: float | None = None, scale: float = 1.0
) -> tuple[Any, ...]:
    param, grad = (rng.normal(size=size).astype(dtype) for _ in range(2))
    length = float(np.linalg.norm(grad)) if norm is None else norm
    return param, grad, _hyper(length), _hyper(0.1), _hyper(scale)


def _unit_step(rng: Rng, dtype: DType) -> list[Sample]:
    found = [Sample(f"{size}", _unit_step_call(rng, dtype, size)) for size in SIZES]
    for norm, scale in ((0.0, 1.0), (2.0, 0.5), (2.0, np.nan), (np.nan, 1.0), (np.inf, 1.0)):
        arrays = _unit_step_call(rng, dtype, 33, norm, scale)
        found.append(Sample(f"norm {norm}, scale {scale}", arrays))
    return found


def _unit_step_timed(rng: Rng, dtype: DType) -> list[Sample]:
    return [Sample(label, _unit_step_call(rng, dtype, size)) for label, size in TIMED]


def _sum_squares(rng: Rng, dtype: DType) -> list[Sample]:
    found = [Sample(f"{size}", (rng.normal(size=size).astype(dtype),)) for size in SIZES]
    for label, value in (("NaN", np.nan), ("Inf", -np.inf), ("large", 1e18), ("small", 1e-18)):
        x = np.ones(5000, dtype)
        x[4500] = value
        found.append(Sample(label, (x,)))
    return found


def _sum_squares_timed(rng: Rng, dtype: DType) -> list[Sample]:
    return [Sample(label, (rng.normal(size=size).astype(dtype),)) for label, size in TIMED]


register(
    OpCase(
        "unit_step", _unit_step, "elementwise", _unit_step_timed, lambda s: 2 * int(s.args[0].size)
    )
)
register(
    OpCase(
        "sum_squares",
        _sum_squares,
        "reduction",
        _sum_squares_timed,
        lambda s: 2 * int(s.args[0].size),
    )
)
