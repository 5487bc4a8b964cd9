"""Softmax, its logarithm and cross-entropy, row by row; another axis is made the last one first."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba.jit import FAST_SUM, Parallel, helper, parallel
from trine.kernels.numba.maths import exp
from trine.kernels.registry import kernel

MEAN = 1
"""Position of "mean" among the reductions none, mean, sum."""
EXP_WORK = 8
"""Simple operations that an exponential counts for."""


@helper
def _largest(x: Array) -> Any:
    """Return the maximum; NaN if there is one."""
    result = x[0]
    for j in range(1, x.size):
        value = x[j]
        result = value if (value > result) | (value != value) else result  # noqa: PLR0124
        if result != result:  # noqa: PLR0124
            break
    return result


@helper(fastmath=FAST_SUM)
def _exp_sum(x: Array, largest: float, powers: Array) -> Any:
    """Fill powers with exp(x - largest) and return their sum."""
    for j in range(x.size):
        powers[j] = exp(x[j] - largest)
    result = x.dtype.type(0)
    for j in range(x.size):
        result += powers[j]
    return result


@helper
def log_softmax_row(x: Array, out: Array) -> None:
    """out_k = s_k - ln sum_j exp s_j with s = x - max x."""
    largest = _largest(x)
    log_sum = math.log(_exp_sum(x, largest, out))
    for j in range(x.size):
        out[j] = (x[j] - largest) - log_sum


@parallel()
def _softmax(x: Array, is_log: bool, out: Array) -> None:
    for row in prange(x.shape[0]):
        if is_log:
            log_softmax_row(x[row], out[row])
        else:
            scale = _exp_sum(x[row], _largest(x[row]), out[row])
            for j in range(x.shape[1]):
                out[row, j] /= scale


@helper(fastmath=FAST_SUM)
def _dot(a: Array, b: Array) -> Any:
    result = a.dtype.type(0)
    for j in range(a.size):
        result += a[j] * b[j]
    return result


@helper(fastmath=FAST_SUM)
def _sum(a: Array) -> Any:
    result = a.dtype.type(0)
    for j in range(a.size):
        result += a[j]
    return result


@parallel()
def _softmax_backward(grad_out: Array, out: Array, is_log: bool, grad_x: Array) -> None:
    for row in prange(out.shape[0]):
        if is_log:
            gathered = _sum(grad_out[row])
            for j in range(out.shape[1]):
                grad_x[row, j] = grad_out[row, j] - exp(out[row, j]) * gathered
        else:
            gathered = _dot(grad_out[row], out[row])
            for j in range(out.shape[1]):
                grad_x[row, j] = out[row, j] * (grad_out[row, j] - gathered)


def _rows(x: Array, axis: int) -> Array:
    """Return x with an axis last, as a matrix: a view where the axis is last already."""
    moved = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    return moved.reshape(moved.size // moved.shape[-1], moved.shape[-1])


def _along_axis(
    run: Parallel, arrays: tuple[Array, ...], axis: int, is_log: bool, out: Array
) -> None:
    """Run a kernel on rows along an axis."""
    if out.size == 0:
        return
    is_last = axis % out.ndim == out.ndim - 1
    target = (
        _rows(out, axis)
        if is_last
        else np.empty((out.size // out.shape[axis], out.shape[axis]), out.dtype)
    )
    run(out.size * EXP_WORK, *(_rows(array, axis) for array in arrays), is_log, target)
    if not is_last:
        moved = np.moveaxis(out, axis, -1)
        moved[...] = target.reshape(moved.shape)


@kernel("softmax", backend="numba", name="rows")
def softmax(x: Array, axis: int, out: Array) -> None:
    """out_k = exp(x_k - max x) / sum_j exp(x_j - max x) along an axis."""
    _along_axis(_softmax, (x,), axis, False, out)


@kernel("log_softmax", backend="numba", name="rows")
def log_softmax(x: Array, axis: int, out: Array) -> None:
    """The logarithm of softmax, without taking one of a small number."""
    _along_axis(_softmax, (x,), axis, True, out)


@kernel("softmax_backward", backend="numba", name="rows")
def softmax_backward(grad_out: Array, out: Array, axis: int, grad_x: Array) -> None:
    """grad_x_k = out_k (grad_out_k - sum_j grad_out_j out_j)."""
    _along_axis(_softmax_backward, (grad_out, out), axis, False, grad_x)


@kernel("log_softmax_backward", backend="numba", name="rows")
def log_softmax_backward(grad_out: Array, out: Array, axis: int, grad_x: Array) -> None:
    """grad_x_k = grad_out_k - exp(out_k) sum_j grad_out_j."""
    _along_axis(_softmax_backward, (grad_out, out), axis, True, grad_x)


@helper
def _row_weight(label: int, classes: int, weight: Array, one: float) -> Any:
    """Return the weight of a row's class; NaN for a label out of range."""
    if label < 0 or label >= classes:
        return one * np.nan
    return weight[label] if weight.size > 0 else one


