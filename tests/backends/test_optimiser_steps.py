"""Optimiser steps against plain re-implementations on Python floats, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trine.backends import Backend, get_backend

STEPS = 5
SIZE = 37
TOLERANCE = {"float64": 1e-13, "float32": 2e-5}
"""float32: five steps, each with a few roundings of 6e-8 that square roots and quotients enlarge."""

State = dict[str, list[float]]


def sgd(
    p: list[float], g: list[float], s: State, lr: float, t: int, *, momentum: float,
    dampening: float, nesterov: bool, weight_decay: float,
) -> None:  # fmt: skip
    for k in range(len(p)):
        d = g[k] + weight_decay * p[k]
        if momentum:
            b = d if t == 1 else momentum * s["momentum_buffer"][k] + (1 - dampening) * d
            s["momentum_buffer"][k] = b
            d = d + momentum * b if nesterov else b
        p[k] -= lr * d


def adam(
    p: list[float], g: list[float], s: State, lr: float, t: int, *, beta1: float, beta2: float,
    eps: float, weight_decay: float, decoupled: bool,
) -> None:  # fmt: skip
    for k in range(len(p)):
        d = g[k]
        if decoupled:
            p[k] -= lr * weight_decay * p[k]
        else:
            d += weight_decay * p[k]
        m = s["exp_avg"][k] = beta1 * s["exp_avg"][k] + (1 - beta1) * d
        v = s["exp_avg_sq"][k] = beta2 * s["exp_avg_sq"][k] + (1 - beta2) * d * d
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        p[k] -= lr * m_hat / (math.sqrt(v_hat) + eps)


def rmsprop(
    p: list[float], g: list[float], s: State, lr: float, t: int, *, alpha: float, eps: float,
    momentum: float, weight_decay: float,
) -> None:  # fmt: skip
    for k in range(len(p)):
        d = g[k] + weight_decay * p[k]
        v = s["square_avg"][k] = alpha * s["square_avg"][k] + (1 - alpha) * d * d
        if "grad_avg" in s:
            a = s["grad_avg"][k] = alpha * s["grad_avg"][k] + (1 - alpha) * d
            v -= a * a
        update = d / (math.sqrt(v) + eps)
        if momentum:
            update += momentum * s["momentum_buffer"][k]
            s["momentum_buffer"][k] = update
        p[k] -= lr * update


def adagrad(
    p: list[float], g: list[float], s: State, lr: float, t: int, *, lr_decay: float, eps: float,
    weight_decay: float,
) -> None:  # fmt: skip
    for k in range(len(p)):
        d = g[k] + weight_decay * p[k]
        s["state_sum"][k] += d * d
        p[k] -= lr / (1 + (t - 1) * lr_decay) * d / (math.sqrt(s["state_sum"][k]) + eps)


class Run:
    """One optimiser on one backend: calls its step with arrays in the contract's order."""

    def __init__(
        self, backend: Backend, name: str, dtype: str, state: dict[str, bool], attrs: dict[str, Any]
    ) -> None:
        self.backend, self.name, self.attrs = backend, name, attrs
        start = np.random.default_rng(2).normal(size=SIZE)
        self.param = backend.asarray(start.astype(dtype))
        self.state = {
            key: backend.asarray(np.zeros(SIZE, dtype)) if used else None
            for key, used in state.items()
        }

    def step(self, grad: np.ndarray, lr: float, t: int, scale: float) -> None:
        b = self.backend
        hyper = [b.hyper(lr), b.asarray(np.array([t])), b.hyper(scale)]
        if self.name == "rmsprop_step":
            del hyper[1]
        arrays = [
            self.param,
            b.asarray(grad.astype(self.param.dtype)),
            *self.state.values(),
            *hyper,
        ]
        getattr(b, self.name)(*arrays, **self.attrs)

    def arrays(self) -> dict[str, np.ndarray]:
        named = {"param": self.param, **self.state}
        return {k: self.backend.to_numpy(v) for k, v in named.items() if v is not None}


