"""Cross-entropy of logits against class labels, in one launch each way.

Rows are shared out in parts; what a part adds up (losses, weights of rows) is joined in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numba.core import types
from numba.extending import intrinsic

from trine.dtypes import Array, float32, float64
from trine.kernels.numba.jit import helper, parallel
from trine.kernels.numba.simd import VECTOR_BYTES, Vectors, address
from trine.kernels.numba.softmax import EXP_WORK, PARTS, group_room, groups_of_rows, softmax_groups
from trine.kernels.numba.vector_loops import exp_low, over_run
from trine.kernels.registry import kernel

NONE, MEAN = 0, 1
"""Positions among the reductions none, mean, sum."""
NO_WEIGHTS = {dtype: np.empty(0, dtype) for dtype in (float32, float64)}
"""Stand for None, so that Numba sees one type."""


@helper
def _row_weight(label: int, classes: int, weight: Array) -> Any:
    """Return the weight of a class; NaN for a label out of range."""
    if label < 0 or label >= classes:
        return weight.dtype.type(np.nan)
    return weight[label] if weight.size > 0 else weight.dtype.type(1)


@helper
def _losses(
    log_probs: Array, target: Array, weight: Array, ignore_index: int, smoothing: float,
    first: int, last: int, each: bool, loss: Array, sums: Array,
) -> None:  # fmt: skip
    """Fill the losses of some rows, if `each`, and the sums of losses and of weights."""
    classes = log_probs.shape[1]
    dtype = log_probs.dtype.type
    keep, share = dtype(1 - smoothing), dtype(smoothing / classes)
    total, weights = 0.0, 0.0
    for row in range(first, last):
        label = target[row]
        value = dtype(0)
        if label != ignore_index:
            own = _row_weight(label, classes, weight)
            value = -keep * own * log_probs[row, label if 0 <= label < classes else 0]
            if smoothing != 0:
                spread = 0.0
                for k in range(classes):
                    spread += log_probs[row, k] * (weight[k] if weight.size > 0 else dtype(1))
                value -= share * dtype(spread)
            total += value
            weights += own
        if each:
            loss[row] = value
    sums[0], sums[1] = total, weights


@parallel()
def _cross_entropy(
    logits: Array, target: Array, weight: Array, ignore_index: int, smoothing: float,
    reduction: int, groups: int, parts: int, loss: Array, log_probs: Array,
) -> None:  # fmt: skip
    """Fill log_probs (M, C) and loss: (M,) or, reduced, (1,)."""
    rows, classes = logits.shape
    sums = np.empty((parts, 2))
    lanes = VECTOR_BYTES // logits.itemsize
    for item in prange(parts):
        part = np.int64(item)
        first, last = part * groups // parts, (part + 1) * groups // parts
        softmax_groups(
            logits.dtype.type(0), logits.itemsize, address(logits), rows, classes, 1, 1, first,
            last, np.empty(group_room(classes, 1, logits.itemsize), logits.dtype),
            address(log_probs),
        )  # fmt: skip
        _losses(
            log_probs, target, weight, ignore_index, smoothing, first * lanes,
            min(last * lanes, rows), reduction == NONE, loss, sums[part],
        )  # fmt: skip
    if reduction != NONE:
        total, weights = 0.0, 0.0
        for k in range(parts):
            total += sums[k, 0]
            weights += sums[k, 1]
        loss[0] = total / weights if reduction == MEAN else total


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
    groups = groups_of_rows(target.size, logits.itemsize)
    _cross_entropy(
        logits.size * EXP_WORK, logits, target, NO_WEIGHTS[logits.dtype] if weight is None else weight,
        ignore_index, label_smoothing, reduction, groups, min(groups, PARTS), loss.reshape(loss.size),
        log_probs,
    )  # fmt: skip


@intrinsic
def _exp_run(typingctx: Any, like: Any, x: Any, count: Any, out: Any) -> Any:
    """out = e^x for a run of elements."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(builder, signature.args[0])
        _, x, count, out = args
        over_run(
            v, count, [v.pointer(x)], [v.pointer(out)],
            lambda read, held, clean: ([exp_low(v, read[0])], []), unroll=1,
        )  # fmt: skip
        return context.get_dummy_value()

    return types.void(like, types.int64, types.int64, types.int64), emit


@helper
def _divisor(target: Array, weight: Array, ignore_index: int, classes: int, reduction: int) -> Any:
    """Return what the mean divides by: the sum of the weights of rows; 1 otherwise."""
    if reduction != MEAN:
        return 1.0
    weights = 0.0
    for row in range(target.size):
        if target[row] != ignore_index:
            weights += _row_weight(target[row], classes, weight)
    return weights


@helper
def _gradient_of_rows(
    row_grads: Array, log_probs: Array, target: Array, weight: Array, ignore_index: int,
    smoothing: float, divisor: float, first: int, last: int, grad_logits: Array,
) -> None:  # fmt: skip
    """grad_k = g (p_k sum_j q_j - q_k) with q_k = (1 - s) w_y [k = y] + s/C w_k."""
    dtype = log_probs.dtype.type
    classes = log_probs.shape[1]
    at = first * classes * log_probs.itemsize
    _exp_run(dtype(0), address(log_probs) + at, (last - first) * classes, address(grad_logits) + at)
    keep, share = dtype(1 - smoothing), dtype(smoothing / classes)
    weight_sum = np.float64(classes)
    if weight.size > 0:
        weight_sum = 0.0
        for k in range(classes):
            weight_sum += weight[k]
    shared = share * dtype(weight_sum)
    for row in range(first, last):
        grad = grad_logits[row]
        label = target[row]
        if label == ignore_index:
            grad[:] = 0
            continue
        own = keep * _row_weight(label, classes, weight)
        label = label if 0 <= label < classes else 0
        scale = dtype(row_grads[row % row_grads.size] / divisor)
        q_sum = own + shared if smoothing != 0 else own
        power = grad[label]
        q = own
        if smoothing == 0:
            for k in range(classes):
                grad[k] = scale * (grad[k] * q_sum)
        elif weight.size == 0:
            q += share
            for k in range(classes):
                grad[k] = scale * (grad[k] * q_sum - share)
        else:
            q += share * weight[label]
            for k in range(classes):
                grad[k] = scale * (grad[k] * q_sum - share * weight[k])
        grad[label] = scale * (power * q_sum - q)


@parallel()
def _cross_entropy_backward(
    row_grads: Array, log_probs: Array, target: Array, weight: Array, ignore_index: int,
    smoothing: float, reduction: int, parts: int, grad_logits: Array,
) -> None:  # fmt: skip
    rows, classes = log_probs.shape
    divisor = _divisor(target, weight, ignore_index, classes, reduction)
    for item in prange(parts):
        part = np.int64(item)
        _gradient_of_rows(
            row_grads, log_probs, target, weight, ignore_index, smoothing, divisor,
            part * rows // parts, (part + 1) * rows // parts, grad_logits,
        )  # fmt: skip


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
    _cross_entropy_backward(
        log_probs.size * EXP_WORK, grad_out.reshape(grad_out.size), log_probs, target,
        NO_WEIGHTS[log_probs.dtype] if weight is None else weight, ignore_index, label_smoothing,
        reduction, min(target.size, PARTS), grad_logits,
    )  # fmt: skip
