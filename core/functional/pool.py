"""Pooling in NCHW."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from trine.autograd import apply, define
from trine.backends import Backend
from trine.backends.reference.pool import bins, pool_output_size
from trine.dtypes import Array
from trine.functional.conv import require_images
from trine.functional.padding import Pair, pad, pair, resolve_padding
from trine.joining import stack
from trine.tensor import Tensor


def _max_pool2d(be: Backend, x: Array, *, ceil_mode: bool, **geometry: Any) -> Any:
    out, argmax = be.max_pool2d(x, ceil_mode=ceil_mode, **geometry)
    return out, (argmax, x.shape[2:])


def _max_pool2d_backward(
    be: Backend, saved: Any, grads: Any, needs: Any, *, ceil_mode: bool, **geometry: Any
) -> Any:
    argmax, size = saved
    return (be.max_pool2d_backward(grads[0], argmax, input_size=size, **geometry),)


def _taps(
    x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool,
    value: float,
) -> Tensor:  # fmt: skip
    """Return all elements of the windows, (R * S, N, C, P, Q)."""
    (h, w), out = x.shape[2:], []
    p = pool_output_size(h, kernel[0], stride[0], padding[0], dilation[0], ceil_mode)
    q = pool_output_size(w, kernel[1], stride[1], padding[1], dilation[1], ceil_mode)
    below = max(0, (p - 1) * stride[0] + dilation[0] * (kernel[0] - 1) + 1 - h - padding[0])
    right = max(0, (q - 1) * stride[1] + dilation[1] * (kernel[1] - 1) + 1 - w - padding[1])
    x = pad(x, (padding[1], right, padding[0], below), value=value)
    for r in range(kernel[0]):
        for s in range(kernel[1]):
            top, left = r * dilation[0], s * dilation[1]
            rows = slice(top, top + (p - 1) * stride[0] + 1, stride[0])
            out.append(x[:, :, rows, left : left + (q - 1) * stride[1] + 1 : stride[1]])
    return stack(out)


def _max_pool2d_composed(
    x: Tensor, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> Tensor:
    taps = _taps(x, kernel_size, stride, padding, dilation, ceil_mode, -math.inf)
    values: Tensor = taps.max(0)[0]
    return values


MAX_POOL2D = define("max_pool2d", _max_pool2d, _max_pool2d_backward, composed=_max_pool2d_composed)


def _avg_pool2d(be: Backend, x: Array, **geometry: Any) -> Any:
    return be.avg_pool2d(x, **geometry), (x.shape[2:],)


def _avg_pool2d_backward(be: Backend, saved: Any, grads: Any, needs: Any, **geometry: Any) -> Any:
    return (be.avg_pool2d_backward(grads[0], input_size=saved[0], **geometry),)


def _avg_pool2d_composed(
    x: Tensor, *, kernel_size: Pair, stride: Pair, padding: Pair, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int,
) -> Tensor:  # fmt: skip
    taps = _taps(x, kernel_size, stride, padding, (1, 1), ceil_mode, 0.0).sum(0)
    if divisor_override:
        return taps / divisor_override
    ones = x.detach() * 0 + 1
    if count_include_pad:
        ones = pad(ones, (padding[1], padding[1], padding[0], padding[0]), value=1.0)
        counts = _taps(ones, kernel_size, stride, (0, 0), (1, 1), ceil_mode, 0.0).sum(0)
        counts = counts[:, :, : taps.shape[2], : taps.shape[3]]
    else:
        counts = _taps(ones, kernel_size, stride, padding, (1, 1), ceil_mode, 0.0).sum(0)
    return taps / counts


AVG_POOL2D = define("avg_pool2d", _avg_pool2d, _avg_pool2d_backward, composed=_avg_pool2d_composed)


def _adaptive(be: Backend, x: Array, *, output_size: Pair) -> Any:
    return be.adaptive_avg_pool2d(x, output_size=output_size), (x.shape[2:],)


def _adaptive_backward(
    be: Backend, saved: Any, grads: Any, needs: Any, *, output_size: Pair
) -> Any:
    return (be.adaptive_avg_pool2d_backward(grads[0], input_size=saved[0]),)


def _adaptive_composed(x: Tensor, *, output_size: Pair) -> Tensor:
    rows = bins(x.shape[2], output_size[0])
    columns = bins(x.shape[3], output_size[1])
    return stack([stack([x[:, :, r, c].mean((2, 3)) for c in columns], 2) for r in rows], 2)


ADAPTIVE_AVG_POOL2D = define(
    "adaptive_avg_pool2d", _adaptive, _adaptive_backward, composed=_adaptive_composed
)


def _geometry(
    op: str,
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | str | Sequence[int],
    dilation: int | Sequence[int],
    ceil_mode: bool,
) -> tuple[Pair, Pair, tuple[Pair, Pair], Pair]:
    require_images(op, input)
    kernel = pair(op, "kernel_size", kernel_size, 1)
    strides = kernel if stride is None else pair(op, "stride", stride, 1)
    dilations = pair(op, "dilation", dilation, 1)
    size = (input.shape[2], input.shape[3])
    sides = resolve_padding(op, padding, size, kernel, strides, dilations)
    if not isinstance(padding, str) and any(sides[i][0] > kernel[i] // 2 for i in (0, 1)):
        raise ValueError(
            f"[{op}] expected padding of at most half the kernel {kernel}, got {padding!r}: a window of "
            "padding alone has no value. Pad less."
        )
    for i, axis in enumerate(("height", "width")):
        padded = size[i] + sum(sides[i])
        if padded < dilations[i] * (kernel[i] - 1) + 1:
            raise ValueError(
                f"[{op}] expected a window that fits the padded {axis} {padded}, got {kernel[i]}. Use a "
                "smaller kernel."
            )
    return kernel, strides, sides, dilations


def max_pool2d(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest element of each window; its error goes to the first largest in row-major order.

    input: (N, C, H, W). Padding counts as -inf, NaN wins. stride defaults to kernel_size; padding
    may be "valid" or "same". Raises ValueError for a window that does not fit.
    """
    kernel, strides, (rows, columns), dilations = _geometry(
        "max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode
    )
    paddings = (rows[0], columns[0])
    if rows[0] != rows[1] or columns[0] != columns[1]:
        input, paddings = pad(input, (*columns, *rows), value=-math.inf), (0, 0)
    return apply(  # type: ignore[no-any-return]
        MAX_POOL2D, input, kernel_size=kernel, stride=strides, padding=paddings,
        dilation=dilations, ceil_mode=bool(ceil_mode),
    )  # fmt: skip


