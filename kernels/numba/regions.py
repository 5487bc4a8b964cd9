"""Pooling of boxes: a thread owns planes of the result, so that gradients add up in a fixed order.

Where elements lie is computed in float64, as in the reference, and so is the same for both types.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trine.dtypes import Array, int64
from trine.kernels.numba.conv import Pair
from trine.kernels.numba.jit import scratch
from trine.kernels.numba.spread import each, inner, spread
from trine.kernels.registry import kernel

FAR = 1e6
"""Coordinates beyond this many pixels count as this."""


@inner
def _image(box: Array, batch: int) -> int:
    """Return the number of a box's image; -1 if there is no such image."""
    return int(box[0]) if box[0] >= 0 and box[0] < batch else -1


@inner
def _scaled(v: Any, spatial_scale: float) -> float:
    """Return a coordinate in pixels, not too far away."""
    return min(max(np.float64(v) * spatial_scale, -FAR), FAR) if v == v else np.nan  # noqa: PLR0124


# --- maximum ------------------------------------------------------------------------------------


@inner
def _pixel(v: Any, spatial_scale: float) -> int:
    """Return a coordinate rounded to whole pixels, halves away from zero."""
    y = _scaled(v, spatial_scale)
    if y != y:  # noqa: PLR0124  NaN
        return int(FAR)
    return int(np.floor(y + 0.5) if y >= 0 else np.ceil(y - 0.5))


@inner
def _cut(v: int, size: int) -> int:
    return min(max(v, 0), size)


@inner
def _largest(plane: Array, first_h: int, last_h: int, first_w: int, last_w: int) -> Any:
    """Return the maximum of a bin that is not empty, and its place; the first NaN, if there is one."""
    best, place = plane[first_h, first_w], first_h * plane.shape[1] + first_w
    for h in range(first_h, last_h):
        row = plane[h]
        for w in range(first_w, last_w):
            value = row[w]
            if not (value <= best):  # greater, or NaN: one comparison an element
                best, place = value, h * row.size + w
                if value != value:  # noqa: PLR0124
                    return best, place
    return best, place


