"""Cases of pooling boxes and of picking boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trine.backends import get_backend
from trine.backends.cases.activation_cases import normal
from trine.backends.cases.case import OpCase, Rng, Sample, Samples, register
from trine.backends.reference.windows import Pair
from trine.dtypes import DType

SIDES = (1.0, 0.5, 0.0625)
"""Scales: exact in binary, so that corners lie on halves in all types alike."""


@dataclass(frozen=True)
class Pooling:
    """Boxes of images of a shape, pooled to a size."""

    shape: tuple[int, int, int, int]
    boxes: int
    size: Pair
    scale: float = 1.0
    sampling_ratio: int = 0
    aligned: bool = False

    @property
    def label(self) -> str:
        """The numbers."""
        words = f"{self.boxes} of {self.shape} to {self.size}, scale {self.scale}"
        return f"{words}, ratio {self.sampling_ratio}{', aligned' * self.aligned}"

    def draw(self, rng: Rng, dtype: DType) -> Any:
        """Return boxes (K, 5): inside, across the edge and far outside, upside down, of no size."""
        n, _, height, width = self.shape
        reach = np.array([width, height]) / self.scale
        corners = rng.uniform(-0.3, 1.3, (self.boxes, 2, 2)) * reach
        whole = rng.random(self.boxes) < 0.3  # on pixels, halves and the edges
        corners[whole] = np.round(2 * corners[whole]) / 2
        ordered = rng.random(self.boxes) < 0.8
        corners[ordered] = np.sort(corners[ordered], axis=1)
        empty = rng.random(self.boxes) < 0.1
        corners[empty, 1] = corners[empty, 0]
        image = rng.integers(0, max(n, 1), self.boxes)
        return np.column_stack([image, corners.reshape(-1, 4)]).astype(dtype)


POOLINGS = (
    Pooling((1, 1, 1, 1), 1, (1, 1)),
    Pooling((2, 3, 8, 9), 12, (3, 2)),
    Pooling((2, 3, 8, 9), 12, (3, 2), aligned=True),
    Pooling((2, 3, 8, 9), 12, (3, 2), 0.5, 2),
    Pooling((2, 3, 8, 9), 12, (3, 2), 0.5, 3, True),
    Pooling((3, 2, 13, 5), 33, (7, 7), 0.0625, 2, True),
    Pooling((1, 31, 6, 7), 3, (4, 5), 0.5),
    Pooling((2, 2, 33, 31), 5, (2, 3)),
    Pooling((2, 2, 33, 31), 5, (2, 3), 1.0, 1),
    Pooling((2, 1, 4, 4), 257, (2, 2)),
    Pooling((2, 3, 4, 5), 0, (2, 2)),
    Pooling((2, 0, 4, 5), 3, (2, 2)),
)
"""One pixel, ragged sizes, more bins than pixels, several boxes on a pixel, no boxes, no channels."""

TIMED = (
    ("tiny", Pooling((1, 8, 14, 14), 16, (7, 7), 0.0625, 2)),
    ("typical", Pooling((2, 64, 38, 50), 64, (7, 7), 0.0625, 2)),
    ("large", Pooling((2, 256, 50, 68), 256, (7, 7), 0.0625, 2)),
)

SPECIAL = {
    "whole image": (0, 0, 0, 7, 7),
    "corner": (0, 7, 7, 7, 7),
    "outside": (0, 20, 20, 30, 30),
    "left of it": (0, -9, 0, -4, 7),
    "upside down": (0, 6, 6, 1, 1),
    "on the edge": (0, -1, -1, 8, 8),
    "beyond all": (0, -1e30, -1e9, 1e30, 1e9),
    "NaN": (0, np.nan, 1, 5, 5),
    "no such image": (1, 1, 1, 5, 5),
    "negative image": (-1, 1, 1, 5, 5),
}
"""Boxes of an image of 8 x 8 elements."""


def _attrs(op: str, pooling: Pooling) -> dict[str, Any]:
    sampling = {"sampling_ratio": pooling.sampling_ratio, "aligned": pooling.aligned}
    place = {"spatial_scale": pooling.scale, **(sampling if "align" in op else {})}
    if "backward" not in op:
        return {"output_size": pooling.size, **place}
    sizes = {"batch": pooling.shape[0], "input_size": pooling.shape[2:]}
    return {**sizes, **place} if "align" in op else sizes


def _call(op: str, x: Any, boxes: Any, error: Any, pooling: Pooling) -> Sample:
    arrays: tuple[Any, ...] = (x, boxes)
    if op == "roi_align_backward":
        arrays = (error, boxes)
    elif op == "roi_pool_backward":
        _, argmax = get_backend("numpy").roi_pool(x, boxes, **_attrs("roi_pool", pooling))
        arrays = (error, argmax, boxes)
    return Sample(pooling.label, arrays, _attrs(op, pooling))


def _drawn(op: str, rng: Rng, dtype: DType, pooling: Pooling) -> Sample:
    x, boxes = normal(rng, dtype, pooling.shape), pooling.draw(rng, dtype)
    error = normal(rng, dtype, (pooling.boxes, pooling.shape[1], *pooling.size))
    return _call(op, x, boxes, error, pooling)


def _special(op: str, rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    for scale in SIDES:
        for ratio, aligned in ((0, False), (0, True), (2, True)):
            pooling = Pooling((1, 2, 8, 8), len(SPECIAL), (3, 3), scale, ratio, aligned)
            boxes = np.array(list(SPECIAL.values()))
            boxes[:, 1:] /= scale
            x, error = (normal(rng, dtype, s) for s in ((1, 2, 8, 8), (len(SPECIAL), 2, 3, 3)))
            sample = _call(op, x, boxes.astype(dtype), error, pooling)
            found.append(Sample(f"special, {pooling.label}", sample.args, sample.attrs))
    return found


def _samples(op: str) -> Samples:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = [_drawn(op, rng, dtype, pooling) for pooling in POOLINGS]
        found += _special(op, rng, dtype)
        if "backward" in op:
            return found
        for pooling in (POOLINGS[1], POOLINGS[3]):
            sample = _drawn(op, rng, dtype, pooling)
            x, boxes = sample.args
            values = {
                "ties": np.round(x),
                "all equal": np.zeros_like(x),
                "NaN": np.where(x > 1.5, np.nan, x).astype(dtype),
                "-inf": np.full_like(x, -np.inf),
            }
            for name, value in values.items():
                found.append(Sample(f"{sample.label}, {name}", (value, boxes), sample.attrs))
        return found

    return samples


def _timed(op: str) -> Samples:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = []
        for label, pooling in TIMED:
            sample = _drawn(op, rng, dtype, pooling)
            found.append(Sample(label, sample.args, sample.attrs))
        return found

    return samples


def _outputs(sample: Sample) -> int:
    """Count a call's pooled numbers."""
    if "output_size" not in sample.attrs:
        return int(sample.args[0].size)
    (p, q), (x, boxes) = sample.attrs["output_size"], sample.args
    return int(boxes.shape[0] * x.shape[1] * p * q)


