"""Batch, layer and group normalisation against the formulas, their gradients and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import trine
import trine.functional as F


def t64(values: Any) -> trine.Tensor:
    return trine.tensor(values, "float64")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (2, 3, 4, 2), (1, 3, 2), (2, 1, 3)])
def test_batch_norm_in_training(backend_name, rng, check_gradients, shape):
    x = rng.normal(2.0, 3.0, size=shape)
    c = shape[1]
    weight, bias = rng.normal(size=c), rng.normal(size=c)
    axes = tuple(i for i in range(len(shape)) if i != 1)
    column = (1, c) + (1,) * (len(shape) - 2)
    mean, var = x.mean(axes).reshape(column), x.var(axes).reshape(column)
    expected = (x - mean) / np.sqrt(var + 1e-3) * weight.reshape(column) + bias.reshape(column)

    def norm(x: trine.Tensor, w: trine.Tensor | None, b: trine.Tensor | None) -> trine.Tensor:
        return F.batch_norm(x, None, None, w, b, training=True, eps=1e-3)

    out = norm(t64(x), t64(weight), t64(bias))
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-11, atol=1e-12)
    plain = norm(t64(x), None, None)
    np.testing.assert_allclose(plain.numpy(), (x - mean) / np.sqrt(var + 1e-3), atol=1e-12)
    check_gradients(norm, t64(x), t64(weight), t64(bias))
    check_gradients(lambda a: norm(a, None, None), t64(x))
    with trine.autograd.composed_ops():
        again = norm(t64(x), t64(weight), t64(bias))
    np.testing.assert_allclose(again.numpy(), expected, rtol=1e-11, atol=1e-12)


def test_batch_norm_running_statistics_take_the_unbiased_variance(backend_name, rng):
    running_mean, running_var = rng.normal(size=3), rng.uniform(0.5, 2, size=3)
    mean, var = trine.tensor(running_mean), trine.tensor(running_var)
    for _ in range(2):
        x = rng.normal(size=(4, 3, 5))
        F.batch_norm(t64(x).requires_grad_(), mean, var, training=True, momentum=0.3)
        running_mean = 0.7 * running_mean + 0.3 * x.mean((0, 2))
        running_var = 0.7 * running_var + 0.3 * x.var((0, 2), ddof=1)
    np.testing.assert_allclose(mean.numpy(), running_mean, rtol=1e-12)
    np.testing.assert_allclose(var.numpy(), running_var, rtol=1e-12)
    assert not mean.requires_grad


def test_batch_norm_in_evaluation_uses_running_statistics(backend_name, rng, check_gradients):
    x, weight, bias = rng.normal(size=(2, 3, 4)), rng.normal(size=3), rng.normal(size=3)
    mean, var = rng.normal(size=3), rng.uniform(0.5, 2, size=3)
    running_mean, running_var = t64(mean), t64(var)

    def norm(x: trine.Tensor, w: trine.Tensor | None, b: trine.Tensor | None) -> trine.Tensor:
        return F.batch_norm(x, running_mean, running_var, w, b)

    out = norm(t64(x), t64(weight), t64(bias))
    expected = (x - mean[:, None]) / np.sqrt(var[:, None] + 1e-5) * weight[:, None] + bias[:, None]
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-12, atol=1e-13)
    check_gradients(norm, t64(x), t64(weight), t64(bias))
    assert (running_mean.numpy() == mean).all()
    assert (running_var.numpy() == var).all()
    one = norm(t64(x[:1, :, :1]), None, None)  # one value a channel is fine here
    assert one.shape == (1, 3, 1)


def test_normalisation_far_from_zero_keeps_its_digits(backend_name, rng):
    x = rng.normal(size=(8, 4, 16)).astype(np.float32) + np.float32(1000)
    exact = x.astype(np.float64)
    batch = (exact - exact.mean((0, 2), keepdims=True)) / np.sqrt(
        exact.var((0, 2), keepdims=True) + 1e-5
    )
    out = F.batch_norm(trine.tensor(x), None, None, training=True)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.numpy(), batch, atol=1e-3)  # x itself has 6e-5 of rounding
    rows = (exact - exact.mean(2, keepdims=True)) / np.sqrt(exact.var(2, keepdims=True) + 1e-5)
    np.testing.assert_allclose(F.layer_norm(trine.tensor(x), 16).numpy(), rows, atol=1e-3)
    constant = F.layer_norm(trine.full((2, 5), 3.0), 5)
    assert (constant.numpy() == 0).all()


@pytest.mark.parametrize("normalized_shape", [5, (5,), (4, 5)])
def test_layer_norm(backend_name, rng, check_gradients, normalized_shape):
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
    x, weight, bias = rng.normal(size=(3, 4, 5)), rng.normal(size=shape), rng.normal(size=shape)
    axes = tuple(range(3 - len(shape), 3))
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    expected = (x - mean) / np.sqrt(var + 1e-5) * weight + bias

    def norm(x: trine.Tensor, w: trine.Tensor, b: trine.Tensor) -> trine.Tensor:
        return F.layer_norm(x, normalized_shape, w, b)

    out = norm(t64(x), t64(weight), t64(bias))
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-11, atol=1e-12)
    check_gradients(norm, t64(x), t64(weight), t64(bias))
    check_gradients(lambda a: F.layer_norm(a, normalized_shape), t64(x))
    with trine.autograd.composed_ops():
        again = norm(t64(x), t64(weight), t64(bias))
    np.testing.assert_allclose(again.numpy(), expected, rtol=1e-11, atol=1e-12)
    assert F.layer_norm(trine.zeros(0, 5), 5).shape == (0, 5)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm(backend_name, rng, check_gradients, groups):
    x, weight, bias = rng.normal(size=(2, 6, 3, 2)), rng.normal(size=6), rng.normal(size=6)
    parts = x.reshape(2, groups, -1)
    x_hat = (parts - parts.mean(2, keepdims=True)) / np.sqrt(parts.var(2, keepdims=True) + 1e-5)
    column = (1, 6, 1, 1)
    expected = x_hat.reshape(x.shape) * weight.reshape(column) + bias.reshape(column)

    def norm(x: trine.Tensor, w: trine.Tensor, b: trine.Tensor) -> trine.Tensor:
        return F.group_norm(x, groups, w, b)

    out = norm(t64(x), t64(weight), t64(bias))
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-11, atol=1e-12)
    check_gradients(norm, t64(x), t64(weight), t64(bias))
    check_gradients(lambda a: F.group_norm(a, groups), t64(x))
    with trine.autograd.composed_ops():
        again = norm(t64(x), t64(weight), t64(bias))
    np.testing.assert_allclose(again.numpy(), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("size", "beta"), [(1, 0.75), (2, 0.75), (5, 0.75), (3, 1.3), (9, 0.5)])
def test_local_response_norm(backend_name, rng, check_gradients, size, beta):
    x, alpha, k = rng.normal(size=(2, 4, 3, 2)), 0.7, 1.5
    expected = np.empty_like(x)
    for c in range(4):
        window = x[:, max(0, c - size // 2) : c + (size - 1) // 2 + 1]
        expected[:, c] = x[:, c] / (k + alpha / size * (window**2).sum(1)) ** beta

    def norm(x: trine.Tensor) -> trine.Tensor:
        return F.local_response_norm(x, size, alpha, beta, k)

    np.testing.assert_allclose(norm(t64(x)).numpy(), expected, rtol=1e-12, atol=1e-13)
    check_gradients(norm, t64(x))
    with trine.autograd.composed_ops():
        np.testing.assert_allclose(norm(t64(x)).numpy(), expected, rtol=1e-12, atol=1e-13)
        check_gradients(norm, t64(x))
    module = trine.nn.LocalResponseNorm(size, alpha, beta, k)
    np.testing.assert_array_equal(module(t64(x)).numpy(), norm(t64(x)).numpy())


def test_local_response_norm_by_hand(backend_name):
    """Three channels 1, 2, 3 by a window of 2 (the channel before): s = 1 + x_(c-1)^2 + x_c^2."""
    x = t64([[[1.0], [2.0], [3.0]]])
    out = F.local_response_norm(x, 2, alpha=2.0, beta=1.0, k=1.0)
    np.testing.assert_allclose(out.numpy().ravel(), [1 / 2, 2 / 6, 3 / 14], rtol=1e-15)
    assert repr(trine.nn.LocalResponseNorm(5)) == (
        "LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=1.0)"
    )


@pytest.mark.parametrize("size", [1, 4, 5])
@pytest.mark.parametrize("shape", [(2, 6, 4), (2, 6, 3, 4), (1, 2, 2, 3, 2)])
def test_local_response_norm_is_pytorchs(backend_name, rng, size, shape):
    torch = pytest.importorskip("torch")
    x, upstream = rng.normal(size=shape) * 30, rng.normal(size=shape)
    mine, theirs = t64(x).requires_grad_(), torch.from_numpy(x).requires_grad_()
    got = trine.nn.LocalResponseNorm(size)(mine)
    wanted = torch.nn.LocalResponseNorm(size)(theirs)
    (got * t64(upstream)).sum().backward()
    (wanted * torch.from_numpy(upstream)).sum().backward()
    np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.batch_norm(trine.zeros(1, 3), None, None, training=True), ValueError,
         r"\[batch_norm\] expected more than one value a channel in training, got input \(1, 3\)"),
        (lambda: F.batch_norm(trine.zeros(1, 3, 1, 1), None, None, training=True), ValueError,
         "expected more than one value a channel"),
        (lambda: F.batch_norm(trine.zeros(0, 3), None, None, training=True), ValueError,
         "expected more than one value a channel"),
        (lambda: F.batch_norm(trine.zeros(4, 3), None, None), ValueError,
         "expected running_mean and running_var in evaluation"),
        (lambda: F.batch_norm(trine.zeros(4, 3), trine.zeros(4), trine.ones(4)), ValueError,
         r"expected running_mean of shape \(3,\) to match input \(4, 3\), got \(4,\)"),
        (lambda: F.batch_norm(trine.zeros(4), None, None, training=True), ValueError,
         r"expected input of shape \(N, C\)"),
        (lambda: F.batch_norm(trine.zeros(4, 3), None, None, trine.ones(3, dtype="float64"),
                              training=True), TypeError, "expected weight of dtype float32"),
        (lambda: F.layer_norm(trine.zeros(4, 3), 4), ValueError,
         r"\[layer_norm\] expected input whose last axes are normalized_shape \(4,\)"),
        (lambda: F.layer_norm(trine.zeros(4, 3), 3, trine.ones(4)), ValueError,
         r"expected weight of shape \(3,\)"),
        (lambda: F.layer_norm(trine.arange(3), 3), TypeError, "expected input of dtype float32"),
        (lambda: F.group_norm(trine.zeros(4, 6), 4), ValueError,
         r"\[group_norm\] expected num_groups that divides the 6 channels"),
        (lambda: F.group_norm(trine.zeros(4, 6), 0), ValueError, "expected num_groups"),
        (lambda: F.group_norm(trine.zeros(4, 6, 0), 2), ValueError, "expected elements"),
        (lambda: F.local_response_norm(trine.zeros(4, 6), 2), ValueError,
         r"\[local_response_norm\] expected input of shape \(N, C, ...\) with at least three axes"),
        (lambda: F.local_response_norm(trine.zeros(4, 6, 1), 0), ValueError,
         r"\[local_response_norm\] expected size as an int >= 1, .* got 0"),
        (lambda: F.local_response_norm(trine.zeros(4, 6, 1), 2.0), ValueError, "got 2.0"),
        (lambda: F.local_response_norm(trine.arange(3), 3), TypeError,
         "expected input of dtype float32"),
    ],
)  # fmt: skip
def test_norm_errors(backend_name, call, error, message):
    with pytest.raises(error, match=message):
        call()
