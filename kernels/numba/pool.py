"""Max and average pooling: rows of windows, one element of the window after the other.

Each thread owns whole planes, so the gradients add up without atomics and in a fixed order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba.jit import FAST_SUM, helper, parallel
from trine.kernels.registry import kernel

Pair = tuple[int, int]


@lru_cache(maxsize=256)
def _first_inside(
    size: int, count: int, kernel: int, stride: int, padding: int, dilation: int
) -> npt.NDArray[np.int64]:
    """Return the first element of each window along an axis that is not padding; -1: none."""
    positions = np.arange(count)[:, None] * stride - padding + np.arange(kernel) * dilation
    inside = (positions >= 0) & (positions < size)
    return np.where(inside.any(axis=1), inside.argmax(axis=1), -1).astype(np.int64)


@lru_cache(maxsize=256)
def _counts(
    size: int, count: int, kernel: int, stride: int, padding: int, include: bool
) -> npt.NDArray[np.int64]:
    """Return how many elements each window averages along an axis."""
    starts = np.arange(count) * stride - padding
    low, high = (-padding, size + padding) if include else (0, size)
    return np.minimum(starts + kernel, high) - np.maximum(starts, low)


@helper
def _columns(width: int, count: int, stride: int, shift: int) -> Any:
    """Return the range of outputs j for which j stride + shift lies inside the row."""
    first = max(0, (-shift + stride - 1) // stride)
    last = min(count, (width - shift + stride - 1) // stride)
    return first, max(first, last)


@helper
def _max_row(row: Array, stride: int, number: Any, best: Array, argmax: Array) -> None:
    """Let row[j stride] win over best[j] if it is greater, or the first NaN."""
    if stride == 1:
        for j in range(best.size):
            value, old = row[j], best[j]
            wins = (value > old) | ((value != value) & (old == old))  # noqa: PLR0124  NaN
            best[j] = value if wins else old
            argmax[j] = number if wins else argmax[j]
    else:
        for j in range(best.size):
            value, old = row[j * stride], best[j]
            wins = (value > old) | ((value != value) & (old == old))  # noqa: PLR0124
            best[j] = value if wins else old
            argmax[j] = number if wins else argmax[j]


# Pooling by 2 x 2 without overlap or border, the common case, takes one loop a row. Its indices are
# unsigned, since a sign that the compiler cannot rule out would keep it from using vectors.
ONE, TWO = np.uint64(1), np.uint64(2)


@helper
def is_quads(kernel_size: Pair, stride: Pair, padding: Pair, rows: Any, columns: Any) -> bool:
    """Return whether windows are 2 x 2, side by side; rows and columns: (input, output)."""
    plain = kernel_size == (2, 2) and stride == (2, 2) and padding == (0, 0)
    return plain and 2 * rows[1] <= rows[0] and 2 * columns[1] <= columns[0]


@helper
def _max_quads(x: Array, out: Array, argmax: Array) -> None:
    """Find the maxima first, then where they are: as two loops both become vectors."""
    for i in range(out.shape[0]):
        top, bottom, best, where = x[2 * i], x[2 * i + 1], out[i], argmax[i]
        n = np.uint64(best.size)
        for j in range(n):
            left = TWO * j
            a, b, c, d = top[left], top[left + ONE], bottom[left], bottom[left + ONE]
            value = a if (b <= a) or (a != a) else b  # noqa: PLR0124  NaN wins, the first of them
            value = value if (c <= value) or (value != value) else c  # noqa: PLR0124
            value = value if (d <= value) or (value != value) else d  # noqa: PLR0124
            best[j] = value
        for j in range(n):
            left = TWO * j
            value = best[j]
            is_nan = value != value  # noqa: PLR0124
            a, b, c = top[left], top[left + ONE], bottom[left]
            number = 3
            number = 2 if (c == value) | ((c != c) & is_nan) else number  # noqa: PLR0124
            number = 1 if (b == value) | ((b != b) & is_nan) else number  # noqa: PLR0124
            number = 0 if (a == value) | ((a != a) & is_nan) else number  # noqa: PLR0124
            where[j] = number


@helper
def _avg_quads(x: Array, counts_r: Array, counts_s: Array, out: Array) -> None:
    for i in range(out.shape[0]):
        top, bottom, total, count = x[2 * i], x[2 * i + 1], out[i], counts_r[i]
        for j in range(np.uint64(total.size)):
            left = TWO * j
            value = ((top[left] + top[left + ONE]) + bottom[left]) + bottom[left + ONE]
            total[j] = value / (count * counts_s[j])


@helper
def _spread_quads(grad_out: Array, counts_r: Array, counts_s: Array, grad_x: Array) -> None:
    for i in range(grad_out.shape[0]):
        top, bottom, error, count = grad_x[2 * i], grad_x[2 * i + 1], grad_out[i], counts_r[i]
        for j in range(np.uint64(error.size)):
            left = TWO * j
            share = error[j] / (count * counts_s[j])
            top[left] = share
            top[left + ONE] = share
            bottom[left] = share
            bottom[left + ONE] = share


@helper
def _max_plane(
    x: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    first_r: Array,
    first_s: Array,
    out: Array,
    argmax: Array,
) -> None:
    height, width = x.shape
    for i in range(out.shape[0]):
        best, where = out[i], argmax[i]
        for j in range(best.size):
            best[j] = -np.inf
            found = first_r[i] >= 0 and first_s[j] >= 0
            where[j] = first_r[i] * kernel_size[1] + first_s[j] if found else 0
        for r in range(kernel_size[0]):
            y = i * stride[0] - padding[0] + r * dilation[0]
            if y < 0 or y >= height:
                continue
            for s in range(kernel_size[1]):
                shift = s * dilation[1] - padding[1]
                first, last = _columns(width, best.size, stride[1], shift)
                if first < last:
                    row = x[y, first * stride[1] + shift :]
                    number = argmax.dtype.type(r * kernel_size[1] + s)
                    _max_row(row, stride[1], number, best[first:last], where[first:last])


@parallel()
def _max_pool(
    x: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    first_r: Array,
    first_s: Array,
    out: Array,
    argmax: Array,
) -> None:
    sizes = (x.shape[1], out.shape[1]), (x.shape[2], out.shape[2])
    quads = is_quads(kernel_size, stride, padding, *sizes) and dilation == (1, 1)
    for p in prange(x.shape[0]):
        if quads:
            _max_quads(x[p], out[p], argmax[p])
        else:
            _max_plane(
                x[p], kernel_size, stride, padding, dilation, first_r, first_s, out[p], argmax[p]
            )


@kernel("max_pool2d", backend="numba", name="rows")
def max_pool2d(
    x: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    ceil_mode: bool,
    out: Array,
    argmax: Array,
) -> None:
    """out = max over the window, argmax = r S + s of the first maximum; NaN wins."""
    n, c, height, width = x.shape
    rows, columns = out.shape[2:]
    first_r = _first_inside(height, rows, kernel_size[0], stride[0], padding[0], dilation[0])
    first_s = _first_inside(width, columns, kernel_size[1], stride[1], padding[1], dilation[1])
    _max_pool(
        out.size * kernel_size[0] * kernel_size[1],
        x.reshape(n * c, height, width),
        kernel_size,
        stride,
        padding,
        dilation,
        first_r,
        first_s,
        out.reshape(n * c, rows, columns),
        argmax.reshape(n * c, rows, columns),
    )


@parallel()
def _max_pool_backward(
    grad_out: Array,
    argmax: Array,
    stride: Pair,
    padding: Pair,
    shifts: Array,
    first_r: Array,
    first_s: Array,
    grad_x: Array,
) -> None:
    """Add each error to the element of its window's maximum: shifts[argmax] from the window."""
    height, width = grad_x.shape[1], grad_x.shape[2]
    for p in prange(grad_out.shape[0]):
        plane = grad_x[p].reshape(height * width)
        plane[:] = 0
        for i in range(grad_out.shape[1]):
            if first_r[i] < 0:
                continue
            start = (i * stride[0] - padding[0]) * width - padding[1]
            for j in range(grad_out.shape[2]):
                if first_s[j] >= 0:
                    plane[start + j * stride[1] + shifts[argmax[p, i, j]]] += grad_out[p, i, j]


