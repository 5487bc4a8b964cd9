"""Primitives on single elements, where a kernel gains at every size.

The logistic function takes NumPy six passes. What NumPy does in one (add, multiply, tanh) stays with
it: a launch costs more than a small array's whole call.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba.jit import parallel
from trine.kernels.numba.maths import activate
from trine.kernels.registry import kernel

CHUNK = 4096
"""Elements that a thread takes at a time."""
LOGISTIC, LOGISTIC_WORK = 2, 4
"""Position of the function among activations, and the simple operations that it counts for."""


@parallel()
def _activate(x: Array, activation: int, items: int, out: Array) -> None:
    for item in prange(items):
        a = np.int64(item) * CHUNK
        activate(x[a : a + CHUNK], x.dtype.type(0), activation, out[a : a + CHUNK])


@kernel("sigmoid", backend="numba", name="vectors")
def sigmoid(x: Array, out: Array) -> None:
    """out = 1 / (1 + e^-x)."""
    n = x.size
    _activate(LOGISTIC_WORK * n, x.reshape(n), LOGISTIC, -(-n // CHUNK), out.reshape(n))