def avg_pool2d(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window; its error is spread evenly over the window.

    input: (N, C, H, W). The divisor is `divisor_override`, else the window's size with its zero
    padding (`count_include_pad`) or without. Raises ValueError for a window that does not fit.
    """
    if isinstance(padding, str):
        raise ValueError(
            f"[avg_pool2d] expected padding as numbers, got {padding!r}. Use F.pad for other rules."
        )
    kernel, strides, (rows, columns), _ = _geometry(
        "avg_pool2d", input, kernel_size, stride, padding, 1, ceil_mode
    )
    if divisor_override is not None and divisor_override == 0:
        raise ValueError("[avg_pool2d] expected divisor_override different from 0, got 0.")
    return apply(  # type: ignore[no-any-return]
        AVG_POOL2D, input, kernel_size=kernel, stride=strides, padding=(rows[0], columns[0]),
        ceil_mode=bool(ceil_mode), count_include_pad=bool(count_include_pad),
        divisor_override=divisor_override or 0,
    )  # fmt: skip


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int]) -> Tensor:
    """Means over output_size bins along each axis: floor(pH/P) <= h < ceil((p+1)H/P).

    input: (N, C, H, W); result: (N, C, *output_size).
    """
    require_images("adaptive_avg_pool2d", input)
    sizes = pair("adaptive_avg_pool2d", "output_size", output_size, 1)
    if 0 in input.shape[2:]:
        raise ValueError(
            f"[adaptive_avg_pool2d] expected images with elements, got {input.shape}. Check the input."
        )
    return apply(ADAPTIVE_AVG_POOL2D, input, output_size=sizes)  # type: ignore[no-any-return]
