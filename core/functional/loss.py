"""Losses between two tensors of one shape: regression, binary and margin losses.

Shapes must be equal: a target (N, 1) against an output (N,) would broadcast to (N, N) and train on
nonsense, so it raises. `reduction` is "mean" over all elements, "sum" or "none".
"""

from __future__ import annotations

import math
from typing import Any

from trine.autograd import apply, define
from trine.backends import Backend
from trine.dtypes import Array, is_float
from trine.functional.checks import (
    check_values,
    require_float,
    require_reduction,
    require_tensor,
)
from trine.joining import minimum, where
from trine.tensor import Tensor

Saved = tuple[Any, ...]


def _checked(
    op: str, input: Tensor, target: Tensor, reduction: str = "mean"
) -> tuple[Tensor, Tensor]:
    """Return input and target after checks, integer targets as floats."""
    require_float(op, "input", input)
    require_tensor(op, "target", target)
    require_reduction(op, reduction)
    if input.shape != target.shape:
        raise ValueError(
            f"[{op}] expected target of the shape of input, {input.shape}, got {target.shape}. "
            "Broadcasting would compare every pair; reshape one of them, e.g. "
            f"target.reshape{input.shape}."
        )
    return input, target if is_float(target.dtype) else target.astype(input.dtype)


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Squared error (x - y)^2.

    input, target: one shape, any. Raises ValueError where the shapes differ.
    """
    x, y = _checked("mse_loss", input, target, reduction)
    return _reduced((x - y).square(), reduction)


def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Absolute error |x - y|, with gradient 0 where x = y.

    input, target: one shape, any. Raises ValueError where the shapes differ.
    """
    x, y = _checked("l1_loss", input, target, reduction)
    return _reduced((x - y).abs(), reduction)


def smooth_l1_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """Squared error near 0, absolute error beyond: d^2 / (2 beta) for |d| < beta, else |d| - beta/2.

    d = x - y; beta = 0 is the absolute error. Raises ValueError where the shapes differ or beta < 0.
    """
    if beta < 0:
        raise ValueError(f"[smooth_l1_loss] expected beta >= 0, got {beta}. Use e.g. 1.0.")
    if beta == 0:
        return l1_loss(input, target, reduction)
    x, y = _checked("smooth_l1_loss", input, target, reduction)
    return _reduced(_huber((x - y).abs(), beta) / beta, reduction)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0
) -> Tensor:
    """Huber's loss: d^2 / 2 for |d| <= delta, else delta (|d| - delta/2), with d = x - y.

    Raises ValueError where the shapes differ or delta <= 0.
    """
    if delta <= 0:
        raise ValueError(f"[huber_loss] expected delta > 0, got {delta}. Use e.g. 1.0.")
    x, y = _checked("huber_loss", input, target, reduction)
    return _reduced(_huber((x - y).abs(), delta), reduction)


def _huber(distance: Tensor, delta: float) -> Tensor:
    # With m = min(|d|, delta) both cases are one formula, whose gradient stays finite for |d| = inf.
    m = minimum(distance, delta)
    return m * m * 0.5 + (distance - m) * delta


def log_cosh_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """ln cosh d with d = x - y: d^2 / 2 near 0, |d| - ln 2 far away.

    Computed as |d| + ln(1 + (e^(-2|d|) - 1) / 2), which does not overflow. Raises ValueError where
    the shapes differ.
    """
    x, y = _checked("log_cosh_loss", input, target, reduction)
    distance = (x - y).abs()
    return _reduced(distance + ((distance * -2.0).expm1() * 0.5).log1p(), reduction)


def squared_error(
    input: Tensor, target: Tensor, factor: float = 0.5, reduction: str = "sum"
) -> Tensor:
    """The squared cost in each of its textbook forms.

    | cost                           | call                                          |
    | ------------------------------ | --------------------------------------------- |
    | 1/2 sum (t - a)^2              | squared_error(a, t)                           |
    | 1/2m sum (t - a)^2, m examples | squared_error(a, t, reduction="batchmean")    |
    | sum (t - a)^2                  | squared_error(a, t, factor=1)                 |
    | norm(t - a)                    | squared_error(a, t, factor=1, reduction="norm") |
    | 1/2 (t - a)^2 each             | squared_error(a, t, reduction="none")         |
    | mean over all elements         | squared_error(a, t, factor=1, reduction="mean") |

    Every form is `factor` times the squares, their sum, their sum over the number of examples (the
    first axis), their mean over all elements, or the root of their sum, the Euclidean norm (gradient
    0 where the norm is 0). Raises ValueError where the shapes differ.
    """
    op = "squared_error"
    require_reduction(op, reduction, ("none", "sum", "batchmean", "mean", "norm"))
    x, y = _checked(op, input, target)
    squares = (y - x).square()
    if reduction == "none":
        return squares * factor
    if reduction == "norm":
        total = squares.sum()
        # The root of 0 has no derivative; the constant 1 stands in for it, and is taken out again.
        return where(total == 0, 0.0, where(total == 0, 1.0, total).sqrt() * factor)
    if reduction == "mean":
        return squares.mean() * factor
    if reduction == "batchmean":
        if x.ndim == 0:
            raise ValueError(
                f"[{op}] expected an axis of examples for 'batchmean', got shape (). Use 'sum'."
            )
        return squares.sum() * (factor / x.shape[0] if x.shape[0] else math.nan)
    return squares.sum() * factor


# Binary losses

SMALLEST_LOG = -100.0
"""Logarithms of probabilities are cut off here, as in PyTorch, so that a loss stays finite."""


def _clamped_logs(be: Backend, p: Array) -> tuple[Array, Array]:
    """Return ln p and ln(1 - p), not below -100."""
    floor = be.constant(SMALLEST_LOG, p.dtype)
    return be.maximum(be.log(p), floor), be.maximum(be.log1p(be.neg(p)), floor)


