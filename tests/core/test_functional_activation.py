"""Activations: their numbers, gradients of both orders, extremes and dtypes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import trine
import trine.functional as F

Z = [-2.5, -0.5, -0.3, 0.0, 0.3, 0.5, 2.5]

Formula = tuple[Callable[[trine.Tensor], trine.Tensor], Callable[[float], float]]

FORMULAS: dict[str, Formula] = {
    "identity": (F.identity, lambda z: z),
    "relu": (F.relu, lambda z: max(z, 0.0)),
    "sigmoid": (F.sigmoid, lambda z: 1 / (1 + math.exp(-z))),
    "tanh": (F.tanh, math.tanh),
    "softplus": (F.softplus, lambda z: math.log(1 + math.exp(z))),
    "softplus(beta=2)": (lambda t: F.softplus(t, 2.0), lambda z: math.log(1 + math.exp(2 * z)) / 2),
    "softplus(threshold=0.8)": (
        lambda t: F.softplus(t, 2.0, 0.8),
        lambda z: z if 2 * z > 0.8 else math.log(1 + math.exp(2 * z)) / 2,
    ),
    "leaky_relu": (F.leaky_relu, lambda z: z if z > 0 else 0.01 * z),
    "leaky_relu(0.3)": (lambda t: F.leaky_relu(t, 0.3), lambda z: z if z > 0 else 0.3 * z),
    "elu": (F.elu, lambda z: z if z > 0 else math.exp(z) - 1),
    "elu(1.7)": (lambda t: F.elu(t, 1.7), lambda z: z if z > 0 else 1.7 * (math.exp(z) - 1)),
    "silu": (F.silu, lambda z: z / (1 + math.exp(-z))),
    "hardtanh": (F.hardtanh, lambda z: min(max(z, -1.0), 1.0)),
    "hardtanh(-0.4, 2)": (lambda t: F.hardtanh(t, -0.4, 2.0), lambda z: min(max(z, -0.4), 2.0)),
    "piecewise_linear": (F.piecewise_linear, lambda z: min(max(z + 0.5, 0.0), 1.0)),
    "unit_step": (F.unit_step, lambda z: 0.0 if z < 0 else 1.0 if z > 0 else 0.5),
    "unit_step(1)": (lambda t: F.unit_step(t, 1.0), lambda z: 0.0 if z < 0 else 1.0),
    "unit_step(at_zero=0)": (lambda t: F.unit_step(t, at_zero=0), lambda z: 1.0 if z > 0 else 0.0),
    "sign": (F.sign, lambda z: float(z > 0) - float(z < 0)),
}


def t64(values: Any, requires_grad: bool = False) -> trine.Tensor:
    return trine.tensor(values, "float64", requires_grad)


@pytest.mark.parametrize("name", FORMULAS)
def test_values(backend_name, name):
    function, formula = FORMULAS[name]
    expected = [formula(z) for z in Z]
    np.testing.assert_allclose(function(t64(Z)).numpy(), expected, rtol=1e-14, atol=1e-15)
    narrow = function(trine.tensor(Z, "float32"))
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow.numpy(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_of_first_and_second_order(backend_name, check_gradients, name):
    function, _ = FORMULAS[name]
    places = np.array([-2.4, -0.7, -0.2, 0.2, 0.6, 2.4])  # no kink
    check_gradients(lambda z: function(z) * 1, t64(places))

    def slope(places: Any) -> Any:
        z = t64(places, True)
        (first,) = trine.grad(function(z).sum(), z)
        assert first is not None
        return first.numpy()

    z = t64(places, True)
    # The square gives each function a second derivative, 2 more than its own.
    (first,) = trine.grad((function(z) + z * z).sum(), z, create_graph=True)
    assert first is not None
    (second,) = trine.grad(first.sum(), z)
    assert second is not None
    numeric = (slope(places + 1e-6) - slope(places - 1e-6)) / 2e-6
    np.testing.assert_allclose(second.numpy(), numeric + 2, rtol=1e-8)


@pytest.mark.parametrize("name", ["unit_step", "unit_step(1)", "sign"])
def test_steps_have_a_gradient_of_zero(backend_name, name):
    z = t64(Z, True)
    FORMULAS[name][0](z).sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [0.0] * len(Z)


@pytest.mark.parametrize(
    ("name", "slope"), [("relu", 0.0), ("leaky_relu(0.3)", 0.3), ("elu(1.7)", 1.7), ("silu", 0.5)]
)
def test_gradients_at_zero_are_those_of_the_left_side(backend_name, name, slope):
    z = t64([0.0], True)
    FORMULAS[name][0](z).sum().backward()
    assert z.grad is not None
    assert z.grad.item() == pytest.approx(slope, rel=1e-15)


LIMITS = {
    "relu": (0.0, 1000.0), "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "softplus": (0.0, 1000.0),
    "softplus(beta=2)": (0.0, 1000.0), "leaky_relu": (-10.0, 1000.0), "elu": (-1.0, 1000.0),
    "elu(1.7)": (-1.7, 1000.0), "silu": (0.0, 1000.0), "hardtanh": (-1.0, 1.0),
    "piecewise_linear": (0.0, 1.0), "unit_step": (0.0, 1.0), "sign": (-1.0, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_overflows_far_out(backend_name, name, dtype):
    z = trine.tensor([-1000.0, 1000.0], dtype, True)
    out = FORMULAS[name][0](z)
    np.testing.assert_allclose(out.detach().numpy(), LIMITS[name], rtol=1e-6)
    out.sum().backward()
    assert z.grad is not None
    assert np.isfinite(z.grad.numpy()).all()


@pytest.mark.parametrize("name", FORMULAS)
def test_nan_stays_nan(backend_name, name):
    assert np.isnan(FORMULAS[name][0](t64([np.nan])).item())


def test_tanh_is_a_stretched_logistic_function(backend_name):
    """tanh x = 2 s(2x) - 1."""
    z = t64(np.linspace(-4, 4, 41))
    np.testing.assert_allclose(F.tanh(z).numpy(), (2 * F.sigmoid(2 * z) - 1).numpy(), atol=1e-15)


def test_a_step_puts_out_no_negative_zero(backend_name):
    assert not np.signbit(F.unit_step(t64([-3.0, -0.0]), 0.0).numpy()).any()


def test_wrong_calls(backend_name):
    z = trine.zeros(2)
    with pytest.raises(ValueError, match=r"\[softplus\] expected beta different from 0, got 0"):
        F.softplus(z, 0)
    with pytest.raises(
        ValueError, match=r"\[hardtanh\] expected min_val below max_val, got 1 and -1"
    ):
        F.hardtanh(z, 1, -1)


@pytest.mark.parametrize(
    "name", ["softplus", "leaky_relu", "elu", "silu", "hardtanh", "unit_step", "piecewise_linear"]
)
def test_wrong_kinds(backend_name, name):
    function = getattr(F, name)
    with pytest.raises(
        TypeError, match=rf"\[{name}\] expected input of dtype float32 or float64, got"
    ):
        function(trine.arange(3))
    with pytest.raises(TypeError, match=rf"\[{name}\] expected input to be a tensor, got list"):
        function([1.0])
