"""The fully connected layer: values, BP1 to BP4, what is computed, and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import trine
import trine.functional as F
from trine.backends import get_backend
from trine.errors import GraphError

ACT = {
    "none": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
}
SLOPE = {
    "none": np.ones_like,
    "relu": lambda z: (z > 0).astype(float),
    "sigmoid": lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2,
    "tanh": lambda z: 1 / np.cosh(z) ** 2,
}


def t64(values: Any, requires_grad: bool = False) -> trine.Tensor:
    return trine.tensor(values, "float64", requires_grad)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2)


@pytest.mark.parametrize("activation", ACT)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("shape", [(7, 5), (5,), (2, 3, 5), (0, 5), (1, 5)])
def test_linear_and_its_gradients(backend_name, rng, activation, biased, shape):
    """BP1 to BP4: delta = grad (.) act'(z), dx = delta W, dW = delta^T x, db = sum delta."""
    x, w, b = rng.normal(size=shape), rng.normal(size=(4, 5)), rng.normal(size=4)
    z = x @ w.T + (b if biased else 0)
    grad = rng.normal(size=z.shape)
    delta = grad * SLOPE[activation](z)
    rows = delta.reshape(-1, 4)
    expected = [delta @ w, rows.T @ x.reshape(-1, 5), rows.sum(0)]

    def run() -> None:
        inputs = [t64(x, True), t64(w, True), t64(b, True) if biased else None]
        out = F.linear(*inputs, activation=activation)
        np.testing.assert_allclose(out.detach().numpy(), ACT[activation](z), rtol=1e-12, atol=1e-14)
        assert out.shape == z.shape
        out.backward(t64(grad))
        for tensor, gradient in zip(inputs, expected, strict=True):
            if tensor is not None:
                np.testing.assert_allclose(tensor.grad.numpy(), gradient, rtol=1e-11, atol=1e-13)

    run()
    with trine.autograd.composed_ops():
        run()


@pytest.mark.parametrize("activation", ["none", "relu", "sigmoid", "tanh"])
def test_linear_agrees_with_finite_differences(backend_name, rng, check_gradients, activation):
    arrays = rng.normal(size=(3, 4)), rng.normal(size=(2, 4)), rng.normal(size=2)
    check_gradients(lambda *i: F.linear(*i, activation=activation), *map(t64, arrays))


@pytest.mark.parametrize("activation", ["none", "tanh"])
@pytest.mark.parametrize("wanted", ["x", "w", "b", "xb", "wb", "xw", "xwb"])
def test_gradients_of_some_inputs_alone(backend_name, rng, activation, wanted):
    arrays = {"x": rng.normal(size=(3, 4)), "w": rng.normal(size=(2, 4)), "b": rng.normal(size=2)}

    def gradients(wanted: str) -> dict[str, Any]:
        inputs = {n: t64(a, n in wanted) for n, a in arrays.items()}
        (F.linear(*inputs.values(), activation=activation) ** 2).sum().backward()
        return {n: t.grad.numpy() for n, t in inputs.items() if t.grad is not None}

    every, some = gradients("xwb"), gradients(wanted)
    assert set(some) == set(wanted)
    for name, gradient in some.items():
        np.testing.assert_allclose(gradient, every[name], rtol=1e-13)


@pytest.mark.parametrize(
    ("wanted", "op"), [("w", "linear_weight_grad"), ("b", "sum"), ("wb", "linear_weight_grad")]
)
def test_the_first_layer_computes_no_gradient_of_its_input(backend_name, rng, wanted, op):
    arrays = {"x": rng.normal(size=(3, 4)), "w": rng.normal(size=(2, 4)), "b": rng.normal(size=2)}
    inputs = {n: t64(a, n in wanted) for n, a in arrays.items()}
    out = F.linear(*inputs.values())
    backend = get_backend(backend_name)
    backend.ran.clear()
    out.backward(t64(np.ones(out.shape)))
    assert op in backend.ran
    assert "linear_backward" not in backend.ran


def test_linear_in_float32_stays_there(backend_name, rng):
    x, w, b = rng.normal(size=(6, 5)), rng.normal(size=(3, 5)), rng.normal(size=3)
    inputs = [trine.tensor(v, "float32", True) for v in (x, w, b)]
    out = F.linear(*inputs, activation="sigmoid")
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.detach().numpy(), ACT["sigmoid"](x @ w.T + b), rtol=1e-5)
    out.sum().backward()
    assert [t.grad.dtype for t in inputs] == [np.float32] * 3


def test_second_derivatives_need_the_composition(backend_name):
    """y = tanh(3x): y'' = -18 y (1 - y^2)."""
    x, w = t64([[0.2]], True), t64([[3.0]])
    with pytest.raises(GraphError, match="composed_ops"):
        trine.grad(F.linear(x, w, activation="tanh"), x, create_graph=True)
    with trine.autograd.composed_ops():
        y = F.linear(x, w, activation="tanh")
        (first,) = trine.grad(y, x, create_graph=True)
        assert first is not None
        (second,) = trine.grad(first, x)
    value = np.tanh(0.6)
    assert second is not None
    assert second.item() == pytest.approx(-18 * value * (1 - value**2), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, w, b: F.linear(x, trine.ones(2, 5), b),
         r"\[linear\] expected weight \(out, 4\) to match input \(3, 4\), got \(2, 5\)"),
        (lambda x, w, b: F.linear(x, w.T, b), r"got \(4, 2\)"),
        (lambda x, w, b: F.linear(x, b, b), r"expected weight \(out, 4\)"),
        (lambda x, w, b: F.linear(x, w, trine.ones(3)), r"bias of shape \(2,\) to match input \(3, 4\)"),
        (lambda x, w, b: F.linear(x, w, b, activation="softsign"), r"expected a known activation"),
        (lambda x, w, b: F.linear(trine.tensor(1.0), w, b), r"input \(\.\.\., in\), got a tensor without"),
    ],
)  # fmt: skip
def test_wrong_calls(backend_name, call, message):
    with pytest.raises(ValueError, match=message):
        call(trine.ones(3, 4), trine.ones(2, 4), trine.ones(2))


def test_wrong_kinds(backend_name):
    x, w = trine.ones(3, 4), trine.ones(2, 4)
    with pytest.raises(
        TypeError, match=r"\[linear\] expected weight of dtype float32 to match input"
    ):
        F.linear(x, w.double())
    with pytest.raises(TypeError, match=r"bias of dtype float32 to match input, got float64"):
        F.linear(x, w, trine.ones(2).double())
    with pytest.raises(TypeError, match=r"expected input to be a tensor, got ndarray"):
        F.linear(x.numpy(), w)
    with pytest.raises(TypeError, match=r"input of dtype float32 or float64, got int64"):
        F.linear(x.long(), w)
