"""Losses of class scores: cross-entropy of logits, and of log-probabilities.

M counts the rows: the product of all axes of the scores but the class axis.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trine.autograd import apply, define
from trine.backends import Backend
from trine.dtypes import Array, is_float
from trine.functional.checks import (
    check_values,
    require_float,
    require_like,
    require_reduction,
    require_tensor,
)
from trine.functional.softmax import log_softmax, log_softmax_composed
from trine.joining import where
from trine.tensor import Tensor

Saved = tuple[Any, ...]


def _cross_entropy(
    be: Backend, logits: Array, target: Array, weight: Array | None, **attrs: Any
) -> tuple[Array, Saved]:
    loss, log_probs = be.cross_entropy(logits, target, weight, **attrs)
    return loss, (log_probs, target, weight)


def _cross_entropy_backward(
    be: Backend, saved: Saved, grads: Saved, needs: Saved, **attrs: Any
) -> Saved:
    return be.cross_entropy_backward(grads[0], *saved, **attrs), None, None


def _cross_entropy_composed(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    *,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
) -> Tensor:
    log_probs = log_softmax_composed(logits, axis=1)
    counts = target != ignore_index
    losses, row_weight = _picked_losses(log_probs, target, weight, counts)
    if label_smoothing:
        spread = (log_probs if weight is None else log_probs * weight).sum(1)
        smooth = where(counts, spread * (-label_smoothing / logits.shape[1]), 0.0)
        losses = losses * (1 - label_smoothing) + smooth
    return _reduce_weighted(losses, row_weight, reduction)


def _picked_losses(
    log_probs: Tensor, target: Tensor, weight: Tensor | None, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """Return -w_y l_y of each row and w_y, both 0 for rows that do not count."""
    be = log_probs.backend
    hot = be.one_hot(target.data, num_classes=log_probs.shape[1], dtype=log_probs.dtype)
    is_label = Tensor._wrap(hot, be)
    all_weights = is_label if weight is None else is_label * weight
    row_weight = where(counts, all_weights.sum(1), 0.0)
    picked = where(is_label, log_probs, 0.0).sum(1)  # not a product: -inf * 0 is NaN
    return where(counts, -row_weight * picked, 0.0), row_weight


def _reduce_weighted(losses: Tensor, row_weight: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    total = losses.sum()
    return total if reduction == "sum" else total / row_weight.sum()


CROSS_ENTROPY = define(
    "cross_entropy",
    _cross_entropy,
    _cross_entropy_backward,
    keeps=(1, 2),
    composed=_cross_entropy_composed,
)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy between logits and classes: softmax and negative log-likelihood in one.

    loss_n = -(1 - s) w_y l_y - s/C sum_k w_k l_k with the label y, l = log_softmax(input), the class
    weights w and s = label_smoothing. "mean" divides the sum by sum_n w_y(n), so that with every row
    ignored it is NaN, as in PyTorch. input: (C,), (N, C) or (N, C, d1, ...); target: integers of
    the same shape without C, or probabilities (floats) of the input's shape, for which "mean"
    divides by the number of rows. weight: (C,).

    Raises ValueError for shapes that do not match and for labels out of range (on a GPU these give
    NaN instead, since reading them would wait for the device), TypeError for a wrong dtype.
    """
    op = "cross_entropy"
    _check_scores(op, input, target, weight, reduction)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(
            f"[{op}] expected label_smoothing from 0 to 1, got {label_smoothing}. Use e.g. 0.1."
        )
    if is_float(target.dtype):
        return _soft_cross_entropy(input, target, weight, reduction, label_smoothing)
    _check_labels(op, input, target, ignore_index)
    rows, labels = _as_rows(input), target.reshape(target.numel()).long()
    loss: Tensor = apply(
        CROSS_ENTROPY,
        rows,
        labels,
        weight,
        ignore_index=ignore_index,
        label_smoothing=float(label_smoothing),
        reduction=reduction,
    )
    return loss.reshape(target.shape) if reduction == "none" else loss


def _soft_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, label_smoothing: float
) -> Tensor:
    """-sum_k w_k q_k l_k with q = (1 - s) target + s/C."""
    require_like("cross_entropy", "target", target, input.shape, input)
    axis = _class_axis(input)
    classes = input.shape[axis]
    q = target * (1 - label_smoothing) + label_smoothing / classes if label_smoothing else target
    if weight is not None:
        q = q * weight.reshape((classes,) + (1,) * (input.ndim - 1 - axis))
    # Where q = 0 a logit of -inf is no loss, though 0 * -inf would be NaN.
    losses = where(q == 0, 0.0, -q * log_softmax(input, axis)).sum(axis)
    if reduction == "none":
        return losses
    rows = losses.numel()
    return losses.sum() / (rows if rows else math.nan) if reduction == "mean" else losses.sum()


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-likelihood of classes under log-probabilities: loss_n = -w_y input_y.

    Shapes, reductions and errors are those of `cross_entropy` with integer targets.
    """
    op = "nll_loss"
    _check_scores(op, input, target, weight, reduction)
    _check_labels(op, input, target, ignore_index)
    labels = target.reshape(target.numel()).long()
    losses, row_weight = _picked_losses(_as_rows(input), labels, weight, labels != ignore_index)
    loss = _reduce_weighted(losses, row_weight, reduction)
    return loss.reshape(target.shape) if reduction == "none" else loss


def _class_axis(input: Tensor) -> int:
    return 0 if input.ndim == 1 else 1


def _as_rows(input: Tensor) -> Tensor:
    """Return scores (C,), (N, C) or (N, C, d1, ...) as (M, C)."""
    if input.ndim == 1:
        return input.reshape(1, input.shape[0])
    if input.ndim == 2:
        return input
    classes = input.shape[1]
    rows = input.permute(0, *range(2, input.ndim), 1)
    return rows.reshape(math.prod(rows.shape[:-1]), classes)


def _check_scores(
    op: str, input: Tensor, target: Tensor, weight: Tensor | None, reduction: str
) -> None:
    require_float(op, "input", input)
    require_tensor(op, "target", target)
    require_reduction(op, reduction)
    if input.ndim == 0 or input.shape[_class_axis(input)] == 0:
        raise ValueError(
            f"[{op}] expected input of shape (C,), (N, C) or (N, C, d1, ...) with C >= 1 classes, got "
            f"{input.shape}. Pass one score for each class."
        )
    if weight is not None:
        require_like(op, "weight", weight, (input.shape[_class_axis(input)],), input)


def _check_labels(op: str, input: Tensor, target: Tensor, ignore_index: int) -> None:
    if target.dtype.kind not in "iu":
        raise TypeError(
            f"[{op}] expected target of integers, got {target.dtype.name}. Convert class labels with "
            "target.long()."
        )
    axis = _class_axis(input)
    shape = input.shape[:axis] + input.shape[axis + 1 :]
    if target.shape != shape:
        raise ValueError(
            f"[{op}] expected target of shape {shape} to match input {input.shape}, got "
            f"{target.shape}. Pass one label for each row of scores."
        )
    labels, classes = target.data, input.shape[axis]

    def check() -> None:
        as_unsigned = labels.view(f"u{labels.itemsize}")  # negative labels are large ones: one pass
        if as_unsigned.max() < classes:
            return
        wrong = ((labels < 0) | (labels >= classes)) & (labels != ignore_index)
        if wrong.any():
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                f"[{op}] expected labels from 0 to {classes - 1}, or {ignore_index} for rows to "
                f"ignore, got {int(labels[place])} at {place}. Check the labels and the number of "
                "outputs."
            )

    check_values(target, check)