@kernel("max_pool2d_backward", backend="numba", name="planes")
def max_pool2d_backward(
    grad_out: Array,
    argmax: Array,
    input_size: Pair,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    grad_x: Array,
) -> None:
    """grad_x at each window's maximum += grad_out; 0 elsewhere."""
    n, c, rows, columns = grad_out.shape
    height, width = input_size
    first_r = _first_inside(height, rows, kernel_size[0], stride[0], padding[0], dilation[0])
    first_s = _first_inside(width, columns, kernel_size[1], stride[1], padding[1], dilation[1])
    r, s = np.divmod(np.arange(kernel_size[0] * kernel_size[1]), kernel_size[1])
    _max_pool_backward(
        grad_x.size,
        grad_out.reshape(n * c, rows, columns),
        argmax.reshape(n * c, rows, columns),
        stride,
        padding,
        r * dilation[0] * width + s * dilation[1],
        first_r,
        first_s,
        grad_x.reshape(n * c, height, width),
    )


@helper
def is_whole(kernel_size: Pair, padding: Pair, rows: Any, columns: Any) -> Any:
    """Return whether the one window is the whole plane; rows and columns: (input, output)."""
    is_one = rows[1] == 1 and columns[1] == 1
    covers = kernel_size[0] - padding[0] >= rows[0] and kernel_size[1] - padding[1] >= columns[0]
    return is_one and covers


