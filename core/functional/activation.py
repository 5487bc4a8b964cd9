"""Activations: z -> act(z), elementwise. All but the fused ones are built from primitives."""

from __future__ import annotations

from trine.functional.checks import require_float, require_tensor
from trine.joining import where
from trine.tensor import Tensor


def identity(input: Tensor) -> Tensor:
    """The linear activation: z."""
    require_tensor("identity", "input", input)
    return input


def relu(input: Tensor) -> Tensor:
    """max(z, 0); the gradient at 0 is 0."""
    require_tensor("relu", "input", input)
    return input.relu()


def sigmoid(input: Tensor) -> Tensor:
    """The logistic function 1 / (1 + e^-z)."""
    require_tensor("sigmoid", "input", input)
    return input.sigmoid()


def tanh(input: Tensor) -> Tensor:
    """tanh z = 2 sigmoid(2z) - 1."""
    require_tensor("tanh", "input", input)
    return input.tanh()


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """ln(1 + e^(beta z)) / beta; z itself where beta z is above the threshold."""
    require_float("softplus", "input", input)
    if beta == 0:
        raise ValueError("[softplus] expected beta different from 0, got 0. Use beta=1.")
    scaled = input * beta
    return where(scaled > threshold, input, scaled.softplus() / beta)


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """z for z > 0, negative_slope * z else."""
    require_float("leaky_relu", "input", input)
    return where(input > 0, input, input * negative_slope)


def elu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """z for z > 0, alpha (e^z - 1) else."""
    require_float("elu", "input", input)
    # The exponential sees no positive z, so that a branch not taken cannot overflow.
    return where(input > 0, input, input.clamp(max=0.0).expm1() * alpha)


def silu(input: Tensor) -> Tensor:
    """z sigmoid(z)."""
    require_float("silu", "input", input)
    return input * input.sigmoid()


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """z limited to [min_val, max_val]."""
    require_float("hardtanh", "input", input)
    if not min_val < max_val:
        raise ValueError(
            f"[hardtanh] expected min_val below max_val, got {min_val} and {max_val}. Swap them?"
        )
    return input.clamp(min_val, max_val)


def unit_step(input: Tensor, at_zero: float = 0.5) -> Tensor:
    """The unit step: 0 for z < 0, 1 for z > 0, `at_zero` at 0. Its gradient is 0.

    Source notes 001 put 0.5 at zero, 002 and 004 put 1.
    """
    require_float("unit_step", "input", input)
    sign = input.sign()  # carries the zero gradient, and NaN
    return where(sign > 0, 1.0, where(sign < 0, 0.0, sign + at_zero))


def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1; 0 at 0. Its gradient is 0."""
    require_tensor("sign", "input", input)
    return input.sign()


def piecewise_linear(input: Tensor) -> Tensor:
    """1 if z >= 1/2; z + 1/2 between; 0 if z <= -1/2 (source notes 001)."""
    require_float("piecewise_linear", "input", input)
    return input.clamp(-0.5, 0.5) + 0.5
