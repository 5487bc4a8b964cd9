"""Pooling over windows, and its gradients.

Max pooling: padding counts as -inf, NaN wins, and of equal elements the first in row-major order.
The gradient of an output goes to that one element. Average pooling spreads it evenly.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trine.backends.op import op
from trine.backends.reference.windows import Pair, elements, output_sizes
from trine.dtypes import Array, DType, int32, uint8

Outputs = dict[str, tuple[Any, DType]]


def _max_pool2d_outputs(
    x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> Outputs:
    sizes = output_sizes(x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
    shape = (*x.shape[:2], *sizes)
    index = uint8 if kernel_size[0] * kernel_size[1] <= 256 else int32
    return {"out": (shape, x.dtype), "argmax": (shape, index)}


def _max_pool2d_backward_outputs(
    grad_out: Array, argmax: Array, *, input_size: Pair, kernel_size: Pair, stride: Pair,
    padding: Pair, dilation: Pair,
) -> Outputs:  # fmt: skip
    return {"grad_x": ((*grad_out.shape[:2], *input_size), grad_out.dtype)}


def _avg_pool2d_outputs(
    x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int,
) -> Outputs:  # fmt: skip
    sizes = output_sizes(x.shape[2:], kernel_size, stride, padding, (1, 1), ceil_mode)
    return {"out": ((*x.shape[:2], *sizes), x.dtype)}


def _avg_pool2d_backward_outputs(
    grad_out: Array, *, input_size: Pair, kernel_size: Pair, stride: Pair, padding: Pair,
    ceil_mode: bool, count_include_pad: bool, divisor_override: int,
) -> Outputs:  # fmt: skip
    return {"grad_x": ((*grad_out.shape[:2], *input_size), grad_out.dtype)}


def _adaptive_outputs(x: Array, *, output_size: Pair) -> Outputs:
    return {"out": ((*x.shape[:2], *output_size), x.dtype)}


def _adaptive_backward_outputs(grad_out: Array, *, input_size: Pair) -> Outputs:
    return {"grad_x": ((*grad_out.shape[:2], *input_size), grad_out.dtype)}


def _bordered_size(size: Pair, out: Pair, kernel: Pair, stride: Pair, pad: Pair, dil: Pair) -> Pair:
    """Return the size of a border-padded plane in which every window lies."""
    h, w = (
        max(size[i] + 2 * pad[i], (out[i] - 1) * stride[i] + dil[i] * (kernel[i] - 1) + 1)
        for i in (0, 1)
    )
    return h, w


def _counts(size: int, kernel: int, stride: int, padding: int, out: int, include: bool) -> Any:
    """Return how many elements along an axis each window averages, as NumPy int64 (out,)."""
    starts = np.arange(out) * stride - padding
    low, high = (-padding, size + padding) if include else (0, size)
    return np.minimum(starts + kernel, high) - np.maximum(starts, low)


class PoolOps:
    """Pooling in NCHW."""

    xp: Any
    asarray: Any

    def _bordered(self, x: Array, size: Pair, padding: Pair, value: float) -> Array:
        out = self.xp.full((*x.shape[:2], *size), value, dtype=x.dtype)
        (a, b), (h, w) = padding, x.shape[2:]
        out[:, :, a : a + h, b : b + w] = x
        return out

    @op(outputs=_max_pool2d_outputs)
    def max_pool2d(
        self,
        x: Array,
        *,
        kernel_size: Pair,
        stride: Pair,
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        ceil_mode: bool = False,
    ) -> tuple[Array, Array]:
        """y_ncpq = max_rs x_nc(ap+er)(bq+fs); argmax = r S + s of the maximum.

        x: (N, C, H, W); out, argmax: (N, C, P, Q); argmax is uint8, int32 for windows above 256.
        """
        outputs = _max_pool2d_outputs(
            x, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation,
            ceil_mode=ceil_mode,
        )  # fmt: skip
        shape, index_dtype = outputs["argmax"]
        size = _bordered_size(x.shape[2:], shape[2:], kernel_size, stride, padding, dilation)
        plane = self._bordered(x, size, padding, -np.inf)
        # The border is marked, so that a window of -inf still finds an element of the input.
        inside = self._bordered(self.xp.ones((1, 1, *x.shape[2:]), bool), size, padding, False)
        best = self.xp.full(shape, -np.inf, dtype=x.dtype)
        argmax = self.xp.zeros(shape, index_dtype)
        found = self.xp.zeros((1, 1, *shape[2:]), bool)
        for r, s, rows, columns in elements(kernel_size, shape[2:], stride, dilation):
            number = r * kernel_size[1] + s
            value, here = plane[:, :, rows, columns], inside[:, :, rows, columns]
            is_nan, was_nan = value != value, best != best  # noqa: PLR0124
            wins = here & ((value > best) | (is_nan & ~was_nan) | ~found)
            best = self.xp.where(wins, value, best)
            argmax = self.xp.where(wins, argmax.dtype.type(number), argmax)
            found = found | here
        return best, argmax

    @op(outputs=_max_pool2d_backward_outputs)
    def max_pool2d_backward(
        self,
        grad_out: Array,
        argmax: Array,
        *,
        input_size: Pair,
        kernel_size: Pair,
        stride: Pair,
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
    ) -> Array:
        """dx at a window's maximum += delta of the window; 0 elsewhere."""
        out_size = grad_out.shape[2:]
        size = _bordered_size(input_size, out_size, kernel_size, stride, padding, dilation)
        plane = self.xp.zeros((*grad_out.shape[:2], *size), grad_out.dtype)
        zero = grad_out.dtype.type(0)
        for r, s, rows, columns in elements(kernel_size, out_size, stride, dilation):
            number = r * kernel_size[1] + s
            plane[:, :, rows, columns] += self.xp.where(argmax == number, grad_out, zero)
        (a, b), (h, w) = padding, input_size
        return self.xp.ascontiguousarray(plane[:, :, a : a + h, b : b + w])

    def _divisors(
        self, size: Pair, out: Pair, kernel: Pair, stride: Pair, padding: Pair, include: bool,
        override: int, dtype: DType,
    ) -> Array:  # fmt: skip
        if override:
            return self.xp.full(out, override, dtype=dtype)
        rows, columns = (
            _counts(size[i], kernel[i], stride[i], padding[i], out[i], include) for i in (0, 1)
        )
        return self.asarray((rows[:, None] * columns[None, :]).astype(dtype))

    @op(outputs=_avg_pool2d_outputs)
    def avg_pool2d(
        self,
        x: Array,
        *,
        kernel_size: Pair,
        stride: Pair,
        padding: Pair = (0, 0),
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int = 0,
    ) -> Array:
        """y_ncpq = sum_rs x_nc(ap+r)(bq+s) / divisor.

        The divisor is `divisor_override` if it is not 0, else the number of elements in the window:
        with the padding (but nothing past it) if `count_include_pad`, else of the input alone.
        """
        shape, dtype = _avg_pool2d_outputs(
            x, kernel_size=kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode,
            count_include_pad=count_include_pad, divisor_override=divisor_override,
        )["out"]  # fmt: skip
        size = _bordered_size(x.shape[2:], shape[2:], kernel_size, stride, padding, (1, 1))
        plane = self._bordered(x, size, padding, 0.0)
        total = self.xp.zeros(shape, dtype)
        for _, _, rows, columns in elements(kernel_size, shape[2:], stride, (1, 1)):
            total += plane[:, :, rows, columns]
        return total / self._divisors(
            x.shape[2:], shape[2:], kernel_size, stride, padding, count_include_pad,
            divisor_override, dtype,
        )  # fmt: skip

    @op(outputs=_avg_pool2d_backward_outputs)
    def avg_pool2d_backward(
        self,
        grad_out: Array,
        *,
        input_size: Pair,
        kernel_size: Pair,
        stride: Pair,
        padding: Pair = (0, 0),
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int = 0,
    ) -> Array:
        """dx += delta / divisor for each element of each window."""
        out_size = grad_out.shape[2:]
        size = _bordered_size(input_size, out_size, kernel_size, stride, padding, (1, 1))
        share = grad_out / self._divisors(
            input_size, out_size, kernel_size, stride, padding, count_include_pad,
            divisor_override, grad_out.dtype,
        )  # fmt: skip
        plane = self.xp.zeros((*grad_out.shape[:2], *size), grad_out.dtype)
        for _, _, rows, columns in elements(kernel_size, out_size, stride, (1, 1)):
            plane[:, :, rows, columns] += share
        (a, b), (h, w) = padding, input_size
        return self.xp.ascontiguousarray(plane[:, :, a : a + h, b : b + w])

    @op(outputs=_adaptive_outputs)
    def adaptive_avg_pool2d(self, x: Array, *, output_size: Pair) -> Array:
        """Mean over floor(p H / P) <= h < ceil((p + 1) H / P), and alike along the width."""
        out = self.xp.empty((*x.shape[:2], *output_size), x.dtype)
        for p, rows in enumerate(bins(x.shape[2], output_size[0])):
            for q, columns in enumerate(bins(x.shape[3], output_size[1])):
                out[:, :, p, q] = x[:, :, rows, columns].mean(axis=(2, 3))
        return out

    @op(outputs=_adaptive_backward_outputs)
    def adaptive_avg_pool2d_backward(self, grad_out: Array, *, input_size: Pair) -> Array:
        """Each bin's error, divided by its size, to each of its elements."""
        grad_x = self.xp.zeros((*grad_out.shape[:2], *input_size), grad_out.dtype)
        for p, rows in enumerate(bins(input_size[0], grad_out.shape[2])):
            for q, columns in enumerate(bins(input_size[1], grad_out.shape[3])):
                count = (rows.stop - rows.start) * (columns.stop - columns.start)
                grad_x[:, :, rows, columns] += grad_out[:, :, p : p + 1, q : q + 1] / count
        return grad_x


def bins(size: int, count: int) -> list[slice]:
    """Return the slices of adaptive pooling along an axis."""
    return [slice(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
