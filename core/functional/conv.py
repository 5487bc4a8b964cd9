"""Convolution and transposed convolution in NCHW."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from trine.autograd import apply, define
from trine.backends import Backend
from trine.backends.reference.windows import elements, output_sizes
from trine.dtypes import Array
from trine.functional.checks import require_float, require_like
from trine.functional.linear import activate, check_activation, unit_error
from trine.functional.padding import Pair, pad, pair, resolve_padding
from trine.joining import cat
from trine.tensor import Tensor


def _conv2d(
    be: Backend, x: Array, weight: Array, bias: Array | None, *, activation: Any, **geometry: Any
) -> Any:
    out = be.conv2d(x, weight, bias, activation=activation, **geometry)
    return out, (x, weight, out)


def _conv2d_backward(
    be: Backend, saved: Any, grads: Any, needs: Any, *, activation: Any, **geometry: Any
) -> Any:
    x, weight, out = saved
    delta, grad_bias = unit_error(be, grads[0], out, needs[2], activation)
    grad_x = grad_weight = None
    if needs[0]:
        grad_x = be.conv2d_input_grad(delta, weight, input_size=x.shape[2:], **geometry)
    if needs[1]:
        grad_weight = be.conv2d_weight_grad(delta, x, kernel_size=weight.shape[2:], **geometry)
    return grad_x, grad_weight, grad_bias


def _conv2d_composed(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, activation: str,
) -> Tensor:  # fmt: skip
    x = pad(x, (padding[1], padding[1], padding[0], padding[0]))
    n, _, h, w = x.shape
    k, c, *kernel = weight.shape
    size = (kernel[0], kernel[1])
    p, q = output_sizes((h, w), size, stride, (0, 0), dilation)
    kg = k // groups
    parts = []
    for g in range(groups):
        taps = weight[g * kg : (g + 1) * kg]
        total: Any = 0
        for r, s, rows, columns in elements(size, (p, q), stride, dilation):
            shifted = x[:, g * c : (g + 1) * c, rows, columns].reshape(n, c, p * q)
            total = total + taps[:, :, r, s] @ shifted
        parts.append(total)
    out = cat(parts, 1).reshape(n, k, p, q)
    return activate(out if bias is None else out + bias.reshape(1, k, 1, 1), activation)


CONV2D = define("conv2d", _conv2d, _conv2d_backward, keeps=(0, 1), composed=_conv2d_composed)


def _conv_transpose2d(
    be: Backend, x: Array, weight: Array, bias: Array | None, **geometry: Any
) -> Any:
    return be.conv_transpose2d(x, weight, bias, **geometry), (x, weight)


def _conv_transpose2d_backward(
    be: Backend, saved: Any, grads: Any, needs: Any, *, output_padding: Pair, **geometry: Any
) -> Any:
    x, weight = saved
    grad_out = grads[0]
    grad_x = grad_weight = grad_bias = None
    if needs[0]:  # the transposed convolution's adjoint is the convolution
        grad_x = be.conv2d(grad_out, weight, None, activation="none", **geometry)
        # An output_padding of a stride or more (dilation allows it) makes room for another window.
        grad_x = grad_x[:, :, : x.shape[2], : x.shape[3]]
    if needs[1]:
        grad_weight = be.conv2d_weight_grad(x, grad_out, kernel_size=weight.shape[2:], **geometry)
    if needs[2]:
        grad_bias = be.sum(grad_out, axis=(0, 2, 3))
    return grad_x, grad_weight, grad_bias


def _conv_transpose2d_composed(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: Pair, padding: Pair,
    output_padding: Pair, dilation: Pair, groups: int,
) -> Tensor:  # fmt: skip
    """Put zeros between the elements, then convolve with the turned kernel."""
    n, c, h, w = x.shape
    _, kg, r, s = weight.shape
    a, b = stride
    spread = x.reshape(n, c, h, 1, w, 1)
    spread = pad(spread, (0, b - 1, 0, 0, 0, a - 1)).reshape(n, c, h * a, w * b)
    spread = spread[:, :, : (h - 1) * a + 1, : (w - 1) * b + 1]
    border = [dilation[i] * ((r, s)[i] - 1) - padding[i] for i in (0, 1)]
    outer = [max(v, 0) for v in border]
    spread = pad(
        spread,
        (outer[1], outer[1] + output_padding[1], outer[0], outer[0] + output_padding[0]),
    )
    cut = [max(-v, 0) for v in border]
    spread = spread[:, :, cut[0] : spread.shape[2] - cut[0], cut[1] : spread.shape[3] - cut[1]]
    turned = weight[:, :, ::-1, ::-1].reshape(groups, c // groups, kg, r, s)
    turned = turned.permute(0, 2, 1, 3, 4).reshape(groups * kg, c // groups, r, s)
    return _conv2d_composed(
        spread, turned, bias, stride=(1, 1), padding=(0, 0), dilation=dilation, groups=groups,
        activation="none",
    )  # fmt: skip


CONV_TRANSPOSE2D = define(
    "conv_transpose2d",
    _conv_transpose2d,
    _conv_transpose2d_backward,
    keeps=(0, 1),
    composed=_conv_transpose2d_composed,
)


def require_images(op: str, input: Tensor) -> None:
    """Raise unless the input is a float tensor (N, C, H, W)."""
    require_float(op, "input", input)
    if input.ndim != 4:
        raise ValueError(
            f"[{op}] expected input (N, C, H, W), got shape {input.shape}. Add the missing axes with "
            "unsqueeze or reshape."
        )


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: Literal["zeros", "reflect"] = "zeros",
    activation: str = "none",
) -> Tensor:
    """Cross-correlate images with kernels, add a bias, apply an activation.

    z_nkpq = act(b_k + sum_crs w_kcrs x_nc(ap+er)(bq+fs)). input: (N, C, H, W); weight:
    (K, C/groups, R, S); bias: (K,); result: (N, K, P, Q). padding: numbers, "valid" or "same" (in
    either case, with any stride, by TensorFlow's rule). Raises ValueError for shapes that don't
    fit, TypeError for dtypes that differ. (Source notes 000, 004 (27); 003, 3-1 to 3-4.)
    """
    op = "conv2d"
    require_images(op, input)
    require_float(op, "weight", weight)
    check_activation(op, activation)
    strides, dilations = pair(op, "stride", stride, 1), pair(op, "dilation", dilation, 1)
    _check_groups(op, groups)
    if weight.ndim != 4 or weight.shape[1] * groups != input.shape[1] or weight.shape[0] % groups:
        raise ValueError(
            f"[{op}] expected weight (K, {input.shape[1]}/{groups}, R, S), K a multiple of {groups}, to "
            f"match input {input.shape}, got {weight.shape}. Check in_channels and groups."
        )
    require_like(op, "weight", weight, weight.shape, input)
    if bias is not None:
        require_like(op, "bias", bias, (weight.shape[0],), input)
    if padding_mode not in ("zeros", "reflect"):
        raise ValueError(
            f'[{op}] expected padding_mode "zeros" or "reflect", got {padding_mode!r}. Choose one.'
        )
    kernel = (weight.shape[2], weight.shape[3])
    size = (input.shape[2], input.shape[3])
    rows, columns = resolve_padding(op, padding, size, kernel, strides, dilations)
    paddings = (rows[0], columns[0])
    if padding_mode == "reflect" or rows[0] != rows[1] or columns[0] != columns[1]:
        mode: Any = "constant" if padding_mode == "zeros" else "reflect"
        input = pad(input, (*columns, *rows), mode=mode)
        paddings = (0, 0)
    for i, axis in enumerate(("height", "width")):
        extent = dilations[i] * (kernel[i] - 1) + 1
        if kernel[i] < 1 or input.shape[2 + i] + 2 * paddings[i] < extent:
            raise ValueError(
                f"[{op}] expected a kernel that fits the padded {axis} "
                f"{input.shape[2 + i] + 2 * paddings[i]}, got {extent}. Pad more, or use a smaller "
                "kernel."
            )
    return apply(  # type: ignore[no-any-return]
        CONV2D, input, weight, bias, stride=strides, padding=paddings, dilation=dilations,
        groups=groups, activation=activation,
    )  # fmt: skip


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """The transposed ("deconvolution") of `conv2d`: its input gradient, used forwards.

    input: (N, C, H, W); weight: (C, K/groups, R, S); result: (N, K, P, Q) with
    P = (H - 1) stride - 2 padding + dilation (R - 1) + output_padding + 1. Raises ValueError for
    shapes that don't fit or output_padding not below stride or dilation.
    """
    op = "conv_transpose2d"
    require_images(op, input)
    require_float(op, "weight", weight)
    strides, dilations = pair(op, "stride", stride, 1), pair(op, "dilation", dilation, 1)
    paddings, extra = pair(op, "padding", padding, 0), pair(op, "output_padding", output_padding, 0)
    _check_groups(op, groups)
    if weight.ndim != 4 or weight.shape[0] != input.shape[1] or weight.shape[0] % groups:
        raise ValueError(
            f"[{op}] expected weight ({input.shape[1]}, K/groups, R, S) to match input {input.shape}, "
            f"got {weight.shape}. Check in_channels and groups."
        )
    require_like(op, "weight", weight, weight.shape, input)
    if bias is not None:
        require_like(op, "bias", bias, (weight.shape[1] * groups,), input)
    for i, axis in enumerate(("height", "width")):
        if extra[i] >= max(strides[i], dilations[i]):
            raise ValueError(
                f"[{op}] expected output_padding below stride or dilation, got {extra[i]} for the "
                f"{axis}. Make it smaller."
            )
        out = (
            (input.shape[2 + i] - 1) * strides[i] - 2 * paddings[i]
            + dilations[i] * (weight.shape[2 + i] - 1) + extra[i] + 1
        )  # fmt: skip
        if out < 1:
            raise ValueError(
                f"[{op}] expected an output of at least one element, got {out} for the {axis}. Pad less."
            )
    return apply(  # type: ignore[no-any-return]
        CONV_TRANSPOSE2D, input, weight, bias, stride=strides, padding=paddings,
        output_padding=extra, dilation=dilations, groups=groups,
    )  # fmt: skip


def _check_groups(op: str, groups: int) -> None:
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        raise ValueError(f"[{op}] expected groups as an int >= 1, got {groups!r}. Use groups=1.")
