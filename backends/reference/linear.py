"""The fully connected layer: y = act(x W^T + b), and its gradients."""

from __future__ import annotations

from typing import Any

from trine.backends.op import Activation, op
from trine.dtypes import Array, DType

Outputs = dict[str, tuple[tuple[int, ...], DType]]


def _linear_outputs(
    x: Array, weight: Array, bias: Array | None, *, activation: Activation
) -> Outputs:
    return {"out": ((x.shape[0], weight.shape[0]), x.dtype)}


def _linear_backward_outputs(
    grad_out: Array, x: Array, weight: Array, out: Array, *, activation: Activation
) -> Outputs:
    return {
        "grad_x": (x.shape, x.dtype),
        "grad_weight": (weight.shape, weight.dtype),
        "grad_bias": ((weight.shape[0],), weight.dtype),
    }


def _linear_weight_grad_outputs(
    grad_out: Array, x: Array, out: Array, *, activation: Activation
) -> Outputs:
    units = grad_out.shape[1]
    return {"grad_weight": ((units, x.shape[1]), x.dtype), "grad_bias": ((units,), x.dtype)}


class LinearOps:
    """The fully connected layer on two-dimensional inputs."""

    matmul: Any
    bias_act: Any
    bias_act_backward: Any

    @op(outputs=_linear_outputs)
    def linear(
        self, x: Array, weight: Array, bias: Array | None = None, *, activation: Activation
    ) -> Array:
        """y = act(x W^T + b). x: (N, I); weight: (O, I); bias: (O,); out: (N, O)."""
        z = self.matmul(x, weight, trans_a=False, trans_b=True)
        if bias is None and activation == "none":
            return z
        return self.bias_act(z, bias, activation=activation)

    @op(outputs=_linear_backward_outputs)
    def linear_backward(
        self, grad_out: Array, x: Array, weight: Array, out: Array, *, activation: Activation
    ) -> tuple[Array, Array, Array]:
        """With delta = grad_out (.) act'(z): dx = delta W, dW = delta^T x, db = sum_n delta_n."""
        delta, grad_bias = self.bias_act_backward(grad_out, out, activation=activation)
        grad_x = self.matmul(delta, weight, trans_a=False, trans_b=False)
        grad_weight = self.matmul(delta, x, trans_a=True, trans_b=False)
        return grad_x, grad_weight, grad_bias

    @op(outputs=_linear_weight_grad_outputs)
    def linear_weight_grad(
        self, grad_out: Array, x: Array, out: Array, *, activation: Activation
    ) -> tuple[Array, Array]:
        """dW and db alone, for a layer whose input needs no gradient: the first one."""
        delta, grad_bias = self.bias_act_backward(grad_out, out, activation=activation)
        return self.matmul(delta, x, trans_a=True, trans_b=False), grad_bias