def _bce(be: Backend, p: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
    log_p, log_q = _clamped_logs(be, p)
    one = be.constant(1.0, p.dtype)
    return be.neg(be.add(be.mul(y, log_p), be.mul(be.sub(one, y), log_q))), (p, y)


def _bce_backward(be: Backend, saved: Saved, grads: Saved, needs: Saved) -> Saved:
    p, y = saved
    grad_p = grad_y = None
    if needs[0]:  # (p - y) / (p (1 - p)), with PyTorch's guard at 0 and 1
        spread = be.mul(p, be.sub(be.constant(1.0, p.dtype), p))
        spread = be.maximum(spread, be.constant(1e-12, p.dtype))
        grad_p = be.mul(grads[0], be.div(be.sub(p, y), spread))
    if needs[1]:
        log_p, log_q = _clamped_logs(be, p)
        grad_y = be.mul(grads[0], be.sub(log_q, log_p))
    return grad_p, grad_y


def _bce_composed(p: Tensor, y: Tensor) -> Tensor:
    log_p = p.log().clamp(min=SMALLEST_LOG)
    log_q = (-p).log1p().clamp(min=SMALLEST_LOG)
    return -(y * log_p + (1 - y) * log_q)


BINARY_CROSS_ENTROPY = define(
    "binary_cross_entropy", _bce, _bce_backward, keeps=(0, 1), composed=_bce_composed
)


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """-[y ln p + (1 - y) ln(1 - p)] of probabilities p, times a weight for each element.

    Logarithms are cut off at -100, so the loss is finite. input: probabilities; target: the same
    shape, 0 to 1; weight: broadcasts to it. Prefer `binary_cross_entropy_with_logits`, which is exact
    for extreme probabilities. Raises ValueError where shapes differ or p is outside [0, 1] (not
    checked on a GPU, which would have to wait).
    """
    op = "binary_cross_entropy"
    p, y = _checked(op, input, target, reduction)
    values = p.data

    def check() -> None:
        if values.min() < 0 or values.max() > 1:
            raise ValueError(
                f"[{op}] expected probabilities from 0 to 1, got {values.min():.4g} to "
                f"{values.max():.4g}. Apply a sigmoid, or use binary_cross_entropy_with_logits."
            )

    check_values(p, check)
    losses: Tensor = apply(BINARY_CROSS_ENTROPY, p, y.astype(p.dtype))
    return _reduced(_weighted(op, losses, weight), reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """-[w y ln s(x) + (1 - y) ln(1 - s(x))] of logits x, with s the logistic function.

    Computed as (1 - y) x + (1 + (w - 1) y) softplus(-x), exact for any x. w is `pos_weight`, which
    broadcasts, 1 without. input, target: one shape. Raises ValueError where the shapes differ.
    """
    op = "binary_cross_entropy_with_logits"
    x, y = _checked(op, input, target, reduction)
    decay = (-x).softplus()
    if pos_weight is not None:
        decay = _weighted(op, decay, (pos_weight - 1) * y + 1)
    return _reduced(_weighted(op, (1 - y) * x + decay, weight), reduction)


def _weighted(op: str, losses: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return losses
    result = losses * weight
    if result.shape != losses.shape:
        raise ValueError(
            f"[{op}] expected a weight that broadcasts to {losses.shape}, got {weight.shape}. "
            "Reshape it."
        )
    return result


# Losses of labels -1 and +1


def _margins(op: str, input: Tensor, target: Tensor, reduction: str) -> Tensor:
    """Return y x, positive where the sign of the score is right, after checks."""
    x, y = _checked(op, input, target, reduction)
    labels = y.data

    def check() -> None:
        if not (abs(labels) == 1).all():
            wrong = labels[abs(labels) != 1][0]
            raise ValueError(
                f"[{op}] expected labels -1 and +1, got {wrong:g}. Convert labels 0 and 1 by "
                "2 * y - 1."
            )

    check_values(y, check)
    return x * y


def zero_one_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """1 where the decision is wrong, else 0; it has no gradient.

    Scores and labels -1, +1 of one shape: wrong where y x <= 0. Scores (N, C) and integer classes
    (N,): wrong where the first largest score is not the label's. Raises ValueError for other shapes.
    """
    op = "zero_one_loss"
    require_float(op, "input", input)
    require_tensor(op, "target", target)
    require_reduction(op, reduction)
    if input.ndim == 2 and target.ndim == 1:
        if input.shape[0] != target.shape[0] or target.dtype.kind not in "iu":
            raise ValueError(
                f"[{op}] expected one integer class for each of {input.shape[0]} rows, got "
                f"{target.dtype.name} {target.shape}. Check the target."
            )
        wrong = input.argmax(1) != target
    else:
        wrong = _margins(op, input.detach(), target, reduction) <= 0
    return _reduced(wrong.astype(input.dtype), reduction)


def hinge_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """max(0, 1 - y x) of scores x and labels y = -1 or +1.

    input, target: one shape. Raises ValueError where shapes differ or a label is another number.
    """
    return _reduced((1 - _margins("hinge_loss", input, target, reduction)).relu(), reduction)


def logistic_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """ln(1 + e^(-y x)) of scores x and labels y = -1 or +1.

    input, target: one shape. Raises ValueError where shapes differ or a label is another number.
    """
    return _reduced((-_margins("logistic_loss", input, target, reduction)).softplus(), reduction)


def exponential_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """e^(-y x) of scores x and labels y = -1 or +1 (AdaBoost's loss).

    input, target: one shape. Raises ValueError where shapes differ or a label is another number.
    """
    return _reduced((-_margins("exponential_loss", input, target, reduction)).exp(), reduction)