@inner
def _max_of_box(item: int, x: Array, boxes: Array, scale: float, out: Array, argmax: Array) -> None:
    """Pool a channel of a box."""
    (batch, channels, height, width), (rows, columns) = x.shape, out.shape[2:]
    k, c = item // channels, item % channels
    image = _image(boxes[k], batch)
    left, top = _pixel(boxes[k, 1], scale), _pixel(boxes[k, 2], scale)
    length_w = max(_pixel(boxes[k, 3], scale) - left + 1, 1)
    length_h = max(_pixel(boxes[k, 4], scale) - top + 1, 1)
    for p in range(rows):
        first_h = _cut(top + p * length_h // rows, height)
        last_h = _cut(top - (-(p + 1) * length_h) // rows, height)
        for q in range(columns):
            first_w = _cut(left + q * length_w // columns, width)
            last_w = _cut(left - (-(q + 1) * length_w) // columns, width)
            best, place = x.dtype.type(0), -1
            if image >= 0 and first_h < last_h and first_w < last_w:
                best, place = _largest(x[image, c], first_h, last_h, first_w, last_w)
            out[k, c, p, q], argmax[k, c, p, q] = best, place


@spread()
def _roi_pool(pool: int, threads: int, items: int, *args: Any) -> None:
    """Pool every channel of every box."""
    each(_max_of_box, pool, threads, items, args)


@kernel("roi_pool", backend="numba", name="planes")
def roi_pool(
    x: Array, boxes: Array, output_size: Pair, spatial_scale: float, out: Array, argmax: Array
) -> None:
    """out = max over each bin of each box, argmax = h W + w of it; 0 and -1 for an empty bin."""
    items = boxes.shape[0] * x.shape[1]
    _roi_pool(4 * out.size, items, x, boxes, float(spatial_scale), out, argmax)


@inner
def _max_of_box_backward(
    item: int, grad_out: Array, argmax: Array, boxes: Array, batch: int, grad_x: Array
) -> None:
    """The gradient of a plane, box by box."""
    n, c = item // grad_out.shape[1], item % grad_out.shape[1]
    target = grad_x[item]
    target[:] = 0
    for k in range(boxes.shape[0]):
        if _image(boxes[k], batch) != n:
            continue
        for p in range(grad_out.shape[2]):
            for q in range(grad_out.shape[3]):
                place = argmax[k, c, p, q]
                if place >= 0:
                    target[place] += grad_out[k, c, p, q]


@spread()
def _roi_pool_backward(pool: int, threads: int, items: int, *args: Any) -> None:
    """The gradient of every plane."""
    each(_max_of_box_backward, pool, threads, items, args)


@kernel("roi_pool_backward", backend="numba", name="planes")
def roi_pool_backward(
    grad_out: Array, argmax: Array, boxes: Array, batch: int, input_size: Pair, grad_x: Array
) -> None:
    """grad_x at the maximum of each bin += its error, in the order of boxes and bins."""
    planes = batch * grad_out.shape[1]
    area = input_size[0] * input_size[1]
    _roi_pool_backward(
        grad_out.size + grad_x.size, planes, grad_out, argmax, boxes, batch,
        grad_x.reshape(planes, area),
    )  # fmt: skip


# --- mean of samples ----------------------------------------------------------------------------


@inner
def _weights(
    low: Any, high: Any, spatial_scale: float, sampling_ratio: int, aligned: bool, weights: Array,
    reach: Array,
) -> None:  # fmt: skip
    """Fill what each element counts for in each bin (P, size), and where a bin's elements lie (P, 2)."""
    count, size = weights.shape
    like = weights.dtype.type
    offset = 0.5 if aligned else 0.0
    start = _scaled(low, spatial_scale) - offset
    length = _scaled(high, spatial_scale) - offset - start
    if not aligned and length < 1:
        length = 1.0
    step = length / count
    samples = np.float64(sampling_ratio) if sampling_ratio > 0 else np.ceil(step)
    for p in range(count):
        row = weights[p]
        row[:] = 0
        first, last = size, -1
        base = start + p * step
        i = 0.0
        if sampling_ratio == 0:  # a large box has many samples outside of the image
            i = max(0.0, np.floor((-1 - base) / (step / samples) - 0.5))
        while i < samples:
            y = base + (i + 0.5) * step / samples
            i += 1
            if y > size and sampling_ratio == 0:
                break
            if not (y >= -1 and y <= size):
                continue
            y = min(max(y, 0.0), np.float64(size - 1))
            lower = int(y)
            upper = min(lower + 1, size - 1)
            row[lower] += like((1 - (y - lower)) / samples)
            row[upper] += like((y - lower) / samples)
            first, last = min(first, lower), max(last, upper)
        reach[p, 0], reach[p, 1] = first, last + 1


@inner
def _box_weights(
    k: int, boxes: Array, scale: float, sampling_ratio: int, aligned: bool, u: Array, v: Array,
    reach_u: Array, reach_v: Array,
) -> None:  # fmt: skip
    """Fill the weights of a box's rows and columns."""
    box = boxes[k]
    _weights(box[2], box[4], scale, sampling_ratio, aligned, u[k], reach_u[k])
    _weights(box[1], box[3], scale, sampling_ratio, aligned, v[k], reach_v[k])


@spread()
def _all_weights(pool: int, threads: int, boxes: int, *args: Any) -> None:
    """Fill the weights of all boxes."""
    each(_box_weights, pool, threads, boxes, args)


def _tables(
    boxes: Array, input_size: Pair, output_size: Pair, scale: float, sampling_ratio: int,
    aligned: bool,
) -> list[Array]:  # fmt: skip
    """Return u (K, P, H), v (K, Q, W), and where they are not 0: (K, P, 2), (K, Q, 2)."""
    tables = []
    for kind, dtype, widths in (("weights", boxes.dtype, input_size), ("reach", int64, (2, 2))):
        for axis in (0, 1):
            shape = (boxes.shape[0], output_size[axis], widths[axis])
            size = shape[0] * shape[1] * shape[2]
            tables.append(scratch(f"roi_{kind}{axis}", size, dtype)[:size].reshape(shape))
    work = 8 * (tables[0].size + tables[1].size)
    how = (float(scale), sampling_ratio, bool(aligned))
    _all_weights(work, boxes.shape[0], boxes, *how, *tables)
    return tables


@inner
def _mean_of_box(
    item: int, x: Array, boxes: Array, u: Array, v: Array, reach_u: Array, reach_v: Array,
    out: Array,
) -> None:  # fmt: skip
    """Pool a channel of a box."""
    k, c = item // x.shape[1], item % x.shape[1]
    image, zero = _image(boxes[k], x.shape[0]), x.dtype.type(0)
    if image < 0:
        out[k, c] = zero
        return
    plane = x[image, c]
    for p in range(out.shape[2]):
        for q in range(out.shape[3]):
            total = zero
            for h in range(reach_u[k, p, 0], reach_u[k, p, 1]):
                if u[k, p, h] == zero:
                    continue
                inside = zero
                for w in range(reach_v[k, q, 0], reach_v[k, q, 1]):
                    weight = v[k, q, w]
                    if weight != zero:
                        inside += weight * plane[h, w]
                total += u[k, p, h] * inside
            out[k, c, p, q] = total


@spread()
def _roi_align(pool: int, threads: int, items: int, *args: Any) -> None:
    """Pool every channel of every box."""
    each(_mean_of_box, pool, threads, items, args)


@kernel("roi_align", backend="numba", name="planes")
def roi_align(
    x: Array, boxes: Array, output_size: Pair, spatial_scale: float, sampling_ratio: int,
    aligned: bool, out: Array,
) -> None:  # fmt: skip
    """out_kcpq = sum_hw u_kph v_kqw x_bchw."""
    tables = _tables(boxes, x.shape[2:], output_size, spatial_scale, sampling_ratio, aligned)
    _roi_align(16 * out.size, boxes.shape[0] * x.shape[1], x, boxes, *tables, out)


@inner
def _mean_of_box_backward(
    item: int, grad_out: Array, boxes: Array, u: Array, v: Array, reach_u: Array, reach_v: Array,
    batch: int, grad_x: Array,
) -> None:  # fmt: skip
    """The gradient of a plane, box by box."""
    n, c = item // grad_out.shape[1], item % grad_out.shape[1]
    target = grad_x[item]
    target[:] = 0
    for k in range(boxes.shape[0]):
        if _image(boxes[k], batch) != n:
            continue
        for p in range(grad_out.shape[2]):
            for q in range(grad_out.shape[3]):
                error = grad_out[k, c, p, q]
                for h in range(reach_u[k, p, 0], reach_u[k, p, 1]):
                    share = u[k, p, h] * error
                    if u[k, p, h] != 0:
                        for w in range(reach_v[k, q, 0], reach_v[k, q, 1]):
                            target[h, w] += v[k, q, w] * share


@spread()
def _roi_align_backward(pool: int, threads: int, items: int, *args: Any) -> None:
    """The gradient of every plane."""
    each(_mean_of_box_backward, pool, threads, items, args)


@kernel("roi_align_backward", backend="numba", name="planes")
def roi_align_backward(
    grad_out: Array, boxes: Array, batch: int, input_size: Pair, spatial_scale: float,
    sampling_ratio: int, aligned: bool, grad_x: Array,
) -> None:  # fmt: skip
    """grad_x_bchw = sum_kpq u_kph v_kqw grad_out_kcpq over the boxes of image b, in their order."""
    size = grad_out.shape[2:]
    tables = _tables(boxes, input_size, size, spatial_scale, sampling_ratio, aligned)
    planes = batch * grad_out.shape[1]
    _roi_align_backward(
        16 * grad_out.size + grad_x.size, planes, grad_out, boxes, *tables, batch,
        grad_x.reshape(planes, *input_size),
    )  # fmt: skip
