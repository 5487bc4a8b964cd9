"""Bias and activation in one op, and gradients of activations from their output alone."""

from __future__ import annotations

from typing import Any

from trine.backends.op import Activation, op
from trine.dtypes import Array, DType

Outputs = dict[str, tuple[tuple[int, ...], DType]]


def _bias_act_outputs(x: Array, bias: Array | None, *, activation: Activation) -> Outputs:
    return {"out": (x.shape, x.dtype)}


def _bias_act_backward_outputs(grad_out: Array, out: Array, *, activation: Activation) -> Outputs:
    return {
        "grad_x": (grad_out.shape, grad_out.dtype),
        "grad_bias": ((grad_out.shape[1],), grad_out.dtype),
    }


def _act_backward_outputs(grad_out: Array, out: Array, *, activation: Activation) -> Outputs:
    return {"grad_x": (grad_out.shape, grad_out.dtype)}


class ActivationOps:
    """y = act(x + b), b along axis 1."""

    xp: Any
    relu: Any
    sigmoid: Any
    tanh: Any

    @op(outputs=_bias_act_outputs)
    def bias_act(self, x: Array, bias: Array | None = None, *, activation: Activation) -> Array:
        """y_nc... = act(x_nc... + b_c). x: (N, C, ...); bias: (C,)."""
        z = x if bias is None else x + bias.reshape(1, -1, *(1,) * (x.ndim - 2))
        if activation == "none":
            return z.copy() if bias is None else z
        return getattr(self, activation)(z)

    @op(outputs=_bias_act_backward_outputs)
    def bias_act_backward(
        self, grad_out: Array, out: Array, *, activation: Activation
    ) -> tuple[Array, Array]:
        """Gradients of x and b, from y: grad_x = grad_out act'(z), grad_b = its sum but for axis 1."""
        grad_x = self.act_backward(grad_out, out, activation=activation)
        axes = (0, *range(2, grad_out.ndim))
        return grad_x, grad_x.sum(axis=axes)

    @op(outputs=_act_backward_outputs)
    def act_backward(self, grad_out: Array, out: Array, *, activation: Activation) -> Array:
        """grad_out act'(z), from y = act(z): relu' = [y > 0], sigmoid' = y (1 - y), tanh' = 1 - y^2."""
        if activation == "relu":
            return self.xp.where(out > 0, grad_out, grad_out.dtype.type(0))
        if activation == "sigmoid":
            return grad_out * (out * (1 - out))
        if activation == "tanh":
            return grad_out * (1 - out * out)
        return grad_out.copy()