@helper(fastmath=FAST_SUM)
def _plane_sum(x: Array, p: int) -> Any:
    result = x.dtype.type(0)
    for j in range(x.shape[1]):
        result += x[p, j]
    return result


# Windows of averages are sums of columns first, rows of the image after rows, then sums along them.


@helper
def _avg_plane(
    x: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    counts_r: Array,
    counts_s: Array,
    out: Array,
) -> None:
    height, width = x.shape
    line = np.empty(width, x.dtype)
    for i in range(out.shape[0]):
        start = i * stride[0] - padding[0]
        line[:] = 0
        for y in range(max(start, 0), min(start + kernel_size[0], height)):
            for w in range(width):
                line[w] += x[y, w]
        for j in range(out.shape[1]):
            out[i, j] = 0
        for s in range(kernel_size[1]):
            shift = s - padding[1]
            first, last = _columns(width, out.shape[1], stride[1], shift)
            if stride[1] == 1:
                for j in range(first, last):
                    out[i, j] += line[j + shift]
            else:
                for j in range(first, last):
                    out[i, j] += line[j * stride[1] + shift]
        for j in range(out.shape[1]):
            out[i, j] /= counts_r[i] * counts_s[j]


@helper
def _spread_plane(
    grad_out: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    counts_r: Array,
    counts_s: Array,
    grad_x: Array,
) -> None:
    height, width = grad_x.shape
    columns = grad_out.shape[1]
    line, share = np.empty(width, grad_x.dtype), np.empty(columns, grad_x.dtype)
    for i in range(grad_out.shape[0]):
        for j in range(columns):
            share[j] = grad_out[i, j] / (counts_r[i] * counts_s[j])
        line[:] = 0
        for s in range(kernel_size[1]):
            shift = s - padding[1]
            first, last = _columns(width, columns, stride[1], shift)
            if stride[1] == 1:
                for j in range(first, last):
                    line[j + shift] += share[j]
            else:
                for j in range(first, last):
                    line[j * stride[1] + shift] += share[j]
        start = i * stride[0] - padding[0]
        for y in range(max(start, 0), min(start + kernel_size[0], height)):
            for w in range(width):
                grad_x[y, w] += line[w]


