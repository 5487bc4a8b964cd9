"""The arithmetic of gates on the vectors of one sequence.

Short loops over few arrays each, which LLVM can tell apart at run time and so vectorises.
"""

from __future__ import annotations

from trine.dtypes import Array
from trine.kernels.numba.jit import FAST, helper
from trine.kernels.numba.maths import exp_low, tanh_ratio


@helper(fastmath=FAST)
def logistic_of_sum(z: Array, bias: Array) -> None:
    """z = logistic(z + bias)."""
    one, zero = z.dtype.type(1), z.dtype.type(0)
    for j in range(z.size):
        value = z[j] + bias[j]
        e = exp_low(-abs(value))  # at most 1: nothing overflows
        z[j] = (e if value < zero else one) / (one + e)


@helper(fastmath=FAST)
def tanh_of_sum(z: Array, bias: Array) -> None:
    """z = tanh(z + bias)."""
    for j in range(z.size):
        z[j] = tanh_ratio(z[j] + bias[j])


@helper(fastmath=FAST)
def relu_of_sum(z: Array, bias: Array) -> None:
    """z = max(z + bias, 0); NaN stays NaN."""
    zero = z.dtype.type(0)
    for j in range(z.size):
        value = z[j] + bias[j]
        z[j] = zero if value < zero else value


@helper(fastmath=FAST)
def add_to(x: Array, y: Array, out: Array) -> None:
    """out = x + y."""
    for j in range(out.size):
        out[j] = x[j] + y[j]


@helper(fastmath=FAST)
def add(x: Array, out: Array) -> None:
    """out += x."""
    for j in range(out.size):
        out[j] += x[j]


@helper(fastmath=FAST)
def add_product(x: Array, y: Array, out: Array) -> None:
    """out += x y."""
    for j in range(out.size):
        out[j] += x[j] * y[j]


@helper(fastmath=FAST)
def scale(x: Array, out: Array) -> None:
    """out *= x."""
    for j in range(out.size):
        out[j] *= x[j]


@helper
def copy(x: Array, out: Array) -> None:
    """out = x."""
    for j in range(out.size):
        out[j] = x[j]


@helper
def clear(out: Array) -> None:
    """out = 0."""
    zero = out.dtype.type(0)
    for j in range(out.size):
        out[j] = zero


@helper(fastmath=FAST)
def mix(gate: Array, new: Array, state: Array) -> None:
    """state = (1 - gate) new + gate state."""
    one = state.dtype.type(1)
    for j in range(state.size):
        state[j] = (one - gate[j]) * new[j] + gate[j] * state[j]


@helper(fastmath=FAST)
def gated_tanh(gate: Array, c: Array, out: Array) -> None:
    """out = gate tanh c."""
    for j in range(out.size):
        out[j] = gate[j] * tanh_ratio(c[j])


@helper(fastmath=FAST)
def tanh_of(c: Array, out: Array) -> None:
    """out = tanh c."""
    for j in range(out.size):
        out[j] = tanh_ratio(c[j])


@helper(fastmath=FAST)
def through_tanh(dy: Array, gate: Array, y: Array, dx: Array) -> None:
    """dx += dy gate (1 - y^2)."""
    one = y.dtype.type(1)
    for j in range(dx.size):
        dx[j] += dy[j] * gate[j] * (one - y[j] * y[j])


@helper(fastmath=FAST)
def logistic_error(dy: Array, factor: Array, y: Array, out: Array) -> None:
    """out = dy factor y (1 - y)."""
    one = y.dtype.type(1)
    for j in range(out.size):
        out[j] = dy[j] * factor[j] * (y[j] * (one - y[j]))


@helper(fastmath=FAST)
def tanh_error(dy: Array, factor: Array, y: Array, out: Array) -> None:
    """out = dy factor (1 - y^2)."""
    one = y.dtype.type(1)
    for j in range(out.size):
        out[j] = dy[j] * factor[j] * (one - y[j] * y[j])


@helper(fastmath=FAST)
def act_error(relu: bool, dy: Array, y: Array, out: Array) -> None:
    """out = dy act'(z), by y = act(z)."""
    one, zero = y.dtype.type(1), y.dtype.type(0)
    if relu:
        for j in range(out.size):
            out[j] = dy[j] if y[j] > zero else zero
    else:
        for j in range(out.size):
            out[j] = dy[j] * (one - y[j] * y[j])


@helper(fastmath=FAST)
def update_error(dh: Array, n: Array, h: Array, z: Array, out: Array) -> None:
    """out = dh (h - n) z (1 - z)."""
    one = z.dtype.type(1)
    for j in range(out.size):
        out[j] = dh[j] * (h[j] - n[j]) * (z[j] * (one - z[j]))


@helper(fastmath=FAST)
def candidate_error(dh: Array, z: Array, n: Array, out: Array) -> None:
    """out = dh (1 - z) (1 - n^2)."""
    one = z.dtype.type(1)
    for j in range(out.size):
        out[j] = dh[j] * (one - z[j]) * (one - n[j] * n[j])