@parallel()
def _cross_entropy(
    logits: Array,
    target: Array,
    weight: Array,
    ignore_index: int,
    smoothing: float,
    losses: Array,
    weights: Array,
    log_probs: Array,
) -> None:
    """Fill log_probs (M, C), and the loss and the weight of each row (M,)."""
    classes = logits.shape[1]
    one = logits.dtype.type(1)
    for row in prange(logits.shape[0]):
        log_softmax_row(logits[row], log_probs[row])
        label = target[row]
        losses[row] = 0
        weights[row] = 0
        if label != ignore_index:
            own = _row_weight(label, classes, weight, one)
            picked = log_probs[row, label if 0 <= label < classes else 0]
            loss = -(one - smoothing) * own * picked
            if smoothing != 0:
                spread = _dot(log_probs[row], weight) if weight.size > 0 else _sum(log_probs[row])
                loss -= smoothing / classes * spread
            losses[row] = loss
            weights[row] = own


def _or_empty(weight: Array | None, like: Array) -> Array:
    """Return an empty vector for None, so that Numba sees one type."""
    return np.empty(0, like.dtype) if weight is None else weight


@kernel("cross_entropy", backend="numba", name="rows")
def cross_entropy(
    logits: Array,
    target: Array,
    weight: Array | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: int,
    loss: Array,
    log_probs: Array,
) -> None:
    """loss_n = -(1 - s) w_y l_y - s/C sum_k w_k l_k with l = log_probs; none, mean or sum."""
    rows = target.size
    losses = loss if reduction == 0 else np.empty(rows, logits.dtype)
    weights = np.empty(rows, logits.dtype)
    _cross_entropy(
        logits.size * EXP_WORK,
        logits,
        target,
        _or_empty(weight, logits),
        ignore_index,
        logits.dtype.type(label_smoothing),
        losses,
        weights,
        log_probs,
    )
    if reduction != 0:
        with np.errstate(all="ignore"):  # no row left: 0 / 0
            total = losses.sum(dtype=np.float64)
            loss[...] = total / weights.sum(dtype=np.float64) if reduction == MEAN else total


@parallel()
def _cross_entropy_backward(
    row_grads: Array,
    log_probs: Array,
    target: Array,
    weight: Array,
    ignore_index: int,
    smoothing: float,
    weight_sum: float,
    grad_logits: Array,
) -> None:
    """grad_k = g (p_k sum_j q_j - q_k) with q_k = (1 - s) w_y [k = y] + s/C w_k."""
    classes = log_probs.shape[1]
    one = log_probs.dtype.type(1)
    share = smoothing / classes
    for row in prange(log_probs.shape[0]):
        grad = grad_logits[row]
        label = target[row]
        if label == ignore_index:
            grad[:] = 0
            continue
        own = (one - smoothing) * _row_weight(label, classes, weight, one)
        label = label if 0 <= label < classes else 0
        scale = row_grads[row % row_grads.size]
        q_sum = own + share * weight_sum
        for k in range(classes):
            q = share * weight[k] if weight.size > 0 else share
            q = q + own if k == label else q
            grad[k] = scale * (exp(log_probs[row, k]) * q_sum - q)


@kernel("cross_entropy_backward", backend="numba", name="rows")
def cross_entropy_backward(
    grad_out: Array,
    log_probs: Array,
    target: Array,
    weight: Array | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: int,
    grad_logits: Array,
) -> None:
    """Gradient of the cross-entropy by the logits; 0 in rows that are ignored."""
    if grad_logits.size == 0:
        return
    dtype = log_probs.dtype
    classes = log_probs.shape[1]
    row_grads = grad_out.reshape(grad_out.size)
    with np.errstate(all="ignore"):
        if reduction == MEAN:
            counted = target[target != ignore_index]
            valid = (counted >= 0) & (counted < classes)
            if not valid.all():
                denominator = math.nan
            elif weight is None:
                denominator = float(counted.size)
            else:
                denominator = float(weight[counted].sum(dtype=np.float64))
            row_grads = (row_grads / np.float64(denominator)).astype(dtype)
        weight_sum = classes if weight is None else weight.sum(dtype=np.float64)
    _cross_entropy_backward(
        log_probs.size * EXP_WORK,
        row_grads,
        log_probs,
        target,
        _or_empty(weight, log_probs),
        ignore_index,
        dtype.type(label_smoothing),
        dtype.type(weight_sum),
        grad_logits,
    )
