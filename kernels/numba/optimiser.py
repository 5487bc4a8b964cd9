"""Optimiser steps in place, in parts of a fixed size.

The same operations in the same order and precision as the reference: numbers that change from step
to step are combined in float64 and rounded once, and nothing is fused, so the results are equal to
the reference's bit for bit. A scale that is not finite changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba.jit import FAST_SUM, helper, parallel
from trine.kernels.numba.spread import each, inner, spread
from trine.kernels.registry import kernel

CHUNK = 4096
"""Elements of one part, which is also the part whose squares are summed together."""


ONE_STEP = np.ones(1, np.int64)


def _or_empty(array: Array | None, like: Array) -> Array:
    """Return an empty vector for None, so that Numba sees one type."""
    return np.empty(0, like.dtype) if array is None else array


@inner
def _sgd_chunk(
    item: int,
    params: Array,
    grads: Array,
    buffers: Array,
    lrs: Array,
    steps: Array,
    scales: Array,
    momentum: float,
    keep: float,
    nesterov: bool,
    decay: float,
) -> None:
    if not np.isfinite(scales[0]):
        return
    a, b = item * CHUNK, (item + 1) * CHUNK
    param, grad, buffer = params[a:b], grads[a:b], buffers[a:b]
    lr, scale, is_first = param.dtype.type(lrs[0]), param.dtype.type(scales[0]), steps[0] == 1
    n = param.size
    if buffer.size == 0:
        for i in range(n):
            g = grad[i] * scale
            g = g + decay * param[i] if decay != 0 else g
            param[i] -= lr * g
    else:
        for i in range(n):
            g = grad[i] * scale
            g = g + decay * param[i] if decay != 0 else g
            b = g if is_first else momentum * buffer[i] + keep * g
            buffer[i] = b
            param[i] -= lr * (g + momentum * b if nesterov else b)


@spread()
def _sgd(pool: int, threads: int, items: int, *args: Any) -> None:
    each(_sgd_chunk, pool, threads, items, args)


@kernel("sgd_step", backend="numba", name="chunks")
def sgd_step(
    param: Array,
    grad: Array,
    momentum_buffer: Array | None,
    lr: Array,
    step: Array,
    scale: Array,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """g += wd p;  b = momentum b + (1 - dampening) g (g at step 1);  p -= lr (g, b or g + m b)."""
    dtype = param.dtype.type
    _sgd(
        param.size,
        -(-param.size // CHUNK),
        param,
        grad,
        _or_empty(momentum_buffer, param),
        lr,
        step,
        scale,
        dtype(momentum),
        dtype(1 - dampening),
        nesterov,
        dtype(weight_decay),
    )


@inner
def _adam_chunk(
    item: int,
    params: Array,
    grads: Array,
    means: Array,
    squares: Array,
    step_size: float,
    unbias: float,
    scale: float,
    rest1: float,
    beta2: float,
    rest2: float,
    eps: float,
    decay: float,
    shrink: float,
) -> None:
    a, b = item * CHUNK, (item + 1) * CHUNK
    param, grad, mean, square = params[a:b], grads[a:b], means[a:b], squares[a:b]
    for i in range(param.size):
        p = param[i]
        g = grad[i] * scale
        g = g + decay * p if decay != 0 else g
        p = p * shrink
        m = mean[i] + rest1 * (g - mean[i])
        v = beta2 * square[i] + rest2 * g * g
        mean[i] = m
        square[i] = v
        param[i] = p - step_size * (m / (np.sqrt(v) * unbias + eps))


@spread()
def _adam(pool: int, threads: int, items: int, *args: Any) -> None:
    each(_adam_chunk, pool, threads, items, args)


@kernel("adam_step", backend="numba", name="chunks", replayable=False)
def adam_step(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    lr: Array,
    step: Array,
    scale: Array,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None:
    """m += (1 - b1)(g - m);  v = b2 v + (1 - b2) g^2;  p -= lr / (1 - b1^t) m / (r sqrt(v) + eps)."""
    if not np.isfinite(scale[0]):
        return
    dtype = param.dtype.type
    t = step.astype(np.float64)
    shrink = (1 - lr * weight_decay)[0] if decoupled else 1.0
    _adam(
        4 * param.size,
        -(-param.size // CHUNK),
        param,
        grad,
        exp_avg,
        exp_avg_sq,
        dtype((lr / (1 - beta1**t))[0]),
        dtype((1 / np.sqrt(1 - beta2**t))[0]),
        dtype(scale[0]),
        dtype(1 - beta1),
        dtype(beta2),
        dtype(1 - beta2),
        dtype(eps),
        dtype(0 if decoupled else weight_decay),
        dtype(shrink),
    )


@helper
def _rmsprop_chunk(
    param: Array,
    grad: Array,
    square: Array,
    buffer: Array,
    mean: Array,
    lr: float,
    scale: float,
    alpha: float,
    rest: float,
    eps: float,
    momentum: float,
    decay: float,
) -> None:
    zero = param.dtype.type(0)
    for i in range(param.size):
        g = grad[i] * scale
        g = g + decay * param[i] if decay != 0 else g
        v = alpha * square[i] + rest * g * g
        square[i] = v
        if mean.size > 0:
            a = mean[i] + rest * (g - mean[i])
            mean[i] = a
            v = v - a * a
            v = zero if v < zero else v  # NaN stays
        update = g / (np.sqrt(v) + eps)
        if buffer.size > 0:
            update = momentum * buffer[i] + update
            buffer[i] = update
        param[i] -= lr * update


@parallel()
def _rmsprop(
    param: Array,
    grad: Array,
    square: Array,
    buffer: Array,
    mean: Array,
    lr: float,
    scale: float,
    alpha: float,
    rest: float,
    eps: float,
    momentum: float,
    decay: float,
) -> None:
    for part in prange((param.size + CHUNK - 1) // CHUNK):
        chunk = np.int64(part)
        a, b = chunk * CHUNK, (chunk + 1) * CHUNK
        _rmsprop_chunk(
            param[a:b],
            grad[a:b],
            square[a:b],
            buffer[a:b],
            mean[a:b],
            lr,
            scale,
            alpha,
            rest,
            eps,
            momentum,
            decay,
        )


@kernel("rmsprop_step", backend="numba", name="chunks", replayable=False)
def rmsprop_step(
    param: Array,
    grad: Array,
    square_avg: Array,
    momentum_buffer: Array | None,
    grad_avg: Array | None,
    lr: Array,
    scale: Array,
    alpha: float,
    eps: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """v = alpha v + (1 - alpha) g^2;  b = momentum b + g / (sqrt(v) + eps);  p -= lr b."""
    if not np.isfinite(scale[0]):
        return
    dtype = param.dtype.type
    _rmsprop(
        4 * param.size,
        param,
        grad,
        square_avg,
        _or_empty(momentum_buffer, param),
        _or_empty(grad_avg, param),
        dtype(lr[0]),
        dtype(scale[0]),
        dtype(alpha),
        dtype(1 - alpha),
        dtype(eps),
        dtype(momentum),
        dtype(weight_decay),
    )


@parallel()
def _adagrad(
    param: Array,
    grad: Array,
    state_sum: Array,
    rate: float,
    scale: float,
    eps: float,
    decay: float,
) -> None:
    for part in prange((param.size + CHUNK - 1) // CHUNK):
        chunk = np.int64(part)
        a, b = chunk * CHUNK, (chunk + 1) * CHUNK
        p, d, s = param[a:b], grad[a:b], state_sum[a:b]
        for i in range(p.size):
            g = d[i] * scale
            g = g + decay * p[i] if decay != 0 else g
            s[i] += g * g
            p[i] -= rate * (g / (np.sqrt(s[i]) + eps))


@kernel("adagrad_step", backend="numba", name="chunks", replayable=False)
def adagrad_step(
    param: Array,
    grad: Array,
    state_sum: Array,
    lr: Array,
    step: Array,
    scale: Array,
    lr_decay: float,
    eps: float,
    weight_decay: float,
) -> None:
    """s += g^2;  p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)."""
    if not np.isfinite(scale[0]):
        return
    dtype = param.dtype.type
    _adagrad(
        4 * param.size,
        param,
        grad,
        state_sum,
        dtype((lr / (1 + (step - 1) * lr_decay))[0]),
        dtype(scale[0]),
        dtype(eps),
        dtype(weight_decay),
    )


@kernel("unit_step", backend="numba", name="chunks", replayable=False)
def unit_step(param: Array, grad: Array, norm: Array, lr: Array, scale: Array) -> None:
    """p -= lr grad / norm; no step where the norm is 0 or a number is not finite."""
    if not (np.isfinite(scale[0]) and np.isfinite(norm[0]) and norm[0] > 0):
        return
    zero = param.dtype.type(0)
    none, one = np.empty(0, param.dtype), np.ones(1)
    items = -(-param.size // CHUNK)
    _sgd(
        param.size, items, param, grad, none, lr / norm, ONE_STEP, one, zero, zero, False, zero
    )  # fmt: skip


@helper(fastmath=FAST_SUM)
def _squares(x: Array) -> float:
    result = 0.0
    for i in range(x.size):
        value = np.float64(x[i])
        result += value * value
    return result


@parallel()
def _sum_squares(x: Array, sums: Array) -> None:
    for part in prange(sums.size):
        chunk = np.int64(part)
        sums[chunk] = _squares(x[chunk * CHUNK : (chunk + 1) * CHUNK])


@kernel("sum_squares", backend="numba", name="chunks", replayable=False)
def sum_squares(x: Array, out: Array) -> None:
    """out[0] = sum of x^2 in float64, by chunks of 4096 elements whose sums are added in order."""
    sums = np.empty(-(-x.size // CHUNK))
    _sum_squares(x.size, x, sums)
    out[0] = sums.sum()
