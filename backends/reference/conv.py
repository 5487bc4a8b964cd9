"""Convolution and its two gradients, written as the sums that define them.

Notation: N images, C input channels, K output channels, R x S kernel, H x W input, P x Q output;
stride (a, b), dilation (e, f), g groups. What deep learning calls convolution is cross-correlation:

    z_nkpq = b_k + sum_crs w_kcrs x_nc(ap + er)(bq + fs)        x padded with zeros
"""

from __future__ import annotations

from typing import Any

from trine.backends.op import Activation, op
from trine.backends.reference.windows import Pair, elements, output_sizes
from trine.dtypes import Array, DType

Outputs = dict[str, tuple[Any, DType]]


def _conv2d_outputs(
    x: Array, weight: Array, bias: Array | None, *, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, activation: Activation,
) -> Outputs:  # fmt: skip
    sizes = output_sizes(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return {"out": ((x.shape[0], weight.shape[0], *sizes), x.dtype)}


def _conv2d_input_grad_outputs(
    grad_out: Array, weight: Array, *, input_size: Pair, stride: Pair, padding: Pair,
    dilation: Pair, groups: int,
) -> Outputs:  # fmt: skip
    shape = (grad_out.shape[0], weight.shape[1] * groups, *input_size)
    return {"grad_x": (shape, grad_out.dtype)}


def _conv2d_weight_grad_outputs(
    grad_out: Array, x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
    groups: int,
) -> Outputs:  # fmt: skip
    shape = (grad_out.shape[1], x.shape[1] // groups, *kernel_size)
    return {"grad_weight": (shape, x.dtype)}


def _conv_transpose2d_outputs(
    x: Array, weight: Array, bias: Array | None, *, stride: Pair, padding: Pair,
    output_padding: Pair, dilation: Pair, groups: int,
) -> Outputs:  # fmt: skip
    sizes = (
        (x.shape[2 + i] - 1) * stride[i] - 2 * padding[i]
        + dilation[i] * (weight.shape[2 + i] - 1) + output_padding[i] + 1
        for i in (0, 1)
    )  # fmt: skip
    return {"out": ((x.shape[0], weight.shape[1] * groups, *sizes), x.dtype)}


class ConvOps:
    """Convolutions in NCHW."""

    xp: Any
    bias_act: Any

    def _padded(self, x: Array, padding: Pair) -> Array:
        if padding == (0, 0):
            return x
        (a, b), (_, _, h, w) = padding, x.shape
        out = self.xp.zeros((*x.shape[:2], h + 2 * a, w + 2 * b), x.dtype)
        out[:, :, a : a + h, b : b + w] = x
        return out

    @op(outputs=_conv2d_outputs)
    def conv2d(
        self,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        *,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
        activation: Activation,
    ) -> Array:
        """z_nkpq = act(b_k + sum_crs w_kcrs x_nc(ap+er)(bq+fs)).

        x: (N, C, H, W); weight: (K, C/groups, R, S); bias: (K,); out: (N, K, P, Q).
        """
        (out_shape, dtype) = _conv2d_outputs(
            x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups,
            activation=activation,
        )["out"]  # fmt: skip
        n, k, p, q = out_shape
        padded = self._padded(x, padding)
        c, kg = weight.shape[1], k // groups
        z = self.xp.zeros((groups, kg, n, p, q), dtype)
        for g in range(groups):
            for r, s, rows, columns in elements(weight.shape[2:], (p, q), stride, dilation):
                shifted = padded[:, g * c : (g + 1) * c, rows, columns]
                taps = weight[g * kg : (g + 1) * kg, :, r, s]
                z[g] += self.xp.tensordot(taps, shifted, axes=((1,), (1,)))
        out = self.xp.ascontiguousarray(z.reshape(k, n, p, q).transpose(1, 0, 2, 3))
        if bias is None and activation == "none":
            return out
        return self.bias_act(out, bias, activation=activation)

    @op(outputs=_conv2d_input_grad_outputs)
    def conv2d_input_grad(
        self,
        grad_out: Array,
        weight: Array,
        *,
        input_size: Pair,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> Array:
        """dx_nc(ap+er)(bq+fs) += sum_k w_kcrs delta_nkpq: each error goes back where it came from.

        For stride 1 this is the error, padded by R-1, convolved with the kernel turned by 180
        degrees and summed over the output channels.
        """
        n, k, p, q = grad_out.shape
        (h, w), (a, b) = input_size, padding
        c, kg = weight.shape[1], k // groups
        padded = self.xp.zeros((groups, c, n, h + 2 * a, w + 2 * b), grad_out.dtype)
        for g in range(groups):
            error = grad_out[:, g * kg : (g + 1) * kg]
            for r, s, rows, columns in elements(weight.shape[2:], (p, q), stride, dilation):
                taps = weight[g * kg : (g + 1) * kg, :, r, s]
                padded[g][:, :, rows, columns] += self.xp.tensordot(taps, error, axes=((0,), (1,)))
        inner = padded[:, :, :, a : a + h, b : b + w].reshape(groups * c, n, h, w)
        return self.xp.ascontiguousarray(inner.transpose(1, 0, 2, 3))

    @op(outputs=_conv2d_weight_grad_outputs)
    def conv2d_weight_grad(
        self,
        grad_out: Array,
        x: Array,
        *,
        kernel_size: Pair,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> Array:
        """dw_kcrs = sum_npq delta_nkpq x_nc(ap+er)(bq+fs)."""
        _, k, p, q = grad_out.shape
        padded = self._padded(x, padding)
        c, kg = x.shape[1] // groups, k // groups
        grad_weight = self.xp.zeros((k, c, *kernel_size), x.dtype)
        for g in range(groups):
            error = grad_out[:, g * kg : (g + 1) * kg]
            for r, s, rows, columns in elements(kernel_size, (p, q), stride, dilation):
                shifted = padded[:, g * c : (g + 1) * c, rows, columns]
                grad_weight[g * kg : (g + 1) * kg, :, r, s] = self.xp.tensordot(
                    error, shifted, axes=((0, 2, 3), (0, 2, 3))
                )
        return grad_weight

    @op(outputs=_conv_transpose2d_outputs)
    def conv_transpose2d(
        self,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        *,
        stride: Pair,
        padding: Pair,
        output_padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> Array:
        """The input gradient of a convolution, used forwards, plus a bias.

        x: (N, C, H, W); weight: (C, K/groups, R, S); out: (N, K, P, Q) with
        P = (H - 1) a - 2 p + e (R - 1) + output_padding + 1.
        """
        shape = _conv_transpose2d_outputs(
            x, weight, bias, stride=stride, padding=padding, output_padding=output_padding,
            dilation=dilation, groups=groups,
        )["out"][0]  # fmt: skip
        out = self.conv2d_input_grad(
            x, weight, input_size=shape[2:], stride=stride, padding=padding, dilation=dilation,
            groups=groups,
        )  # fmt: skip
        return out if bias is None else self.bias_act(out, bias, activation="none")