def _align_flops(sample: Sample) -> int:
    """Each sample interpolates between four elements; at least one a bin where the box decides."""
    return int(8 * max(1, sample.attrs["sampling_ratio"]) ** 2 * _outputs(sample))


FLOPS: dict[str, Callable[[Sample], int]] = {
    "roi_pool": lambda sample: 0,
    "roi_pool_backward": _outputs,
    "roi_align": _align_flops,
    "roi_align_backward": _align_flops,
}

for _op, _flops in FLOPS.items():
    _class = "exact" if _op == "roi_pool" else "reduction"
    register(OpCase(_op, _samples(_op), _class, _timed(_op), _flops))


def _clusters(rng: Rng, count: int) -> Any:
    """Return boxes (K, 4) around a few places, so that many overlap."""
    centres = rng.uniform(0, 100, (1 + count // 6, 2))[rng.integers(0, 1 + count // 6, count)]
    corner = centres + rng.normal(0, 3, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(5, 25, (count, 2))], axis=1)


def _nms(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    for count in (0, 1, 2, 31, 33, 64, 65, 257):
        for threshold in (0.0, 0.5, 1.0):
            boxes, scores = _clusters(rng, count).astype(dtype), normal(rng, dtype, (count,))
            label = f"{count} boxes, {threshold}"
            found.append(Sample(label, (boxes, scores), {"iou_threshold": threshold}))
    boxes, scores = _clusters(rng, 130), rng.normal(size=130)
    whole = np.round(boxes / 4) * 4
    odd = boxes.copy()
    odd[::7], odd[3::7, :2] = np.nan, -np.inf
    upside_down = boxes[:, [2, 3, 0, 1]]
    for label, some, their in (
        ("ties of scores", boxes, np.round(scores)),
        ("equal scores", boxes, np.zeros(130)),
        ("equal boxes", np.tile(boxes[:1], (130, 1)), scores),
        ("no size", np.tile(boxes[:1, :2], (130, 2)), scores),
        ("on a grid", whole, np.round(scores)),
        ("upside down", np.where(rng.random((130, 1)) < 0.3, upside_down, boxes), scores),
        ("NaN and infinite corners", odd, scores),
        ("NaN and infinite scores", boxes, rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], 130)),
    ):
        arrays = (some.astype(dtype), their.astype(dtype))
        # 1/3 is the overlap of two equal boxes moved by half their width: whole numbers, exact
        found.extend(Sample(label, arrays, {"iou_threshold": t}) for t in (0.3, 1 / 3, 0.5))
    return found


def _nms_timed(rng: Rng, dtype: DType) -> list[Sample]:
    return [
        Sample(
            label,
            (_clusters(rng, count).astype(dtype), normal(rng, dtype, (count,))),
            {"iou_threshold": 0.7},
        )
        for label, count in (("tiny", 64), ("typical", 1000), ("large", 4000))
    ]


register(OpCase("nms", _nms, "exact", _nms_timed))
