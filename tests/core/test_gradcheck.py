"""gradcheck finds wrong gradients and names the element, and does not cry at kinks."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest

import trine
import trine.functional as F
from trine import nn
from trine.autograd import apply, define


def leaf(*shape, seed=0, dtype="float64"):
    values = np.random.default_rng(seed).normal(size=shape)
    return trine.tensor(values, dtype=dtype, requires_grad=True)


def with_backward(backward, forward=lambda b, x: (b.mul(x, x), (x,)), name="probed_square"):
    """Return x -> x * x as an op with the backward given."""
    record = define(name, forward, backward, keeps=(0,))
    return lambda x: apply(record, x)


def right(b, saved, grads, needs):
    return (b.mul(b.mul(grads[0], saved[0]), 2.0),)


def missing_factor(b, saved, grads, needs):
    return (b.mul(grads[0], saved[0]),)


def ignores_upstream(b, saved, grads, needs):
    return (b.mul(saved[0], 2.0),)


def wrong_sign(b, saved, grads, needs):
    return (b.mul(b.mul(grads[0], saved[0]), -2.0),)


def returns_nan(b, saved, grads, needs):
    out = np.array(b.to_numpy(right(b, saved, grads, needs)[0]))
    out.reshape(-1)[1] = np.nan
    return (b.asarray(out),)


def one_element(b, saved, grads, needs, factor=1.001):
    """Right but for element (1, 2)."""
    out = np.array(b.to_numpy(right(b, saved, grads, needs)[0]))
    out[1, 2] *= factor
    return (b.asarray(out),)


def test_a_right_gradient_passes(backend_name):
    x = leaf(3, 4)
    result = trine.gradcheck(with_backward(right), [x])
    assert result
    assert result.kinks == 0
    assert result.checked == 4 + 12  # directions and elements
    assert "gradients are right: 16 slopes" in str(result)


@pytest.mark.parametrize(
    "backward", [missing_factor, ignores_upstream, wrong_sign, returns_nan, one_element]
)
def test_a_wrong_gradient_fails(backend_name, backward):
    with pytest.raises(AssertionError, match=r"Worst element: input 0 at \(\d, \d\): analytic"):
        trine.gradcheck(with_backward(backward), [leaf(3, 4)])


def test_the_worst_element_is_named_with_its_numbers():
    x = leaf(3, 4)
    result = trine.gradcheck(with_backward(one_element), [x], raise_exception=False)
    assert not result
    found = re.search(
        r"Worst element: input 0 at \(1, 2\): analytic (\S+), numeric (\S+), relative error (\S+)\.",
        str(result),
    )
    assert found, str(result)
    analytic, numeric, relative = map(float, found.groups())
    assert analytic / numeric == pytest.approx(1.001, rel=1e-6)
    assert relative == pytest.approx(1e-3, rel=1e-2)


def test_a_wrong_element_of_many_is_seen_along_directions():
    """5,000 elements are too many to try one by one; the random directions see one that is wrong."""
    backward = partial(one_element, factor=1.5)
    with pytest.raises(AssertionError, match="along a random direction"):
        trine.gradcheck(with_backward(backward), [leaf(5, 1000)])


def test_two_inputs_and_the_wrong_one_is_named():
    def forward(b, x, y):
        return b.mul(x, y), (x, y)

    def backward(b, saved, grads, needs):
        x, y = saved
        return b.mul(grads[0], y), b.mul(grads[0], b.mul(x, 1.5))

    record = define("probed_product", forward, backward, keeps=(0, 1))
    with pytest.raises(AssertionError, match=r"Worst element: input 2 at"):
        trine.gradcheck(
            lambda x, _, y: apply(record, x, y), [leaf(4), trine.tensor([1]), leaf(4, seed=1)]
        )


def test_a_gradient_that_is_missing_fails():
    x = leaf(3)
    with pytest.raises(AssertionError, match="got 0"):
        trine.gradcheck(lambda t: t.detach() * 2.0, [x])


def test_float32_is_refused():
    with pytest.raises(
        TypeError, match=r"\[gradcheck\] expected input 1 in float64, got float32.*double\(\)"
    ):
        trine.gradcheck(lambda a, b: a, [leaf(2), leaf(2, dtype="float32")])
    with pytest.raises(TypeError, match="expected outputs in float64, got float32"):
        trine.gradcheck(lambda a: a.to(dtype="float32"), [leaf(2)])


def test_nothing_to_check_is_refused():
    with pytest.raises(ValueError, match="requires a gradient"):
        trine.gradcheck(lambda a: a, [trine.tensor([1.0], dtype="float64")])


def test_a_function_that_draws_is_refused():
    with pytest.raises(ValueError, match=r"same .*outputs.*eval\(\)"):
        trine.gradcheck(lambda x: F.dropout(x, 0.5, training=True), [leaf(40)])


def test_a_point_at_a_kink_is_left_out(backend_name):
    x = trine.tensor([-1.0, 0.0, 2.0], dtype="float64", requires_grad=True)
    result = trine.gradcheck(lambda t: F.relu(t), [x], raise_exception=False)
    assert not result
    assert "Move the inputs away from kinks" in str(result)
    beside = trine.tensor([-1.0, 1e-12, 2.0], dtype="float64", requires_grad=True)
    assert "kinks" in str(trine.gradcheck(F.relu, [beside], raise_exception=False))


def test_directions_step_around_kinks():
    """Only every second direction leaves the kink at x = y alone; the others are drawn anew."""

    def steep(t):
        return trine.maximum(t[0], -t[1])

    x = trine.tensor([3e-7, 0.0], dtype="float64", requires_grad=True)
    results = [trine.gradcheck(steep, [x], seed=s, raise_exception=False) for s in range(6)]
    assert any(result.ok and result.kinks for result in results), [str(r) for r in results]
    assert all(result.ok or "kink" in str(result) for result in results)


def test_small_kinks_among_much_else_are_seen():
    """A kink a hundred thousand times smaller than the slope still spoils a difference."""
    x = leaf(50)
    beside = trine.tensor(x.detach().numpy() - 1e-7)

    def function(t):
        return (t * t).sum() * 10.0 + F.relu(t - beside).sum() * 1e-3

    result = trine.gradcheck(function, [x], raise_exception=False)
    assert result.kinks > 0
    assert result.ok or "Move the inputs away from kinks" in str(result), str(result)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_curvature_is_no_kink(scale):
    assert trine.gradcheck(lambda t: (t * scale).sin().exp(), [leaf(6)]).kinks == 0


def test_the_inputs_are_as_before():
    x = leaf(3, 4)
    before = x.detach().numpy().copy()
    trine.gradcheck(lambda t: t.exp().tanh(), [x])
    assert np.array_equal(x.detach().numpy(), before)
    assert x.grad is None

    def fails(t):
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        trine.gradcheck(fails, [x])
    assert np.array_equal(x.detach().numpy(), before)


def test_tuples_of_outputs(backend_name):
    tensors = [leaf(3, 2, 4), *(leaf(*s, seed=i) for i, s in enumerate(((12, 4), (12, 3))))]
    result = trine.gradcheck(lambda x, w, u: F.lstm(x, None, w, u), tensors)
    assert result.checked > 24 + 48 + 36


def test_a_module_is_checked_as_a_copy_in_float64(backend_name):
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    result = trine.gradcheck(model, leaf(4, 3))
    assert result.checked == 4 + 12 + 15 + 5 + 10 + 2
    assert {p.dtype.name for p in model.parameters()} == {"float32"}
    assert all(p.grad is None for p in model.parameters())


def test_a_modules_wrong_parameter_is_named():
    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(trine.tensor([1.0, 2.0]))

        def forward(self, x):
            return x * self.gain.detach() + self.gain

    with pytest.raises(AssertionError, match=r"Worst element: parameter gain at \(\d,\)"):
        trine.gradcheck(Wrong(), leaf(3, 2))


def test_modules_with_state_and_kinks(backend_name):
    """Convolution, batch norm in training, relu, pooling: kinks lie around, gradients are right."""
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(12, 3),
    )  # fmt: skip
    assert trine.gradcheck(model, leaf(3, 2, 4, 4))
