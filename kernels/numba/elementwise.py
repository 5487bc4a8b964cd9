"""Activations by themselves and their gradients, one pass each.

Other primitives on single elements (add, multiply, compare) stay with NumPy, which does each in one
pass too: a launch costs more than a small array's whole call.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba.jit import parallel
from trine.kernels.numba.maths import activate, activate_backward
from trine.kernels.registry import kernel

CHUNK = 4096
"""Elements that a thread takes at a time."""
RELU, LOGISTIC, TANH = 1, 2, 3
"""Positions of the functions among activations."""
WORK = (1, 1, 4, 4)
"""Simple operations that each activation counts for."""


@parallel()
def _activate(x: Array, activation: int, items: int, out: Array) -> None:
    for item in prange(items):
        a = np.int64(item) * CHUNK
        activate(x[a : a + CHUNK], x.dtype.type(0), activation, out[a : a + CHUNK])


@parallel()
def _activate_backward(
    grad_out: Array, out: Array, activation: int, items: int, grad_x: Array
) -> None:
    for item in prange(items):
        a = np.int64(item) * CHUNK
        b = a + CHUNK
        activate_backward(grad_out[a:b], out[a:b], activation, grad_x[a:b])


def act(activation: int, x: Array, out: Array) -> None:
    """out = act(x); activation: its position among activations."""
    n = x.size
    _activate(WORK[activation] * n, x.reshape(n), activation, -(-n // CHUNK), out.reshape(n))


@kernel("relu", backend="numba", name="vectors")
def relu(x: Array, out: Array) -> None:
    """out = max(x, 0)."""
    act(RELU, x, out)


@kernel("sigmoid", backend="numba", name="vectors")
def sigmoid(x: Array, out: Array) -> None:
    """out = 1 / (1 + e^-x)."""
    act(LOGISTIC, x, out)


@kernel("tanh", backend="numba", name="vectors")
def tanh(x: Array, out: Array) -> None:
    """out = tanh x."""
    act(TANH, x, out)


@kernel("act_backward", backend="numba", name="vectors")
def act_backward(grad_out: Array, out: Array, activation: int, grad_x: Array) -> None:
    """grad_x = grad_out act'(z), from out = act(z)."""
    n = out.size
    _activate_backward(
        n, grad_out.reshape(n), out.reshape(n), activation, -(-n // CHUNK), grad_x.reshape(n)
    )
