"""Boxes: anchors, their coding, overlaps, and how a detector's boxes are judged.

A box is (left, top, right, bottom) in pixels, the edges of an image being 0 and its size; boxes
are NumPy arrays (..., 4). With centre (x, y), width w and height h, and those of an anchor marked a,
a box is coded relative to the anchor as

    t = ((x - x_a) / w_a, (y - y_a) / h_a, ln(w / w_a), ln(h / h_a)) * scale.

Source: Ren, He, Girshick and Sun, Faster R-CNN, 2015; Everingham et al., The PASCAL visual object
classes challenge, 2010, with every point of the curve instead of eleven.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Scale = tuple[float, float, float, float]
PLAIN: Scale = (1.0, 1.0, 1.0, 1.0)
LARGEST_GROWTH = math.log(1000.0 / 16.0)
"""Coded sizes are cut off here before the exponential, lest an untrained net's overflow."""


def make_anchors(
    rows: int, columns: int, stride: int, sizes: Sequence[float], ratios: Sequence[float]
) -> Floats:
    """Return the anchors of a feature map, (rows * columns * sizes * ratios, 4).

    Each is centred on a cell's middle and has the area size^2 and the given height / width. The
    order is row, column, size, ratio.
    """
    side = np.asarray(sizes, dtype=np.float64)[:, None]
    root = np.sqrt(np.asarray(ratios, dtype=np.float64))[None, :]
    half = np.stack([side / root, side * root], axis=-1).reshape(-1, 2) / 2
    y, x = np.mgrid[:rows, :columns]
    centre = (np.stack([x, y], axis=-1).reshape(-1, 1, 2) + 0.5) * stride
    return np.concatenate([centre - half, centre + half], axis=-1).reshape(-1, 4)


def _centres(boxes: Floats) -> tuple[Floats, Floats]:
    """Return centres and sizes, (..., 2) each."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low


def encode(boxes: Floats, anchors: Floats, scale: Scale = PLAIN) -> Floats:
    """Return the code of each box relative to its anchor."""
    (place, size), (place_a, size_a) = _centres(boxes), _centres(anchors)
    code = np.concatenate([(place - place_a) / size_a, np.log(size / size_a)], axis=-1)
    return code * np.asarray(scale)


def decode(codes: Floats, anchors: Floats, scale: Scale = PLAIN) -> Floats:
    """Return the boxes of codes: the inverse of `encode`."""
    place_a, size_a = _centres(anchors)
    code = codes / np.asarray(scale)
    place = place_a + code[..., :2] * size_a
    half = size_a * np.exp(np.minimum(code[..., 2:], LARGEST_GROWTH)) / 2
    return np.concatenate([place - half, place + half], axis=-1)


def clip(boxes: Floats, height: int, width: int) -> Floats:
    """Cut boxes to an image."""
    return np.clip(boxes, 0.0, np.array([width, height, width, height], dtype=np.float64))


def areas(boxes: Floats) -> Floats:
    """Return width times height; 0 for boxes turned inside out."""
    size = np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return size[..., 0] * size[..., 1]


def overlaps(a: Floats, b: Floats) -> Floats:
    """Return intersection / union of each of a (A, 4) with each of b (B, 4), (A, B)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = areas(np.concatenate([low, high], axis=-1))
    union = areas(a)[:, None] + areas(b)[None] - common
    return common / np.maximum(union, np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Detections:
    """What was found in an image: boxes (K, 4), scores (K,), kinds (K,)."""

    boxes: Floats
    scores: Floats
    kinds: npt.NDArray[np.int64]


def average_precision(scores: Floats, hits: npt.NDArray[np.bool_], positives: int) -> float:
    """Return the area under the curve of precision over recall, by every point of it.

    The detections, best first, give points (recall, precision) = (TP / positives, TP / (TP + FP));
    the precision at a recall is the largest at it or beyond. Equal scores keep their order. NaN
    without positives.
    """
    if positives == 0:
        return math.nan
    found = np.cumsum(hits[np.argsort(-scores, kind="stable")])
    precision = found / np.arange(1, len(found) + 1)
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.concatenate([[0.0], found / positives])
    return float(np.sum(np.diff(recall) * best_beyond))


def average_precisions(
    found: Sequence[Detections], truth: Sequence[Floats], classes: int, overlap: float = 0.5
) -> Floats:
    """Return each class's average precision over images; their mean is mAP.

    truth: rows (kind, left, top, right, bottom) for each image. A detection is right if the box of
    its kind with which it overlaps most does so by at least `overlap` and no better detection has
    claimed that box.
    """
    result = np.empty(classes)
    for kind in range(classes):
        scores: list[float] = []
        hits: list[bool] = []
        rows = [(image, i) for image, one in enumerate(found)
                for i in np.flatnonzero(one.kinds == kind)]  # fmt: skip
        rows.sort(key=lambda row: -found[row[0]].scores[row[1]])
        boxes = [np.asarray(one[one[:, 0] == kind, 1:], dtype=np.float64) for one in truth]
        free = [np.ones(len(one), dtype=bool) for one in boxes]
        for image, i in rows:
            scores.append(float(found[image].scores[i]))
            shared = overlaps(found[image].boxes[i : i + 1], boxes[image])[0]
            best = int(shared.argmax()) if len(shared) else -1
            hit = best >= 0 and bool(shared[best] >= overlap and free[image][best])
            if hit:
                free[image][best] = False
            hits.append(hit)
        positives = sum(len(one) for one in boxes)
        result[kind] = average_precision(np.array(scores), np.array(hits, dtype=bool), positives)
    return result
