"""The tape: gradients of every primitive, sums over paths, hooks, misuse refused in words."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import trine
from trine import GraphError
from trine.autograd import composed_ops
from trine.primitives import PRIMITIVES

RNG = np.random.default_rng(0)


def _away_from_kinks(*shape):
    x = RNG.uniform(0.2, 1.5, shape)
    return x * RNG.choice([-1.0, 1.0], shape)


def _positive(*shape):
    return RNG.uniform(0.3, 2.0, shape)


CASES = {
    "add": (lambda x, y: x + y, [_away_from_kinks(3, 4), _away_from_kinks(4)]),
    "sub": (lambda x, y: x - y, [_away_from_kinks(3, 1), _away_from_kinks(3, 4)]),
    "mul": (lambda x, y: x * y, [_away_from_kinks(2, 3, 4), _away_from_kinks(3, 1)]),
    "div": (lambda x, y: x / y, [_away_from_kinks(3, 4), _away_from_kinks(3, 4)]),
    "pow": (lambda x, y: x**y, [_positive(3, 4), _away_from_kinks(4)]),
    "maximum": (lambda x, y: trine.maximum(x, y), [_away_from_kinks(3, 4), _away_from_kinks(4)]),
    "minimum": (lambda x, y: trine.minimum(x, y), [_away_from_kinks(3, 4), _away_from_kinks(4)]),
    "neg": (lambda x: -x, [_away_from_kinks(5)]),
    "abs": (lambda x: abs(x), [_away_from_kinks(5)]),
    "sign": (lambda x: x.sign() * x, [_away_from_kinks(5)]),
    "floor": (lambda x: x.floor() * x, [_away_from_kinks(5) + 0.01]),
    "exp": (lambda x: x.exp(), [_away_from_kinks(5)]),
    "expm1": (lambda x: x.expm1(), [_away_from_kinks(5)]),
    "log": (lambda x: x.log(), [_positive(5)]),
    "log1p": (lambda x: x.log1p(), [_positive(5)]),
    "sqrt": (lambda x: x.sqrt(), [_positive(5)]),
    "sin": (lambda x: x.sin(), [_away_from_kinks(5)]),
    "cos": (lambda x: x.cos(), [_away_from_kinks(5)]),
    "tanh": (lambda x: x.tanh(), [_away_from_kinks(5)]),
    "sigmoid": (lambda x: x.sigmoid(), [_away_from_kinks(5)]),
    "relu": (lambda x: x.relu(), [_away_from_kinks(7)]),
    "softplus": (lambda x: x.softplus(), [_away_from_kinks(5)]),
    "where": (lambda x, y: trine.where(x > 0, x, y), [_away_from_kinks(3, 4), _positive(4)]),
    "sum": (lambda x: x.sum((0, 2)), [_away_from_kinks(2, 3, 4)]),
    "max": (lambda x: x.amax(1), [_away_from_kinks(3, 4)]),
    "min": (lambda x: x.amin((0, 1), keepdim=True), [_away_from_kinks(3, 4)]),
    "reshape": (lambda x: x.reshape(-1, 6), [_away_from_kinks(3, 4)]),
    "transpose": (lambda x: x.permute(2, 0, 1), [_away_from_kinks(2, 3, 4)]),
    "broadcast_to": (lambda x: x.expand(2, 3, 4), [_away_from_kinks(3, 1)]),
    "concat": (
        lambda x, y: trine.cat([x, y, x], 1),
        [_away_from_kinks(2, 3), _away_from_kinks(2, 1)],
    ),
    "pad": (lambda x: _pad(x), [_away_from_kinks(3, 4)]),
    "getitem": (lambda x: x[1:, ::2] * x[[0, 0, 1], [1, 1, 2]].sum(), [_away_from_kinks(3, 4)]),
    "matmul": (lambda x, y: x @ y, [_away_from_kinks(2, 3, 4), _away_from_kinks(4, 5)]),
    "clone": (lambda x: x.clone() * x, [_away_from_kinks(3)]),
    "astype": (lambda x: x.astype("float64") * 2, [_away_from_kinks(3)]),
    "scatter_add": (
        lambda x: trine.autograd.apply(
            PRIMITIVES["scatter_add"], x, index=(np.array([0, 2, 0]),), shape=(4,)
        ),
        [_away_from_kinks(3)],
    ),
}


def _pad(x):
    widths = ((1, 2), (2, 1))
    constant = trine.autograd.apply(PRIMITIVES["pad"], x, widths=widths, mode="constant", value=0.5)
    reflected = trine.autograd.apply(PRIMITIVES["pad"], x, widths=widths, mode="reflect")
    return constant * 2 + reflected


def _leaves(arrays):
    return [trine.tensor(a, dtype="float64", requires_grad=True) for a in arrays]


def _numeric(function, arrays, direction, weight, eps=1e-6):
    def value(step):
        tensors = [trine.tensor(a + step * d) for a, d in zip(arrays, direction, strict=True)]
        return float((function(*tensors) * weight).sum())

    return (value(eps) - value(-eps)) / (2 * eps)


def test_every_primitive_has_a_case():
    assert set(CASES) == set(PRIMITIVES)


@pytest.mark.parametrize("name", CASES)
def test_gradient(backend_name, name):
    function, arrays = CASES[name]
    leaves = _leaves(arrays)
    out = function(*leaves)
    weight = trine.tensor(RNG.normal(size=out.shape))
    (out * weight).sum().backward()
    for _ in range(3):
        direction = [RNG.normal(size=a.shape) for a in arrays]
        analytic = sum(
            float((leaf.grad.numpy() * d).sum()) for leaf, d in zip(leaves, direction, strict=True)
        )
        numeric = _numeric(function, arrays, direction, weight)
        assert analytic == pytest.approx(numeric, rel=1e-6, abs=1e-8)


SECOND_ORDER = [n for n in CASES if n not in {"astype"}]


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_second_derivative_of_primitives(backend_name, name):
    """The gradient of a random projection of the gradient, against differences of the gradient."""
    function, arrays = CASES[name]

    def first(leaves, create_graph):
        out = function(*leaves)
        scalar = (out * out * weight).sum()
        grads = trine.grad(scalar, leaves, create_graph=create_graph)
        return sum((g * trine.tensor(p)).sum() for g, p in zip(grads, projection, strict=True))

    weight = trine.tensor(RNG.normal(size=function(*_leaves(arrays)).shape))
    projection = [RNG.normal(size=a.shape) for a in arrays]
    direction = [RNG.normal(size=a.shape) for a in arrays]
    leaves = _leaves(arrays)
    first(leaves, True).backward()
    analytic = sum(
        float((leaf.grad.numpy() * d).sum())
        for leaf, d in zip(leaves, direction, strict=True)
        if leaf.grad is not None
    )
    eps = 1e-6
    ahead = first(_leaves([a + eps * d for a, d in zip(arrays, direction, strict=True)]), False)
    behind = first(_leaves([a - eps * d for a, d in zip(arrays, direction, strict=True)]), False)
    assert analytic == pytest.approx((float(ahead) - float(behind)) / (2 * eps), rel=1e-5, abs=1e-7)


def test_gradients_of_several_paths_add_up(backend_name):
    x = trine.tensor([2.0, 3.0], requires_grad=True)
    y = x * x
    (y + y + x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [9, 13])
    (3 * x).sum().backward()  # accumulates
    np.testing.assert_array_equal(x.grad.numpy(), [12, 16])


def test_gradients_passed_on_twice_are_not_shared():
    """add hands the same array to both sides: summing into one must not change the other."""
    x = trine.ones(3, requires_grad=True)
    y = trine.ones(3, requires_grad=True)
    s = x + y
    (s + x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2, 2])
    np.testing.assert_array_equal(y.grad.numpy(), [1, 1, 1])
    x.grad.fill_(7)
    np.testing.assert_array_equal(y.grad.numpy(), [1, 1, 1])


def test_deep_graphs_do_not_recurse():
    x = trine.ones(2, requires_grad=True)
    y = x
    for _ in range(20_000):
        y = y + 1
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1, 1])


def test_saved_arrays_are_freed_without_the_collector():
    gc.disable()
    try:
        x = trine.ones(1000, requires_grad=True)
        hidden = x.exp()
        reference = weakref.ref(hidden)
        loss = (hidden * 2).sum()
        del hidden
        loss.backward()
        del loss
        assert reference() is None
    finally:
        gc.enable()


def test_gradients_nobody_needs_are_skipped():
    x, w = trine.ones(2, 2), trine.ones(2, 2, requires_grad=True)
    (x @ w).sum().backward()
    assert x.grad is None
    assert w.grad is not None


def test_no_grad_and_detach():
    x = trine.ones(2, requires_grad=True)
    with trine.no_grad():
        assert not (x * 2).requires_grad
        with trine.enable_grad():
            assert (x * 2).requires_grad
    assert not x.detach().requires_grad

    @trine.no_grad()
    def double(v):
        return v * 2

    assert not double(x).requires_grad
    assert double(x).grad_fn is None


def test_retain_grad_and_hooks(backend_name):
    x = trine.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    y.retain_grad()
    seen = []
    handle = y.register_hook(lambda g: seen.append(g.numpy().copy()))
    x.register_hook(lambda g: g * 10)
    (y * y).sum().backward()
    np.testing.assert_array_equal(y.grad.numpy(), [6, 12])
    np.testing.assert_array_equal(x.grad.numpy(), [180, 360])
    np.testing.assert_array_equal(seen[0], [6, 12])
    handle.remove()
    (x * 3).sum().backward()
    assert len(seen) == 1


def test_hook_needs_a_gradient():
    with pytest.raises(GraphError, match="register_hook"):
        trine.ones(2).register_hook(lambda g: g)


def test_grad_leaves_grad_alone():
    x = trine.tensor([1.0, 2.0], requires_grad=True)
    unused = trine.ones(1, requires_grad=True)
    h = x * x
    by_x, by_h, nothing = trine.grad((h * 3).sum(), [x, h, unused])
    np.testing.assert_array_equal(by_x.numpy(), [6, 12])
    np.testing.assert_array_equal(by_h.numpy(), [3, 3])
    assert nothing is None
    assert x.grad is None


def test_in_place_changes_are_refused_where_they_would_lie():
    x = trine.ones(2, requires_grad=True)
    with pytest.raises(
        GraphError, match=r"\[add_\] expected a tensor that may be changed in place"
    ):
        x.add_(1)
    with pytest.raises(GraphError, match="part of the graph"):
        (x * 2).mul_(2)
    y = x * x
    with trine.no_grad():
        x.add_(1)
    with pytest.raises(GraphError, match=r"changed in place 1 time"):
        y.sum().backward()


def test_changes_through_a_view_are_seen():
    base = trine.ones(2, 3)
    w = trine.ones(3, requires_grad=True)
    y = (base.reshape(6).reshape(2, 3) * w).sum()
    base[0] = 5.0
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


def test_second_backward_is_refused_unless_retained():
    x = trine.ones(2, requires_grad=True)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [4, 4])
    with pytest.raises(GraphError, match="freed"):
        y.backward()


def test_backward_of_nothing_or_of_many():
    with pytest.raises(GraphError, match="requires a gradient"):
        trine.ones(1).backward()
    with pytest.raises(ValueError, match=r"\[backward\] expected a scalar, got shape \(2,\)"):
        trine.ones(2, requires_grad=True).backward()
    x = trine.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="gradient of shape"):
        (x * 2).backward(trine.ones(3))


def test_second_derivative_of_a_fused_op_is_refused_and_offered():
    import trine.functional as F

    x = trine.tensor(RNG.normal(size=(2, 3)), requires_grad=True)
    w = trine.tensor(RNG.normal(size=(4, 3)), requires_grad=True)
    with pytest.raises(GraphError, match=r"\[linear\].*composed_ops"):
        trine.grad(F.linear(x, w, activation="tanh").sum(), x, create_graph=True)
    with composed_ops():
        out = F.linear(x, w, activation="tanh").sum()
    (g,) = trine.grad(out, x, create_graph=True)
    (second,) = trine.grad((g * g).sum(), x)
    assert np.isfinite(second.numpy()).all()


def test_backends_are_not_mixed():
    a = trine.ones(2, backend="numpy")
    b = trine.ones(2, backend="numba")
    with pytest.raises(
        ValueError, match=r"\[add\] expected tensors on one backend.*'numpy'.*'numba'"
    ):
        a + b


def test_threads_have_their_own_mode():
    import threading

    seen = []
    with trine.no_grad():
        thread = threading.Thread(target=lambda: seen.append(trine.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_changed_outputs_that_are_kept_are_seen():
    import trine.functional as F

    x = trine.ones(2, 3, requires_grad=True)
    for function in (lambda t: t.exp(), lambda t: F.softmax(t, 1), lambda t: t.sigmoid()):
        y = function(x)
        with trine.no_grad():
            y.mul_(2)
        with pytest.raises(GraphError, match="changed in place"):
            y.sum().backward()
    y = x * 2  # keeps its inputs only
    with trine.no_grad():
        y.mul_(2)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.full((2, 3), 2))
