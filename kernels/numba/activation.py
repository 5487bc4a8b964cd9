"""Bias and activation, and their gradient with the sum over examples that the bias needs."""

from __future__ import annotations

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba.jit import FAST_SUM, helper, parallel
from trine.kernels.numba.maths import activate, activate_backward
from trine.kernels.registry import kernel

CHUNKS = 16
"""Parts whose sums are added in order, whatever the number of threads."""


def _volume(x: Array) -> Array:
    """Return (N, C, ...) as (N, C, L)."""
    length = 1
    for size in x.shape[2:]:
        length *= size
    return x.reshape(x.shape[0], x.shape[1], length)


@parallel()
def _bias_act(x: Array, bias: Array, activation: int, out: Array) -> None:
    """out (N, C, L) = act(x + bias); where L is 1 rows of C are the vectors."""
    n, channels, length = x.shape
    zero = x.dtype.type(0)
    items = n if length == 1 else n * channels
    for item in prange(items):
        if length == 1:
            shifted = np.empty(channels, x.dtype)
            for c in range(channels):
                shifted[c] = x[item, c, 0] + bias[c]
            activate(shifted, zero, activation, out[item].reshape(channels))
        else:
            image, c = divmod(np.int64(item), channels)
            activate(x[image, c], bias[c], activation, out[image, c])


@kernel("bias_act", backend="numba", name="vectors")
def bias_act(x: Array, bias: Array | None, activation: int, out: Array) -> None:
    """out[n, c, ...] = act(x[n, c, ...] + bias[c])."""
    added = np.zeros(x.shape[1], x.dtype) if bias is None else bias
    _bias_act(x.size * (4 if activation > 1 else 1), _volume(x), added, activation, _volume(out))


@helper(fastmath=FAST_SUM)
def total(x: Array) -> float:
    """Return the sum of a vector in float64."""
    result = 0.0
    for j in range(x.size):
        result += np.float64(x[j])
    return result


@parallel()
def _bias_act_backward(
    grad_out: Array, out: Array, activation: int, grad_x: Array, sums: Array
) -> None:
    """Fill grad_x (N, C, L) and the sums (chunks, C) over examples and positions."""
    n, channels, length = out.shape
    chunks = sums.shape[0]
    items = chunks if length == 1 else chunks * channels
    for item in prange(items):
        chunk, c = (np.int64(item), 0) if length == 1 else divmod(np.int64(item), channels)
        own = sums[chunk]
        if length == 1:
            own[:] = 0.0
        else:
            own[c] = 0.0
        for image in range(chunk * n // chunks, (chunk + 1) * n // chunks):
            if length == 1:
                row = grad_x[image].reshape(channels)
                errors, results = grad_out[image].reshape(channels), out[image].reshape(channels)
            else:
                row = grad_x[image, c]
                errors, results = grad_out[image, c], out[image, c]
            activate_backward(errors, results, activation, row)
            if length == 1:
                for k in range(channels):
                    own[k] += row[k]
            else:
                own[c] += total(row)


@kernel("bias_act_backward", backend="numba", name="vectors")
def bias_act_backward(
    grad_out: Array, out: Array, activation: int, grad_x: Array, grad_bias: Array
) -> None:
    """grad_x = grad_out act'(z), from out = act(z); grad_bias = its sum over all but axis 1."""
    sums = np.empty((max(1, min(CHUNKS, out.shape[0])), out.shape[1]))
    _bias_act_backward(out.size, _volume(grad_out), _volume(out), activation, _volume(grad_x), sums)
    grad_bias[...] = sums.sum(axis=0)
