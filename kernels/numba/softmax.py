"""Softmax, its logarithm and cross-entropy: rows one by one, another axis in blocks of columns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba.jit import FAST, FAST_SUM, Parallel, helper, parallel
from trine.kernels.numba.maths import exp_low
from trine.kernels.numba.moments import minus
from trine.kernels.registry import kernel

MEAN = 1
"""Position of "mean" among the reductions none, mean, sum."""
EXP_WORK = 8
"""Simple operations that an exponential counts for."""
PARTS = 64
"""Parts of the rows, whose loops stand in one function each."""
BLOCK, NARROW, WIDE = 32768, 32, 1024
"""Elements of a block of columns, which should stay in the cache; its fewest and most columns."""


@helper
def _largest(x: Array) -> Any:
    """Return the maximum of the elements that are not NaN; of a row of NaN any of them.

    A row with NaN needs no maximum: its sum of powers is NaN. Single precision is compared as
    whole numbers in the order of the floats, since only their maximum can be taken by vectors.
    """
    if x.itemsize == 8:
        result = x[0]
        for j in range(1, x.size):
            result = x[j] if x[j] > result else result
        return result
    keys = x.view(np.int32)
    best = np.int32(-(2**31))
    for j in range(x.size):
        key = np.int32(keys[j] ^ ((keys[j] >> np.int32(31)) & np.int32(0x7FFFFFFF)))
        best = key if key > best else best
    best = np.int32(best ^ ((best >> np.int32(31)) & np.int32(0x7FFFFFFF)))
    return x.dtype.type(best.view(np.float32))


@helper(fastmath=FAST_SUM)
def _softmax_rows(x: Array, is_log: bool, first: int, last: int, out: Array) -> None:
    """out_k = s_k - ln sum_j exp s_j with s = x - max x; its exponential if not is_log."""
    for row in range(first, last):
        largest = _largest(x[row])
        total = x.dtype.type(0)
        if is_log:
            for j in range(x.shape[1]):
                total += exp_low(minus(x[row, j], largest))
            log_sum = x.dtype.type(math.log(total))
            for j in range(x.shape[1]):
                out[row, j] = minus(minus(x[row, j], largest), log_sum)
        else:
            for j in range(x.shape[1]):
                power = exp_low(minus(x[row, j], largest))
                out[row, j] = power
                total += power
            for j in range(x.shape[1]):
                out[row, j] /= total


@helper
def _part(item: int, rows: int, parts: int) -> Any:
    """Return the first and last row of a part."""
    return np.int64(item) * rows // parts, (np.int64(item) + 1) * rows // parts


@parallel()
def _softmax(x: Array, is_log: bool, parts: int, out: Array) -> None:
    """Softmax along the rows of a matrix."""
    for item in prange(parts):
        first, last = _part(item, x.shape[0], parts)
        _softmax_rows(x, is_log, first, last, out)


# Columns are taken by rows of a block, in loops over vectors alone, which the compiler vectorises.


@helper(fastmath=FAST)
def _raise_largest(x: Array, largest: Array) -> None:
    for j in range(x.size):
        largest[j] = x[j] if x[j] > largest[j] else largest[j]


@helper(fastmath=FAST)
def _add_powers(x: Array, largest: Array, total: Array) -> None:
    for j in range(x.size):
        total[j] += exp_low(x[j] - largest[j])


@helper(fastmath=FAST)
def _shift_down(x: Array, largest: Array, log_sum: Array, out: Array) -> None:
    for j in range(x.size):
        out[j] = (x[j] - largest[j]) - log_sum[j]


@helper(fastmath=FAST)
def _fill_powers(x: Array, largest: Array, total: Array, out: Array) -> None:
    for j in range(x.size):
        power = exp_low(x[j] - largest[j])
        out[j] = power
        total[j] += power


@helper(fastmath=FAST)
def _divide(out: Array, total: Array) -> None:
    for j in range(out.size):
        out[j] /= total[j]


@helper
def _softmax_block(x: Array, is_log: bool, low: int, high: int, out: Array) -> None:
    """Softmax down the columns low to high of a matrix."""
    classes = x.shape[0]
    largest = x[0, low:high].copy()
    total = np.zeros(high - low, x.dtype)
    for k in range(1, classes):
        _raise_largest(x[k, low:high], largest)
    if is_log:
        for k in range(classes):
            _add_powers(x[k, low:high], largest, total)
        for j in range(total.size):
            total[j] = math.log(total[j])
        for k in range(classes):
            _shift_down(x[k, low:high], largest, total, out[k, low:high])
    else:
        for k in range(classes):
            _fill_powers(x[k, low:high], largest, total, out[k, low:high])
        for k in range(classes):
            _divide(out[k, low:high], total)


@parallel()
def _softmax_columns(x: Array, is_log: bool, width: int, out: Array) -> None:
    """Softmax along the middle axis of x (outer, classes, inner), in blocks of columns."""
    blocks = (x.shape[2] + width - 1) // width
    items = x.shape[0] * blocks
    for item in prange(items):
        image, block = divmod(np.int64(item), blocks)
        high = min((block + 1) * width, x.shape[2])
        _softmax_block(x[image], is_log, block * width, high, out[image])


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


@helper(fastmath=FAST_SUM)
def _backward_rows(
    grad_out: Array, out: Array, is_log: bool, first: int, last: int, grad_x: Array
) -> None:
    for row in range(first, last):
        gathered = out.dtype.type(0)
        if is_log:
            for j in range(out.shape[1]):
                gathered += grad_out[row, j]
            for j in range(out.shape[1]):
                grad_x[row, j] = grad_out[row, j] - exp_low(out[row, j]) * gathered
        else:
            for j in range(out.shape[1]):
                gathered += grad_out[row, j] * out[row, j]
            for j in range(out.shape[1]):
                grad_x[row, j] = out[row, j] * (grad_out[row, j] - gathered)


@parallel()
def _softmax_backward(grad_out: Array, out: Array, is_log: bool, parts: int, grad_x: Array) -> None:
    for item in prange(parts):
        first, last = _part(item, out.shape[0], parts)
        _backward_rows(grad_out, out, is_log, first, last, grad_x)


@helper(fastmath=FAST)
def _add(grad_out: Array, gathered: Array) -> None:
    for j in range(gathered.size):
        gathered[j] += grad_out[j]


@helper(fastmath=FAST)
def _add_product(grad_out: Array, out: Array, gathered: Array) -> None:
    for j in range(gathered.size):
        gathered[j] += grad_out[j] * out[j]


@helper(fastmath=FAST)
def _log_gradient(grad_out: Array, out: Array, gathered: Array, grad_x: Array) -> None:
    for j in range(gathered.size):
        grad_x[j] = grad_out[j] - exp_low(out[j]) * gathered[j]


@helper(fastmath=FAST)
def _gradient(grad_out: Array, out: Array, gathered: Array, grad_x: Array) -> None:
    for j in range(gathered.size):
        grad_x[j] = out[j] * (grad_out[j] - gathered[j])


@helper
def _backward_block(
    grad_out: Array, out: Array, is_log: bool, low: int, high: int, grad_x: Array
) -> None:
    gathered = np.zeros(high - low, out.dtype)
    for k in range(out.shape[0]):
        if is_log:
            _add(grad_out[k, low:high], gathered)
        else:
            _add_product(grad_out[k, low:high], out[k, low:high], gathered)
    for k in range(out.shape[0]):
        errors, results, target = grad_out[k, low:high], out[k, low:high], grad_x[k, low:high]
        if is_log:
            _log_gradient(errors, results, gathered, target)
        else:
            _gradient(errors, results, gathered, target)


@parallel()
def _backward_columns(grad_out: Array, out: Array, is_log: bool, width: int, grad_x: Array) -> None:
    blocks = (out.shape[2] + width - 1) // width
    items = out.shape[0] * blocks
    for item in prange(items):
        image, block = divmod(np.int64(item), blocks)
        high = min((block + 1) * width, out.shape[2])
        _backward_block(grad_out[image], out[image], is_log, block * width, high, grad_x[image])


def _along_axis(
    rows: Parallel,
    columns: Parallel,
    arrays: tuple[Array, ...],
    axis: int,
    is_log: bool,
    out: Array,
) -> None:
    """Run a kernel on rows where the axis is the last, else on columns."""
    if out.size == 0:
        return
    axis %= out.ndim
    classes = out.shape[axis]
    inner = math.prod(out.shape[axis + 1 :])
    work = out.size * EXP_WORK
    if inner == 1:
        shape: tuple[int, ...] = (out.size // classes, classes)
        parts = min(shape[0], PARTS)
        rows(work, *(a.reshape(shape) for a in arrays), is_log, parts, out.reshape(shape))
    else:
        shape = (out.size // classes // inner, classes, inner)
        width = min(max(BLOCK // classes, NARROW), WIDE)
        columns(work, *(a.reshape(shape) for a in arrays), is_log, width, out.reshape(shape))


@kernel("softmax", backend="numba", name="rows")
def softmax(x: Array, axis: int, out: Array) -> None:
    """out_k = exp(x_k - max x) / sum_j exp(x_j - max x) along an axis."""
    _along_axis(_softmax, _softmax_columns, (x,), axis, False, out)


@kernel("log_softmax", backend="numba", name="rows")
def log_softmax(x: Array, axis: int, out: Array) -> None:
    """The logarithm of softmax, without taking one of a small number."""
    _along_axis(_softmax, _softmax_columns, (x,), axis, True, out)


@kernel("softmax_backward", backend="numba", name="rows")
def softmax_backward(grad_out: Array, out: Array, axis: int, grad_x: Array) -> None:
    """grad_x_k = out_k (grad_out_k - sum_j grad_out_j out_j)."""
    _along_axis(_softmax_backward, _backward_columns, (grad_out, out), axis, False, grad_x)


@kernel("log_softmax_backward", backend="numba", name="rows")
def log_softmax_backward(grad_out: Array, out: Array, axis: int, grad_x: Array) -> None:
    """grad_x_k = grad_out_k - exp(out_k) sum_j grad_out_j."""
    _along_axis(_softmax_backward, _backward_columns, (grad_out, out), axis, True, grad_x)


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
    parts: int,
    losses: Array,
    weights: Array,
    log_probs: Array,
) -> None:
    """Fill log_probs (M, C), and the loss and the weight of each row (M,)."""
    classes = logits.shape[1]
    one = logits.dtype.type(1)
    for item in prange(parts):
        first, last = _part(item, logits.shape[0], parts)
        _softmax_rows(logits, True, first, last, log_probs)
        for row in range(first, last):
            label = target[row]
            losses[row] = 0
            weights[row] = 0
            if label != ignore_index:
                own = _row_weight(label, classes, weight, one)
                picked = log_probs[row, label if 0 <= label < classes else 0]
                loss = -(one - smoothing) * own * picked
                if smoothing != 0:
                    row_of = log_probs[row]
                    spread = _dot(row_of, weight) if weight.size > 0 else _sum(row_of)
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
        min(rows, PARTS),
        losses,
        weights,
        log_probs,
    )
    if reduction != 0:
        with np.errstate(all="ignore"):  # no row left: 0 / 0
            total = losses.sum(dtype=np.float64)
            loss[...] = total / weights.sum(dtype=np.float64) if reduction == MEAN else total


@helper(fastmath=FAST)
def _cross_entropy_row(
    log_probs: Array, weight: Array, scale: float, share: float, q_sum: float, grad: Array
) -> None:
    """grad_k = scale (p_k q_sum - share w_k), all but what the label adds."""
    if share == 0:
        for k in range(grad.size):
            grad[k] = scale * (exp_low(log_probs[k]) * q_sum)
    elif weight.size == 0:
        for k in range(grad.size):
            grad[k] = scale * (exp_low(log_probs[k]) * q_sum - share)
    else:
        for k in range(grad.size):
            grad[k] = scale * (exp_low(log_probs[k]) * q_sum - share * weight[k])


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
        _cross_entropy_row(log_probs[row], weight, scale, share, q_sum, grad)
        q = own + (share * weight[label] if weight.size > 0 else share)
        grad[label] = scale * (exp_low(log_probs[row, label]) * q_sum - q)


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
