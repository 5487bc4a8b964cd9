"""exp, tanh and the activations as straight arithmetic, so that loops over them vectorise.

float32 follows Cephes (Moshier, https://www.netlib.org/cephes/: expf, tanhf), correct to about one
unit in the last place; float64 calls the C library.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from trine.dtypes import Array
from trine.kernels.numba.jit import COMMON, FAST, helper

f32 = np.float32

LOG2_E = f32(1.44269504088896341)
LN2_HIGH, LN2_LOW = f32(0.693359375), f32(-2.12194440e-4)
LOWEST, HIGHEST = f32(-104.0), f32(89.0)  # exp is 0 below and infinite above
HALF, ONE, TWO = f32(0.5), f32(1.0), f32(2.0)
E0, E1, E2 = f32(1.9875691500e-4), f32(1.3981999507e-3), f32(8.3334519073e-3)
E3, E4, E5 = f32(4.1665795894e-2), f32(1.6666665459e-1), f32(5.0000001201e-1)
T0, T1, T2 = f32(-5.70498872745e-3), f32(2.06390887954e-2), f32(-5.37397155531e-2)
T3, T4 = f32(1.33314422036e-1), f32(-3.33332819422e-1)
TANH_SMALL = f32(0.625)
ROUNDER = f32(1.5 * 2**23)
"""Added to a small number it rounds it, and leaves the whole number in the lowest bits."""
FLUSHED = f32(-87.0)


@helper(fastmath=FAST)
def _exp_float32(x: Any) -> Any:
    """e^x = 2^n e^r with n = round(x / ln 2): a polynomial for e^r, two halves of n as exponents."""
    x = LOWEST if x < LOWEST else x  # comparisons written so that NaN passes through
    x = HIGHEST if x > HIGHEST else x
    n = np.floor(x * LOG2_E + HALF)
    r = x - n * LN2_HIGH - n * LN2_LOW
    p = ((((E0 * r + E1) * r + E2) * r + E3) * r + E4) * r + E5
    power = p * r * r + r + ONE
    exponent = np.int32(n)
    half = exponent >> np.int32(1)
    first = np.int32((half + np.int32(127)) << np.int32(23)).view(np.float32)
    second = np.int32((exponent - half + np.int32(127)) << np.int32(23)).view(np.float32)
    return power * first * second


@helper(fastmath=FAST)
def _exp_low_float32(x: Any) -> Any:
    """Return e^x as above, with the exponent in one piece: zero below -87."""
    low = FLUSHED if x < FLUSHED else x
    low = HIGHEST if low > HIGHEST else low
    t = low * LOG2_E + ROUNDER
    n = t - ROUNDER
    r = low - n * LN2_HIGH - n * LN2_LOW
    p = ((((E0 * r + E1) * r + E2) * r + E3) * r + E4) * r + E5
    power = p * r * r + r + ONE
    scale = np.int32((np.float32(t).view(np.int32) + np.int32(127)) << np.int32(23)).view(
        np.float32
    )
    return f32(0) if x < FLUSHED else power * scale


@helper(fastmath=FAST)
def _tanh_float32(x: Any) -> Any:
    """A polynomial near 0, (1 - e^-2|x|) / (1 + e^-2|x|) elsewhere."""
    z = x * x
    small = x + x * z * ((((T0 * z + T1) * z + T2) * z + T3) * z + T4)
    size = abs(x)
    decay = _exp_low_float32(-TWO * size)
    large = (ONE - decay) / (ONE + decay)
    return small if size < TANH_SMALL else (large if x > f32(0) else -large)


def exp(x: Any) -> Any:
    """Stand for e^x in kernels; the overload below chooses by type."""
    return math.exp(x)


def exp_low(x: Any) -> Any:
    """Stand for e^x of what is rarely above 0, such as the logarithm of a probability."""
    return math.exp(x)


def tanh(x: Any) -> Any:
    """Stand for tanh x in kernels; the overload below chooses by type."""
    return math.tanh(x)


def _by_type(stand_in: Any, for_float32: Any, otherwise: Any) -> None:
    """Let kernels that call `stand_in` get one of two functions."""

    def in_float32(x: Any) -> Any:
        return for_float32(x)

    def in_float64(x: Any) -> Any:
        return otherwise(x)

    def choose(x: Any) -> Any:
        return in_float32 if x == types.float32 else in_float64

    overload(stand_in, jit_options={**COMMON, "fastmath": FAST})(choose)


_by_type(exp, _exp_float32, math.exp)
_by_type(exp_low, _exp_low_float32, math.exp)
_by_type(tanh, _tanh_float32, math.tanh)


@helper(fastmath=FAST)
def activate(x: Array, bias: Any, activation: int, out: Array) -> None:
    """out = act(x + bias) for vectors; activation: 0 none, 1 ReLU, 2 logistic, 3 tanh."""
    one = x.dtype.type(1)
    zero = x.dtype.type(0)
    n = out.size
    if activation == 0:
        for j in range(n):
            out[j] = x[j] + bias
    elif activation == 1:
        for j in range(n):
            z = x[j] + bias
            out[j] = zero if z < zero else z  # NaN stays NaN
    elif activation == 2:
        for j in range(n):
            z = x[j] + bias
            e = exp_low(-abs(z))  # at most 1: nothing overflows
            out[j] = (e if z < zero else one) / (one + e)
    else:
        for j in range(n):
            out[j] = tanh(x[j] + bias)


@helper(fastmath=FAST)
def activate_backward(grad_out: Array, out: Array, activation: int, grad_x: Array) -> None:
    """grad_x = grad_out act'(z) for vectors, with act'(z) from out = act(z)."""
    one = out.dtype.type(1)
    zero = out.dtype.type(0)
    n = grad_x.size
    if activation == 0:
        for j in range(n):
            grad_x[j] = grad_out[j]
    elif activation == 1:
        for j in range(n):
            g = grad_out[j]  # read in any case, so that the compiler can choose by vectors
            grad_x[j] = g if out[j] > zero else zero
    elif activation == 2:
        for j in range(n):
            grad_x[j] = grad_out[j] * (out[j] * (one - out[j]))
    else:
        for j in range(n):
            grad_x[j] = grad_out[j] * (one - out[j] * out[j])
