"""The fully connected layer."""

from __future__ import annotations

import math
from typing import Any, get_args

from trine.autograd import apply, define
from trine.backends import Backend
from trine.backends.op import Activation
from trine.dtypes import Array
from trine.errors import suggest
from trine.functional.checks import require_float, require_like
from trine.tensor import Tensor

ACTIVATIONS: tuple[str, ...] = get_args(Activation)


def check_activation(op: str, activation: str) -> None:
    """Raise ValueError unless fused ops know the activation."""
    if activation not in ACTIVATIONS:
        raise suggest(op, "activation", str(activation), ACTIVATIONS)


def activate(x: Tensor, activation: str) -> Tensor:
    """Return act(x) in primitives."""
    return x if activation == "none" else getattr(x, activation)()


def unit_error(
    be: Backend, grad_out: Array, out: Array, needs_bias: bool, activation: Any
) -> tuple[Array, Array | None]:
    """Return delta = grad_out (.) act'(z), from act(z), and its sum for the bias if needed."""
    if activation != "none":
        error: tuple[Array, Array] = be.bias_act_backward(grad_out, out, activation=activation)
        return error
    axes = (0, *range(2, len(grad_out.shape)))
    return grad_out, be.sum(grad_out, axis=axes) if needs_bias else None


def _linear(
    be: Backend, x: Array, weight: Array, bias: Array | None, *, activation: Activation
) -> Any:
    out = be.linear(x, weight, bias, activation=activation)
    return out, (x, weight, out)


def _linear_backward(
    be: Backend, saved: Any, grads: Any, needs: Any, *, activation: Activation
) -> Any:
    x, weight, out = saved
    if needs[0] and needs[1]:
        return be.linear_backward(grads[0], x, weight, out, activation=activation)
    if needs[1]:  # the first layer
        return None, *be.linear_weight_grad(grads[0], x, out, activation=activation)
    delta, grad_bias = unit_error(be, grads[0], out, needs[2], activation)  # a frozen weight
    grad_x = be.matmul(delta, weight, trans_a=False, trans_b=False) if needs[0] else None
    return grad_x, None, grad_bias


def _linear_composed(x: Tensor, weight: Tensor, bias: Tensor | None, *, activation: str) -> Tensor:
    out = x @ weight.T
    return activate(out if bias is None else out + bias, activation)


LINEAR = define("linear", _linear, _linear_backward, keeps=(0, 1), composed=_linear_composed)


def linear(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none"
) -> Tensor:
    """act(x W^T + b), the activation fused.

    input: (..., I); weight: (O, I); bias: (O,); result: (..., O). activation: "none", "relu",
    "sigmoid" or "tanh". Raises ValueError for shapes that don't fit or an unknown activation,
    TypeError for dtypes that differ.
    """
    require_float("linear", "input", input)
    require_float("linear", "weight", weight)
    check_activation("linear", activation)
    if input.ndim == 0:
        raise ValueError(
            "[linear] expected input (..., in), got a tensor without axes. Reshape it."
        )
    if weight.ndim != 2 or weight.shape[1] != input.shape[-1]:
        raise ValueError(
            f"[linear] expected weight (out, {input.shape[-1]}) to match input {input.shape}, got "
            f"{weight.shape}. Check the layer's in_features."
        )
    require_like("linear", "weight", weight, weight.shape, input)
    if bias is not None:
        require_like("linear", "bias", bias, (weight.shape[0],), input)
    rows = input if input.ndim == 2 else input.reshape(math.prod(input.shape[:-1]), input.shape[-1])
    out: Tensor = apply(LINEAR, rows, weight, bias, activation=activation)
    return out if input.ndim == 2 else out.reshape(*input.shape[:-1], weight.shape[0])