SGD = {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0}
ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "decoupled": False}
RMSPROP = {"alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "weight_decay": 0.0}
ADAGRAD = {"lr_decay": 0.0, "eps": 1e-10, "weight_decay": 0.0}

Case = tuple[str, Callable[..., None], dict[str, bool], dict[str, Any]]

CASES: dict[str, Case] = {
    "sgd": ("sgd_step", sgd, {"momentum_buffer": False}, SGD),
    "sgd decay": ("sgd_step", sgd, {"momentum_buffer": False}, {**SGD, "weight_decay": 0.1}),
    "sgd momentum": (
        "sgd_step", sgd, {"momentum_buffer": True},
        {**SGD, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
    ),
    "sgd nesterov": (
        "sgd_step", sgd, {"momentum_buffer": True}, {**SGD, "momentum": 0.8, "nesterov": True},
    ),
    "adam": ("adam_step", adam, {"exp_avg": True, "exp_avg_sq": True}, ADAM),
    "adam decay": (
        "adam_step", adam, {"exp_avg": True, "exp_avg_sq": True},
        {**ADAM, "beta1": 0.7, "beta2": 0.9, "eps": 1e-3, "weight_decay": 0.1},
    ),
    "adamw": (
        "adam_step", adam, {"exp_avg": True, "exp_avg_sq": True},
        {**ADAM, "weight_decay": 0.1, "decoupled": True},
    ),
    "rmsprop": (
        "rmsprop_step", rmsprop,
        {"square_avg": True, "momentum_buffer": False, "grad_avg": False}, RMSPROP,
    ),
    "rmsprop momentum": (
        "rmsprop_step", rmsprop,
        {"square_avg": True, "momentum_buffer": True, "grad_avg": False},
        {**RMSPROP, "alpha": 0.9, "momentum": 0.5, "weight_decay": 0.1},
    ),
    "rmsprop centred": (
        "rmsprop_step", rmsprop,
        {"square_avg": True, "momentum_buffer": True, "grad_avg": True},
        {**RMSPROP, "alpha": 0.9, "eps": 1e-2, "momentum": 0.5},
    ),
    "adagrad": ("adagrad_step", adagrad, {"state_sum": True}, ADAGRAD),
    "adagrad decay": (
        "adagrad_step", adagrad, {"state_sum": True},
        {"lr_decay": 0.2, "eps": 1e-3, "weight_decay": 0.1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_five_steps_equal_the_plain_formula(backend_name, case, dtype):
    name, plain, state, attrs = CASES[case]
    run = Run(get_backend(backend_name), name, dtype, state, attrs)
    p = run.arrays()["param"].astype(np.float64).tolist()
    s: State = {key: [0.0] * SIZE for key, used in state.items() if used}
    rng = np.random.default_rng(4)
    for t in range(1, STEPS + 1):
        grad, lr, scale = rng.normal(size=SIZE).astype(dtype), 0.1 / t, 0.5 + 0.1 * t
        run.step(grad, lr, t, scale)
        plain(p, (grad.astype(np.float64) * scale).tolist(), s, lr, t, **attrs)
    found = run.arrays()
    assert set(found) == {"param", *s}
    for key, expected in {"param": p, **s}.items():
        assert found[key].dtype == np.dtype(dtype)
        np.testing.assert_allclose(
            found[key], expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], err_msg=key
        )


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("case", CASES)
def test_a_scale_that_is_not_finite_changes_nothing(backend_name, case, scale):
    name, _, state, attrs = CASES[case]
    run = Run(get_backend(backend_name), name, "float32", state, attrs)
    grad = np.random.default_rng(6).normal(size=SIZE)
    run.step(grad, 0.1, 1, 1.0)
    before = {key: array.tobytes() for key, array in run.arrays().items()}
    grad[3], grad[4] = math.nan, math.inf
    run.step(grad, 0.1, 2, scale)
    assert {key: array.tobytes() for key, array in run.arrays().items()} == before
    run.step(np.ones(SIZE), 0.1, 2, 1.0)
    assert all(array.tobytes() != before[key] for key, array in run.arrays().items())


def test_centred_rmsprop_survives_constant_gradients(backend_name):
    name, _, state, attrs = CASES["rmsprop centred"]
    run = Run(get_backend(backend_name), name, "float32", state, attrs)
    grad = np.random.default_rng(6).normal(size=SIZE)  # v - a^2 falls to 0, below it by rounding
    for t in range(1, 200):
        run.step(grad, 1e-3, t, 1.0)
    assert np.isfinite(run.arrays()["param"]).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_unit_step_has_the_length_of_the_rate(backend_name, dtype):
    b = get_backend(backend_name)
    start = np.random.default_rng(8).normal(size=SIZE).astype(dtype)
    grad = np.random.default_rng(9).normal(size=SIZE).astype(dtype) * 1e-3
    for scale in (1.0, 0.25):  # a scale multiplies gradient and norm alike
        param = b.asarray(start.copy())
        norm = b.hyper(math.sqrt(float((grad.astype(np.float64) ** 2).sum())))
        b.unit_step(param, b.asarray(grad), norm, b.hyper(0.3), b.hyper(scale))
        moved = b.to_numpy(param).astype(np.float64) - start
        assert math.sqrt((moved**2).sum()) == pytest.approx(0.3, rel=1e-5)
        np.testing.assert_allclose(
            moved / 0.3, -grad / b.to_numpy(norm)[0], atol=1e-6 if dtype == "float32" else 1e-14
        )


@pytest.mark.parametrize(
    ("norm", "scale"), [(0.0, 1.0), (2.0, math.nan), (math.nan, 1.0), (math.inf, 1.0)]
)
def test_unit_step_stands_still(backend_name, norm, scale):
    b = get_backend(backend_name)
    start = np.random.default_rng(8).normal(size=SIZE)
    param = b.asarray(start.copy())
    b.unit_step(param, b.asarray(start * norm), b.hyper(norm), b.hyper(0.3), b.hyper(scale))
    assert b.to_numpy(param).tobytes() == start.tobytes()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 9001])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_sum_squares_is_exact_enough_and_repeats(backend_name, size, dtype):
    b = get_backend(backend_name)
    x = (np.random.default_rng(1).normal(size=size) * 100).astype(dtype)
    out = b.to_numpy(b.sum_squares(b.asarray(x)))
    assert out.shape == (1,)
    assert out.dtype == np.float64
    expected = math.fsum(v * v for v in x.astype(np.float64).tolist())
    assert out[0] == pytest.approx(expected, rel=1e-14)
    assert b.to_numpy(b.sum_squares(b.asarray(x.copy()))).tobytes() == out.tobytes()
