"""compare names the first layer, or gradient, at which two backends part."""

from __future__ import annotations

import numpy as np
import pytest

import trine
import trine.functional as F
from trine import nn
from trine.compare import compare_backends
from trine.kernels import kernel, registry


@pytest.fixture
def small():
    trine.seed(3)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
    x = trine.randn(5, 6, backend="numpy")
    target = trine.tensor([0, 1, 2, 0, 1], backend="numpy")
    return model, x, target


@pytest.fixture
def planted(monkeypatch):
    """Return a function that registers a kernel of numba in place of all others of its op."""
    monkeypatch.setattr(registry, "_kernels", {})
    registry._touch()
    yield lambda op, function: kernel(op, backend="numba", name="planted")(function)
    monkeypatch.undo()
    registry._touch()


def wrong_relu(x, out):
    np.maximum(x, 0, out=out)
    out *= 1.001


def wrong_linear_backward(grad_out, x, weight, out, activation, grad_x, grad_weight, grad_bias):
    """The middle layer's gradient of the weight is off by a thousandth."""
    grad_x[...] = grad_out @ weight
    grad_weight[...] = grad_out.T @ x
    grad_bias[...] = grad_out.sum(axis=0)
    if weight.shape == (4, 8):
        grad_weight *= np.float32(1.001)


def test_backends_agree_forward_and_backward(small):
    model, x, target = small
    result = compare_backends(model, x, target, loss=F.cross_entropy)
    assert result
    assert result.first is None
    names = [layer.name for layer in result.layers]
    assert names[:3] == ["0 (Linear)", "1 (Tanh)", "2 (Linear)"]
    assert names[5] == "loss"
    assert names[6:8] == ["gradient of 4.bias", "gradient of 4.weight"]
    assert "agree in all 12 layers" in str(result)


def test_a_planted_error_of_a_thousandth_is_named(small, planted):
    planted("relu", wrong_relu)
    model, x, target = small
    result = compare_backends(model, x, target, loss=F.cross_entropy)
    assert not result
    assert result.first.name == "3 (ReLU)"
    assert result.first.error == pytest.approx(1e-3, rel=0.05)
    assert "part at 3 (ReLU)" in str(result)


def test_a_planted_error_of_a_backward_pass_is_named(small, planted):
    planted("linear_backward", wrong_linear_backward)
    model, x, target = small
    result = compare_backends(model, x, target, loss=F.cross_entropy)
    assert result.first.name == "gradient of 2.weight"
    assert sum(not layer.agrees for layer in result.layers) == 1


def test_the_model_and_its_gradients_are_left_alone(small):
    model, x, target = small
    before = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    compare_backends(model, x, target, loss=F.cross_entropy)
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.detach().numpy(), before[name])
        assert p.grad is None


def test_layers_that_depend_on_the_backend_are_refused():
    class Depends(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.ReLU(), nn.Tanh()

        def forward(self, x):
            return self.a(x) if x.backend.name == "numpy" else self.b(x)

    with pytest.raises(trine.BackendError, match="expected the same layers"):
        compare_backends(Depends(), trine.randn(3, backend="numpy"))


def test_not_a_number_is_a_difference(planted):
    def nan_relu(x, out):
        np.maximum(x, 0, out=out)
        out[0] = np.nan

    planted("relu", nan_relu)
    result = compare_backends(nn.Sequential(nn.ReLU()), trine.ones(4, backend="numpy"))
    assert result.first.error == np.inf


def test_differences_are_given_in_units_of_the_last_place(small, planted):
    model, x, target = small
    planted("relu", wrong_relu)
    result = compare_backends(model, x, target, loss=F.cross_entropy)
    first = result.first
    # A thousandth is from 1e-3 2^23 units, just above a power of two, to twice as many below the next.
    assert 8_300 < first.ulp < 16_900
    assert f"({first.ulp:.0f} ulp)" in str(result)


def test_every_layer_says_why_it_may_differ(small):
    model, x, target = small
    result = compare_backends(model, x, target, loss=F.cross_entropy)
    why = {layer.name: layer.why for layer in result.layers}
    assert why["0 (Linear)"] == "sums of products, added in another order"
    assert why["3 (ReLU)"] == "only what came in"
    assert why["gradient of 4.weight"] == "sums over the batch, in another order"
    assert why["1 (Tanh)"] in str(result)
