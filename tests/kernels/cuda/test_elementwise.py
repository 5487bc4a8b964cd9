"""Elementwise primitives with every kind of broadcasting, activations, bias with activation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import trine
from trine.kernels.cuda.primitives import BINARY, UNARY, merge_axes

SPECIAL = (0.0, -0.0, 1.0, -1.5, 0.5, 2.5, np.inf, -np.inf, np.nan, 1e-30, -1e30, 88.0, -90.0)


@pytest.mark.parametrize("op", [op for ops in UNARY.values() for op in ops])
def test_functions_of_one(check, op):
    low = 0.1 if op in ("log", "log1p", "sqrt") else -3
    x = np.random.default_rng(1).uniform(low, 9, 1000).astype("float32")
    x[:3] = 0.0, 1.0, 2.0
    check(op, x[:257])
    check(op, x.reshape(2, 5, 100))
    if op not in ("sin", "cos"):
        check(op, np.array(SPECIAL, "float32"))
    check(op, np.zeros((0, 3), "float32"))
    check(op, np.array(0.25, "float32"))


@pytest.mark.parametrize("op", [op for ops in BINARY.values() for op in ops])
def test_functions_of_two(check, op):
    rng = np.random.default_rng(2)
    for a, b in (
        ((33,), (33,)), ((2, 129), (129,)), ((300,), ()), ((), (5,)), ((4, 1, 5), (3, 1)), ((0,), (1,)),
        ((2, 3, 1, 5), (1, 3, 4, 1)), ((2, 1, 3, 1, 2, 3), (1, 2, 1, 3, 1, 3)),
    ):  # fmt: skip
        x, y = (rng.uniform(0.2, 3, s).astype("float32") for s in (a, b))
        check(op, x, y)
    if op != "pow":
        x, y = (
            np.ascontiguousarray(g) for g in np.meshgrid(np.float64(SPECIAL), np.float64(SPECIAL))
        )
        check(op, x, y)


def test_floor_of_the_exact_quotient(check):
    """Quotients that round up to an integer, both signs, zeros."""
    x = np.array([1.0, -1.0, 0.3, -7.0, 7.0, 0.0, 1e5, 5.0], "float32")
    y = np.array([0.1, 0.1, 0.1, 2.0, -2.0, 3.0, 0.7, 0.0], "float32")
    check("floor_div", x, y)


def test_a_choice(check, order):
    rng = np.random.default_rng(3)
    for c, a, b in (((300,),) * 3, ((4, 1), (3,), (4, 3)), ((0,),) * 3, ((), (5,), ())):
        x, y = (rng.normal(size=s).astype("float32") for s in (a, b))
        check("where", rng.uniform(size=c) > 0.5, x, y)


def test_axes_are_merged():
    assert merge_axes((4, 5, 6), ((4, 5, 6), (4, 5, 6))) == ([120], [[1], [1]])
    assert merge_axes((4, 5, 6), ((4, 5, 6), (5, 6))) == ([4, 30], [[30, 1], [0, 1]])
    assert merge_axes((4, 5, 6), ((4, 1, 1), ())) == ([4, 30], [[1, 0], [0, 0]])
    assert merge_axes((1, 1), ((1, 1), ())) == ([1], [[0], [0]])


def test_integers_and_truth_values_stay_the_reference_s_in_silence(cuda):
    """Also in strict mode: kernels of primitives declare that they serve floats only."""
    x, y = trine.tensor([3, 4, 5], backend="cupy"), trine.tensor([3, 7, 2], backend="cupy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal((x + y).numpy(), [6, 11, 7])
        np.testing.assert_array_equal((x == y).numpy(), [True, False, False])
        assert cuda.ran["equal"] == "reference"
        assert int(x.sum().numpy()) == 12
        assert int(x.argmax().numpy()) == 2
        np.testing.assert_array_equal(trine.where(x == y, x, y).numpy(), [3, 7, 2])
    assert not cuda.counters.fallbacks
    assert float((x.astype("float32") + 0.5).sum().numpy()) == 13.5
    assert cuda.ran["add"] == "grid"


@pytest.mark.parametrize("activation", ["none", "relu", "sigmoid", "tanh"])
def test_bias_and_activation(check, order, activation):
    rng = np.random.default_rng(4)
    for shape in ((5, 3), (33, 40), (2, 3, 7, 5), (2, 9, 40), (1, 2, 1100)):
        x, grad = (rng.normal(size=shape).astype("float32") for _ in range(2))
        check("bias_act", x, rng.normal(size=shape[1]).astype("float32"), activation=activation)
        check("bias_act", x, None, activation=activation)
        check("bias_act_backward", grad, np.tanh(x), activation=activation)


def test_a_gradient_of_bias_in_chunks(check):
    """Long columns and few channels: several blocks a channel, whose parts are added."""
    rng = np.random.default_rng(5)
    for shape in ((1100, 9), (2, 3, 6000)):
        grad, out = (rng.normal(size=shape).astype("float32") for _ in range(2))
        check("bias_act_backward", grad, out, activation="relu")
