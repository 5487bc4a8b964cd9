"""Losses: the textbook formulas, PyTorch's conventions, extremes, and errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import trine
import trine.functional as F
from trine.errors import GraphError

PAIR_LOSSES: dict[str, Any] = {
    "mse_loss": F.mse_loss,
    "l1_loss": F.l1_loss,
    "smooth_l1_loss": F.smooth_l1_loss,
    "huber_loss": F.huber_loss,
    "log_cosh_loss": F.log_cosh_loss,
    "squared_error": F.squared_error,
    "binary_cross_entropy": F.binary_cross_entropy,
    "binary_cross_entropy_with_logits": F.binary_cross_entropy_with_logits,
    "zero_one_loss": F.zero_one_loss,
    "hinge_loss": F.hinge_loss,
    "logistic_loss": F.logistic_loss,
    "exponential_loss": F.exponential_loss,
}


def t64(values: Any) -> trine.Tensor:
    return trine.tensor(values, "float64")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


# Softmax


def test_softmax_is_the_quotient_of_exponentials(backend_name, rng, check_gradients):
    x = rng.normal(size=(3, 4, 2))
    for axis in (0, 1, -1):
        power = np.exp(x)
        expected = power / power.sum(axis=axis, keepdims=True)
        np.testing.assert_allclose(F.softmax(t64(x), dim=axis).numpy(), expected, rtol=1e-13)
        np.testing.assert_allclose(
            F.log_softmax(t64(x), dim=axis).numpy(), np.log(expected), rtol=1e-12, atol=1e-14
        )
        check_gradients(lambda a, axis=axis: F.softmax(a, axis), t64(x))
        check_gradients(lambda a, axis=axis: F.log_softmax(a, axis), t64(x))


def test_softmax_extremes(backend_name):
    x = trine.tensor([[1e4, 0.0, -1e4], [-math.inf, 0.0, 0.0], [5.0, 5.0, 5.0]])
    out = F.softmax(x, dim=1)
    assert out.dtype == np.float32
    expected = [[1, 0, 0], [0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-6)
    log = F.log_softmax(x, dim=1).numpy()
    assert log[0].tolist() == [0.0, -1e4, -2e4]  # the softmax itself is 0 there
    assert log[1, 0] == -math.inf
    assert np.isnan(F.softmax(trine.tensor([[-math.inf, -math.inf]]), 1).numpy()).all()
    assert F.softmax(trine.zeros(0, 3), 1).shape == (0, 3)
    assert F.softmax(trine.zeros(3, 0), 1).shape == (3, 0)


def test_softmax_errors(backend_name):
    with pytest.raises(ValueError, match=r"\[softmax\] expected dim from -2 to 1"):
        F.softmax(trine.zeros(2, 3), dim=2)
    with pytest.raises(TypeError, match=r"\[log_softmax\] expected input of dtype float32"):
        F.log_softmax(trine.arange(3), dim=0)


# Cross-entropy


def scalar_cross_entropy(
    logits: np.ndarray, target: np.ndarray, weight: np.ndarray, ignore: int, smoothing: float
) -> tuple[list[float], float]:
    """Return the loss of each row, and the total weight, by loops over Python floats."""
    losses, total = [], 0.0
    for row, y in zip(logits.tolist(), target.tolist(), strict=True):
        if y == ignore:
            losses.append(0.0)
            continue
        log_sum = math.log(sum(math.exp(v) for v in row))
        log_probs = [v - log_sum for v in row]
        spread = sum(w * v for w, v in zip(weight.tolist(), log_probs, strict=True))
        losses.append(-(1 - smoothing) * weight[y] * log_probs[y] - smoothing / len(row) * spread)
        total += weight[y]
    return losses, total


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore", [-100, 2])
def test_cross_entropy_equals_its_formula(
    backend_name, rng, check_gradients, smoothing, weighted, ignore
):
    logits = rng.normal(size=(6, 4))
    target = np.array([0, 2, 3, 1, 2, 3])
    if ignore == -100:
        target[1] = -100
    weight = rng.uniform(0.5, 2, size=4) if weighted else np.ones(4)
    losses, total = scalar_cross_entropy(logits, target, weight, ignore, smoothing)
    w = t64(weight) if weighted else None
    expected = {"none": losses, "sum": sum(losses), "mean": sum(losses) / total}
    labels = trine.tensor(target)
    for reduction, value in expected.items():

        def loss(x: trine.Tensor, reduction: str = reduction) -> trine.Tensor:
            return F.cross_entropy(x, labels, w, ignore, reduction, smoothing)

        np.testing.assert_allclose(loss(t64(logits)).numpy(), value, rtol=1e-12, atol=1e-14)
        check_gradients(loss, t64(logits))
        with trine.autograd.composed_ops():
            np.testing.assert_allclose(loss(t64(logits)).numpy(), value, rtol=1e-12, atol=1e-14)


def test_cross_entropy_gradient_is_softmax_minus_one_hot(backend_name, rng):
    logits = trine.tensor(rng.normal(size=(5, 3)), requires_grad=True)
    target = np.array([0, 1, 2, 2, 1])
    F.cross_entropy(logits, trine.tensor(target)).backward()
    expected = (F.softmax(logits.detach(), 1).numpy() - np.eye(3)[target]) / 5
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-12, atol=1e-15)


def test_cross_entropy_of_images_and_of_one_example(backend_name, rng, check_gradients):
    logits, target = rng.normal(size=(2, 3, 4, 2)), rng.integers(0, 3, size=(2, 4, 2))
    rows = np.moveaxis(logits, 1, -1).reshape(-1, 3)
    losses, total = scalar_cross_entropy(rows, target.reshape(-1), np.ones(3), -100, 0.0)
    each = F.cross_entropy(t64(logits), trine.tensor(target), reduction="none")
    np.testing.assert_allclose(each.numpy(), np.reshape(losses, (2, 4, 2)), rtol=1e-12)
    mean = F.cross_entropy(t64(logits), trine.tensor(target))
    np.testing.assert_allclose(mean.numpy(), sum(losses) / total, rtol=1e-12)
    check_gradients(lambda x: F.cross_entropy(x, trine.tensor(target)), t64(logits))
    single = F.cross_entropy(t64(rows[0]), trine.tensor(target.reshape(-1)[0]))
    np.testing.assert_allclose(single.numpy(), losses[0], rtol=1e-12)
    assert single.shape == ()


def test_cross_entropy_extremes(backend_name):
    big = trine.tensor([[1e4, 0.0], [0.0, 1e4]], requires_grad=True)
    loss = F.cross_entropy(big, trine.tensor([0, 0]), reduction="none")
    assert loss.detach().numpy().tolist() == [0.0, 1e4]
    loss.sum().backward()
    assert big.grad.numpy().tolist() == [[0.0, 0.0], [-1.0, 1.0]]

    masked = trine.tensor([[-math.inf, 0.0, 0.0]], requires_grad=True)
    loss = F.cross_entropy(masked, trine.tensor([1]))
    loss.backward()
    np.testing.assert_allclose(loss.detach().numpy(), math.log(2), rtol=1e-6)
    np.testing.assert_allclose(masked.grad.numpy(), [[0.0, -0.5, 0.5]], rtol=1e-6)
    assert F.cross_entropy(masked.detach(), trine.tensor([0])).item() == math.inf

    one = trine.tensor([[3.0], [-7.0]], requires_grad=True)
    loss = F.cross_entropy(one, trine.tensor([0, 0]))
    loss.backward()
    assert loss.item() == 0.0
    assert one.grad.numpy().tolist() == [[0.0], [0.0]]


def test_cross_entropy_with_every_row_ignored(backend_name):
    logits = trine.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    loss = F.cross_entropy(logits, trine.tensor([-100, -100]))
    assert math.isnan(loss.item())  # PyTorch's convention: the mean of nothing
    loss.backward()
    assert logits.grad.numpy().tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert F.cross_entropy(logits, trine.tensor([-100, -100]), reduction="sum").item() == 0.0


def test_cross_entropy_of_an_empty_batch(backend_name):
    logits = trine.zeros(0, 3, requires_grad=True)
    target = trine.zeros(0, dtype="int64")
    assert F.cross_entropy(logits, target, reduction="none").shape == (0,)
    assert F.cross_entropy(logits, target, reduction="sum").item() == 0.0
    loss = F.cross_entropy(logits, target)
    assert math.isnan(loss.item())
    loss.backward()
    assert logits.grad.shape == (0, 3)


def test_cross_entropy_keeps_the_dtype_and_takes_small_integers(backend_name, rng):
    logits = trine.tensor(rng.normal(size=(4, 3)), "float32", requires_grad=True)
    for dtype in ("int64", "int32", "uint8"):
        loss = F.cross_entropy(logits, trine.tensor([0, 1, 2, 0], dtype))
        assert loss.dtype == np.float32
        loss.backward()
    assert logits.grad.dtype == np.float32


def test_probability_targets(backend_name, rng, check_gradients):
    logits, weight = rng.normal(size=(4, 3)), rng.uniform(0.5, 2, size=3)
    target = rng.dirichlet(np.ones(3), size=4)
    log_probs = F.log_softmax(t64(logits), 1).numpy()
    smooth = target * 0.8 + 0.2 / 3
    expected = -(smooth * weight * log_probs).sum(1)
    for reduction, value in (
        ("none", expected), ("sum", expected.sum()), ("mean", expected.sum() / 4)
    ):  # fmt: skip

        def loss(x: trine.Tensor, y: trine.Tensor, reduction: str = reduction) -> trine.Tensor:
            return F.cross_entropy(x, y, t64(weight), reduction=reduction, label_smoothing=0.2)

        np.testing.assert_allclose(loss(t64(logits), t64(target)).numpy(), value, rtol=1e-12)
        check_gradients(loss, t64(logits), t64(target))


def test_one_hot_probabilities_equal_labels(backend_name, rng):
    logits, labels = rng.normal(size=(2, 3, 5)), rng.integers(0, 3, size=(2, 5))
    one_hot = np.moveaxis(np.eye(3)[labels], -1, 1)
    for smoothing in (0.0, 0.3):
        hard = F.cross_entropy(t64(logits), trine.tensor(labels), label_smoothing=smoothing)
        soft = F.cross_entropy(t64(logits), t64(one_hot), label_smoothing=smoothing)
        np.testing.assert_allclose(soft.numpy(), hard.numpy(), rtol=1e-12)
    impossible = trine.tensor([[-math.inf, 0.0]])
    assert F.cross_entropy(impossible, trine.tensor([[0.0, 1.0]])).item() == 0.0


def test_nll_loss_of_log_softmax_is_cross_entropy(backend_name, rng, check_gradients):
    logits, target = rng.normal(size=(5, 4)), trine.tensor([0, 1, -100, 3, 3])
    weight = t64(rng.uniform(0.5, 2, size=4))
    for reduction in ("none", "sum", "mean"):
        log_probs = F.log_softmax(t64(logits), 1)
        nll = F.nll_loss(log_probs, target, weight, reduction=reduction)
        whole = F.cross_entropy(t64(logits), target, weight, reduction=reduction)
        np.testing.assert_allclose(nll.numpy(), whole.numpy(), rtol=1e-12, atol=1e-15)
    check_gradients(lambda x: F.nll_loss(x, target, weight), t64(logits))
    labelled = trine.tensor([0, 1, 2, 3, 3])
    inside = F.nll_loss(t64(logits), labelled, ignore_index=3)  # a class may be the one to ignore
    assert inside.item() == pytest.approx(-np.diag(logits[:3]).mean(), rel=1e-12)
    impossible = F.nll_loss(trine.tensor([[0.0, -math.inf]]), trine.tensor([0]))
    assert impossible.item() == 0.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.cross_entropy(x, trine.tensor([0, 3])), ValueError,
         r"\[cross_entropy\] expected labels from 0 to 2, or -100 .* got 3 at \(1,\)"),
        (lambda x: F.cross_entropy(x, trine.tensor([-1, 0])), ValueError, r"got -1 at \(0,\)"),
        (lambda x: F.cross_entropy(x, trine.tensor([[0], [1]])), ValueError,
         r"expected target of shape \(2,\) to match input \(2, 3\), got \(2, 1\)"),
        (lambda x: F.cross_entropy(x, trine.tensor([0.0, 1.0])), ValueError,
         r"expected target of shape \(2, 3\)"),
        (lambda x: F.cross_entropy(x, trine.tensor([True, False])), TypeError,
         "expected target of integers, got bool"),
        (lambda x: F.cross_entropy(x, [0, 1]), TypeError, "expected target to be a tensor, got list"),
        (lambda x: F.cross_entropy(x, trine.tensor([0, 1]), reduction="avg"), ValueError,
         "expected a known reduction, got 'avg'"),
        (lambda x: F.cross_entropy(x, trine.tensor([0, 1]), trine.ones(2)), ValueError,
         r"expected weight of shape \(3,\)"),
        (lambda x: F.cross_entropy(x, trine.tensor([0, 1]), trine.ones(3, dtype="float64")),
         TypeError, "expected weight of dtype float32"),
        (lambda x: F.cross_entropy(x, trine.tensor([0, 1]), label_smoothing=1.5), ValueError,
         "expected label_smoothing from 0 to 1, got 1.5"),
        (lambda x: F.cross_entropy(x.long(), trine.tensor([0, 1])), TypeError,
         "expected input of dtype float32 or float64, got int64"),
        (lambda x: F.cross_entropy(trine.zeros(2, 0), trine.tensor([0, 1])), ValueError,
         "with C >= 1 classes"),
        (lambda x: F.nll_loss(x, trine.tensor([0, 5])), ValueError, r"\[nll_loss\] expected labels"),
        (lambda x: F.nll_loss(x, trine.zeros(2)), TypeError, r"\[nll_loss\] expected target of int"),
    ],
)  # fmt: skip
def test_cross_entropy_errors(backend_name, call, error, message):
    with pytest.raises(error, match=message):
        call(trine.zeros(2, 3))


def test_second_derivatives_are_refused_and_composed_gives_them(backend_name):
    def gradient(x: trine.Tensor) -> trine.Tensor:
        loss = F.cross_entropy(x, trine.tensor([1]))
        (found,) = trine.grad(loss, x, create_graph=True)
        return found

    x = t64([[0.3, -0.2, 0.5]]).requires_grad_()
    with pytest.raises(GraphError, match=r"\[cross_entropy\].*composed_ops"):
        gradient(x)
    with trine.autograd.composed_ops():
        (curvature,) = trine.grad(gradient(x)[0, 0], x)
    p = F.softmax(x.detach(), 1).numpy()[0]
    np.testing.assert_allclose(curvature.numpy()[0], p[0] * (np.eye(3)[0] - p), rtol=1e-12)


# Regression


def test_every_squared_cost_of_the_textbooks(backend_name):
    out, target = t64([[0.751365070, 0.772928465]]), t64([[0.01, 0.99]])
    half = 0.5 * (0.741365070**2 + 0.217071535**2)
    assert F.squared_error(out, target).item() == pytest.approx(half, abs=1e-12)
    assert half == pytest.approx(0.298371109, abs=1e-9)  # the worked example 2-2-2
    out, target = t64([[1.0, 2.0], [3.0, 5.0], [0.0, 0.0]]), t64([[0.0, 2.0], [1.0, 1.0], [0, 0]])
    squares = 1 + 4 + 16
    for arguments, expected in (
        ({}, squares / 2),
        ({"reduction": "batchmean"}, squares / (2 * 3)),
        ({"factor": 1}, squares),
        ({"factor": 1, "reduction": "batchmean"}, squares / 3),
        ({"factor": 1, "reduction": "mean"}, squares / 6),
        ({"factor": 1, "reduction": "norm"}, math.sqrt(squares)),
    ):
        assert F.squared_error(out, target, **arguments).item() == pytest.approx(
            expected, rel=1e-14
        )
    each = F.squared_error(out, target, reduction="none")
    assert each.numpy().tolist() == [[0.5, 0.0], [2.0, 8.0], [0.0, 0.0]]


def test_gradients_of_the_squared_costs(backend_name, rng, check_gradients):
    out, target = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    for reduction in ("none", "sum", "batchmean", "mean", "norm"):
        check_gradients(
            lambda a, t, r=reduction: F.squared_error(a, t, 0.7, r), t64(out), t64(target)
        )
    zero = trine.zeros(2, requires_grad=True)
    F.squared_error(zero, trine.zeros(2), 1, "norm").backward()
    assert zero.grad.numpy().tolist() == [0.0, 0.0]


def huber(d: float, delta: float) -> float:
    return d * d / 2 if abs(d) <= delta else delta * (abs(d) - delta / 2)


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        (F.mse_loss, lambda d: d * d),
        (F.l1_loss, abs),
        (F.smooth_l1_loss, lambda d: huber(d, 1.0)),
        (lambda x, y, r: F.smooth_l1_loss(x, y, r, beta=0.3), lambda d: huber(d, 0.3) / 0.3),
        (lambda x, y, r: F.smooth_l1_loss(x, y, r, beta=0.0), abs),
        (F.huber_loss, lambda d: huber(d, 1.0)),
        (lambda x, y, r: F.huber_loss(x, y, r, delta=2.5), lambda d: huber(d, 2.5)),
        (F.log_cosh_loss, lambda d: math.log(math.cosh(d))),
    ],
)
def test_regression_losses(backend_name, check_gradients, loss, formula):
    d = np.array([-7.3, -2.5, -1.2, -0.4, -1e-3, 0.2, 0.9, 1.1, 3.0, 12.0])
    y = np.linspace(-2, 2, d.size)
    expected = np.array([formula(v) for v in d.tolist()])
    x = t64(y + d)
    np.testing.assert_allclose(loss(x, t64(y), "none").numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(loss(x, t64(y), "sum").numpy(), expected.sum(), rtol=1e-12)
    np.testing.assert_allclose(loss(x, t64(y), "mean").numpy(), expected.mean(), rtol=1e-12)
    smooth = np.array([-7.3, -1.2, 0.2, 0.9, 3.0])  # away from the kinks
    check_gradients(lambda a, b: loss(a, b, "none"), t64(smooth), t64(np.zeros(5)))


def test_regression_losses_of_extremes(backend_name):
    far = trine.tensor([1e4, -1e4], requires_grad=True)
    loss = F.log_cosh_loss(far, trine.zeros(2), "none")
    np.testing.assert_allclose(loss.detach().numpy(), 1e4 - math.log(2), rtol=1e-6)
    loss.sum().backward()
    assert far.grad.numpy().tolist() == [1.0, -1.0]
    infinite = trine.tensor([math.inf], requires_grad=True)
    F.huber_loss(infinite, trine.zeros(1), delta=2.0).backward()
    assert infinite.grad.numpy().tolist() == [2.0]
    equal = trine.zeros(1, requires_grad=True)
    F.l1_loss(equal, trine.zeros(1)).backward()
    assert equal.grad.numpy().tolist() == [0.0]
    with pytest.raises(ValueError, match=r"\[huber_loss\] expected delta > 0"):
        F.huber_loss(far, far, delta=0)
    with pytest.raises(ValueError, match=r"\[smooth_l1_loss\] expected beta >= 0"):
        F.smooth_l1_loss(far, far, beta=-1)


@pytest.mark.parametrize("name", sorted(PAIR_LOSSES))
def test_shapes_that_would_broadcast_raise(backend_name, name):
    x, y = trine.full((4,), 0.5), trine.ones(4, 1)
    with pytest.raises(
        ValueError, match=rf"\[{name}\] expected target of the shape of input, \(4,\)"
    ):
        PAIR_LOSSES[name](x, y)
    assert PAIR_LOSSES[name](x, trine.ones(4)).dtype == np.float32
    with pytest.raises(TypeError, match=rf"\[{name}\] expected target to be a tensor"):
        PAIR_LOSSES[name](x, 1.0)
    with pytest.raises(ValueError, match=rf"\[{name}\] expected a known reduction, got 'men'"):
        PAIR_LOSSES[name](x, trine.ones(4), reduction="men")


# Binary


def test_binary_cross_entropy(backend_name, rng, check_gradients):
    p, y = rng.uniform(0.05, 0.95, size=(3, 2)), rng.uniform(size=(3, 2))
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    for reduction, value in (
        ("none", expected), ("sum", expected.sum()), ("mean", expected.mean())
    ):  # fmt: skip
        found = F.binary_cross_entropy(t64(p), t64(y), reduction=reduction)
        np.testing.assert_allclose(found.numpy(), value, rtol=1e-12)
    weight = t64(rng.uniform(size=2))
    check_gradients(lambda a, b: F.binary_cross_entropy(a, b, weight), t64(p), t64(y))
    logits = np.log(p / (1 - p))
    from_logits = F.binary_cross_entropy_with_logits(t64(logits), t64(y), weight)
    direct = F.binary_cross_entropy(t64(p), t64(y), weight)
    np.testing.assert_allclose(from_logits.numpy(), direct.numpy(), rtol=1e-12)
    pos = t64(rng.uniform(0.5, 3, size=2))
    found = F.binary_cross_entropy_with_logits(
        t64(logits), t64(y), pos_weight=pos, reduction="none"
    )
    expected = -(pos.numpy() * y * np.log(p) + (1 - y) * np.log(1 - p))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    check_gradients(
        lambda a, b: F.binary_cross_entropy_with_logits(a, b, pos_weight=pos), t64(logits), t64(y)
    )


def test_binary_cross_entropy_of_extremes(backend_name):
    p = trine.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    y = trine.tensor([0, 1, 1, 0])
    loss = F.binary_cross_entropy(p, y, reduction="none")
    assert loss.detach().numpy().tolist() == [0.0, 0.0, 100.0, 100.0]
    loss.sum().backward()
    np.testing.assert_allclose(p.grad.numpy(), [0.0, 0.0, -1e12, 1e12], rtol=1e-6)
    x = trine.tensor([1e4, -1e4, 1e4, -1e4], requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(x, trine.tensor([1, 0, 0, 1]), reduction="none")
    assert loss.detach().numpy().tolist() == [0.0, 0.0, 1e4, 1e4]
    loss.sum().backward()
    assert x.grad.numpy().tolist() == [0.0, 0.0, 1.0, -1.0]
    with pytest.raises(ValueError, match=r"\[binary_cross_entropy\] expected probabilities from 0"):
        F.binary_cross_entropy(trine.tensor([1.5]), trine.tensor([1.0]))
    with pytest.raises(
        ValueError, match=r"expected a weight that broadcasts to \(1,\), got \(2,\)"
    ):
        F.binary_cross_entropy(trine.tensor([0.5]), trine.tensor([1.0]), trine.ones(2))


# Margins


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        (F.zero_one_loss, lambda m: float(m <= 0)),
        (F.hinge_loss, lambda m: max(0.0, 1 - m)),
        (F.logistic_loss, lambda m: math.log1p(math.exp(-m))),
        (F.exponential_loss, lambda m: math.exp(-m)),
    ],
)
def test_margin_losses(backend_name, check_gradients, loss, formula):
    x = np.array([-2.0, -0.5, 0.3, 1.7, 0.0, 0.9])
    y = np.array([1, -1, 1, -1, 1, 1])
    expected = np.array([formula(m) for m in (x * y).tolist()])
    np.testing.assert_allclose(
        loss(t64(x), trine.tensor(y), reduction="none").numpy(), expected, rtol=1e-12
    )
    found = loss(t64(x), trine.tensor(y))
    np.testing.assert_allclose(found.numpy(), expected.mean(), rtol=1e-12)
    if loss is F.zero_one_loss:
        assert not loss(t64(x).requires_grad_(), trine.tensor(y)).requires_grad
    else:
        check_gradients(lambda a: loss(a, trine.tensor(y)), t64(x))
    with pytest.raises(ValueError, match=r"expected labels -1 and \+1, got 0"):
        loss(t64([1.0, 2.0]), trine.tensor([1, 0]))


def test_zero_one_loss_of_classes(backend_name):
    scores = trine.tensor([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]])
    wrong = F.zero_one_loss(scores, trine.tensor([1, 1, 0]), reduction="none")
    assert wrong.numpy().tolist() == [0.0, 1.0, 0.0]  # the first of equals decides
    assert F.zero_one_loss(scores, trine.tensor([0, 1, 1])).item() == 1.0
    with pytest.raises(ValueError, match=r"\[zero_one_loss\] expected one integer class"):
        F.zero_one_loss(scores, trine.tensor([0, 1]))


# Density


def test_normal_density_integrates_to_one_for_every_sigma(backend_name, check_gradients):
    for mu, sigma in ((0.0, 1.0), (1.5, 0.3), (-2.0, 4.0)):
        x = np.linspace(mu - 12 * sigma, mu + 12 * sigma, 4001)
        density = F.normal_density(t64(x), mu, sigma).numpy()
        assert density.sum() * (x[1] - x[0]) == pytest.approx(1, abs=1e-12)
        assert density.max() == pytest.approx(1 / (math.sqrt(2 * math.pi) * sigma), rel=1e-12)
        variance = ((x - mu) ** 2 * density).sum() * (x[1] - x[0])
        assert variance == pytest.approx(sigma**2, rel=1e-9)
    check_gradients(F.normal_density, t64([0.3, -1.0]), t64([0.1, 0.5]), t64([0.7, 2.0]))
    with pytest.raises(ValueError, match=r"\[normal_density\] expected sigma > 0, got 0"):
        F.normal_density(t64([0.0]), 0.0, 0)