@parallel()
def _avg_pool(
    x: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    counts_r: Array,
    counts_s: Array,
    out: Array,
) -> None:
    height, width = x.shape[1], x.shape[2]
    rows, columns = (height, out.shape[1]), (width, out.shape[2])
    quads = is_quads(kernel_size, stride, padding, rows, columns)
    whole = is_whole(kernel_size, padding, rows, columns)
    flat = x.reshape(x.shape[0], height * width)
    for p in prange(x.shape[0]):
        if whole:
            out[p, 0, 0] = _plane_sum(flat, np.int64(p)) / (counts_r[0] * counts_s[0])
        elif quads:
            _avg_quads(x[p], counts_r, counts_s, out[p])
        else:
            _avg_plane(x[p], kernel_size, stride, padding, counts_r, counts_s, out[p])


@parallel()
def _avg_pool_backward(
    grad_out: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    counts_r: Array,
    counts_s: Array,
    grad_x: Array,
) -> None:
    height, width = grad_x.shape[1], grad_x.shape[2]
    rows, columns = grad_out.shape[1], grad_out.shape[2]
    quads = is_quads(kernel_size, stride, padding, (height, rows), (width, columns))
    whole = is_whole(kernel_size, padding, (height, rows), (width, columns))
    for p in prange(grad_out.shape[0]):
        plane = grad_x[p]
        if whole:
            plane[:] = grad_out[p, 0, 0] / (counts_r[0] * counts_s[0])
            continue
        if quads:
            if 2 * rows < height or 2 * columns < width:
                plane[:] = 0
            _spread_quads(grad_out[p], counts_r, counts_s, plane)
            continue
        plane[:] = 0
        _spread_plane(grad_out[p], kernel_size, stride, padding, counts_r, counts_s, plane)


def _divisors(
    size: Pair, out_size: Pair, kernel: Pair, stride: Pair, padding: Pair, include: bool,
    override: int, dtype: Any,
) -> tuple[Array, Array]:  # fmt: skip
    """Return two vectors whose products are the divisors of the windows."""
    if override:
        return np.full(out_size[0], override, dtype), np.ones(out_size[1], dtype)
    rows, columns = (
        _counts(size[i], out_size[i], kernel[i], stride[i], padding[i], include) for i in (0, 1)
    )
    return rows.astype(dtype), columns.astype(dtype)


@kernel("avg_pool2d", backend="numba", name="rows")
def avg_pool2d(
    x: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int,
    out: Array,
) -> None:
    """out = sum over the window / divisor."""
    n, c, height, width = x.shape
    rows, columns = out.shape[2:]
    counts = _divisors(
        (height, width), (rows, columns), kernel_size, stride, padding, count_include_pad,
        divisor_override, x.dtype,
    )  # fmt: skip
    _avg_pool(
        out.size * kernel_size[0] * kernel_size[1],
        x.reshape(n * c, height, width),
        kernel_size,
        stride,
        padding,
        *counts,
        out.reshape(n * c, rows, columns),
    )


@kernel("avg_pool2d_backward", backend="numba", name="planes")
def avg_pool2d_backward(
    grad_out: Array,
    input_size: Pair,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int,
    grad_x: Array,
) -> None:
    """grad_x of each element of each window += grad_out / divisor."""
    n, c, rows, columns = grad_out.shape
    counts = _divisors(
        input_size, (rows, columns), kernel_size, stride, padding, count_include_pad,
        divisor_override, grad_out.dtype,
    )  # fmt: skip
    _avg_pool_backward(
        grad_out.size * kernel_size[0] * kernel_size[1],
        grad_out.reshape(n * c, rows, columns),
        kernel_size,
        stride,
        padding,
        *counts,
        grad_x.reshape(n * c, *input_size),
    )
