"""Non-maximum suppression: boxes are sorted, then each kept one drops those behind it."""

from __future__ import annotations

from typing import Any

import numpy as np

from trine.dtypes import Array, float64
from trine.kernels.numba.jit import scratch
from trine.kernels.numba.spread import each, inner, spread
from trine.kernels.registry import kernel


@inner
def _greater(a: Any, b: Any) -> Any:
    """Return the greater one; NaN where there is NaN is seen to by the area."""
    return a if a > b else b


@inner
def _less(a: Any, b: Any) -> Any:
    return a if a < b else b


@inner
def _suppress(
    item: int, boxes: Array, order: Array, iou_threshold: float, sides: Array, indices: Array,
    count: Array,
) -> None:  # fmt: skip
    """Fill indices with the kept boxes, then -1. sides (6, K): corners, areas, 1 while kept."""
    left, top, right, below, area, kept = sides[0], sides[1], sides[2], sides[3], sides[4], sides[5]
    size = order.size
    for i in range(size):
        box = boxes[order[i]]
        left[i], top[i], right[i], below[i] = box[0], box[1], box[2], box[3]
        area[i] = (right[i] - left[i]) * (below[i] - top[i])
        kept[i] = 1.0
    found = 0
    for i in range(size):
        if kept[i] == 0:
            continue
        indices[found] = order[i]
        found += 1
        x1, y1, x2, y2, own = left[i], top[i], right[i], below[i], area[i]
        for j in range(i + 1, size):
            width = _greater(_less(x2, right[j]) - _greater(x1, left[j]), 0.0)
            height = _greater(_less(y2, below[j]) - _greater(y1, top[j]), 0.0)
            common = width * height
            kept[j] = 0.0 if common / (own + area[j] - common) > iou_threshold else kept[j]
    for i in range(found, size):
        indices[i] = -1
    count[0] = found


@spread(grain=1 << 62)
def _nms(pool: int, threads: int, one: int, *args: Any) -> None:
    """Each box waits for those before it: one thread does all."""
    each(_suppress, pool, threads, one, args)


@kernel("nms", backend="numba", name="sorted", replayable=False)  # sorts in Python
def nms(boxes: Array, scores: Array, iou_threshold: float, indices: Array, count: Array) -> None:
    """indices = the kept boxes by falling score, then -1; count: how many."""
    order = np.argsort(-scores, kind="stable")
    size = order.size
    sides = scratch("nms", 6 * size, float64)[: 6 * size].reshape(6, size)
    _nms(1, 1, boxes, order, float(iou_threshold), sides, indices, count.reshape(1))
