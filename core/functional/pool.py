"""Pooling in NCHW."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from trine.autograd import apply, define
from trine.backends import Backend
from trine.backends.reference.pool import bins
from trine.backends.reference.windows import elements, output_sizes
from trine.creation import ones, ones_like
from trine.dtypes import Array
from trine.functional.conv import require_images
from trine.functional.padding import Pair, pad, pair, resolve_padding, whole_numbers
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
    h, w = x.shape[2:]
    p, q = output_sizes((h, w), kernel, stride, padding, dilation, ceil_mode)
    below = max(0, (p - 1) * stride[0] + dilation[0] * (kernel[0] - 1) + 1 - h - padding[0])
    right = max(0, (q - 1) * stride[1] + dilation[1] * (kernel[1] - 1) + 1 - w - padding[1])
    x = pad(x, (padding[1], right, padding[0], below), value=value)
    windows = elements(kernel, (p, q), stride, dilation)
    return stack([x[:, :, rows, columns] for _, _, rows, columns in windows])


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
    inside = ones_like(x)
    if count_include_pad:
        inside = pad(inside, (padding[1], padding[1], padding[0], padding[0]), value=1.0)
        counts = _taps(inside, kernel_size, stride, (0, 0), (1, 1), ceil_mode, 0.0).sum(0)
        counts = counts[:, :, : taps.shape[2], : taps.shape[3]]
    else:
        counts = _taps(inside, kernel_size, stride, padding, (1, 1), ceil_mode, 0.0).sum(0)
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
        "max_pool2d", input, kernel_size, stride, padding, dilation
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
    padding: int | str | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window; its error is spread evenly over the window.

    input: (N, C, H, W). The divisor is `divisor_override`, else the window's size with its zero
    padding (`count_include_pad`) or without. padding may be "valid" or "same". Raises ValueError
    for a window that does not fit. (Source notes 003.)
    """
    kernel, strides, (rows, columns), _ = _geometry(
        "avg_pool2d", input, kernel_size, stride, padding, 1
    )
    divisor = 0
    if divisor_override is not None:
        divisor = (whole_numbers((divisor_override,)) or (0,))[0]
        if divisor == 0:
            raise ValueError(
                "[avg_pool2d] expected divisor_override as an int different from 0, got "
                f"{divisor_override!r}. Leave it out for the window's size."
            )

    def pooled(x: Tensor, padding: Pair) -> Tensor:
        return apply(  # type: ignore[no-any-return]
            AVG_POOL2D, x, kernel_size=kernel, stride=strides, padding=padding,
            ceil_mode=bool(ceil_mode), count_include_pad=bool(count_include_pad),
            divisor_override=divisor,
        )  # fmt: skip

    if rows[0] == rows[1] and columns[0] == columns[1]:
        return pooled(input, (rows[0], columns[0]))
    sides = (*columns, *rows)
    out = pooled(pad(input, sides), (0, 0))
    if count_include_pad or divisor:
        return out
    # The padding was averaged too: divide by the part of each window that lies inside.
    inside = ones((1, 1, *input.shape[2:]), dtype=input.dtype, backend=input.backend)
    return out / pooled(pad(inside, sides), (0, 0))


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor:
    """Means over output_size bins along each axis: floor(pH/P) <= h < ceil((p+1)H/P).

    input: (N, C, H, W); result: (N, C, *output_size); None keeps the size of an axis. Raises
    ValueError for images without elements.
    """
    require_images("adaptive_avg_pool2d", input)
    wanted: Any = (None, None) if output_size is None else output_size
    if isinstance(wanted, Sequence) and len(wanted) == 2:
        wanted = [have if n is None else n for n, have in zip(wanted, input.shape[2:], strict=True)]
    sizes = pair("adaptive_avg_pool2d", "output_size", wanted, 1)
    if 0 in input.shape[2:]:
        raise ValueError(
            f"[adaptive_avg_pool2d] expected images with elements, got {input.shape}. Check the input."
        )
    return apply(ADAPTIVE_AVG_POOL2D, input, output_size=sizes)  # type: ignore[no-any-return]
