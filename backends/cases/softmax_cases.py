"""Cases of softmax, its logarithm, and cross-entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trine.backends.cases.case import OpCase, Rng, Sample, register
from trine.dtypes import DType

SHAPES: tuple[tuple[tuple[int, ...], int], ...] = (
    ((5, 7), 1), ((5, 7), 0), ((3, 4, 5), 1), ((33,), 0), ((1, 1), 1), ((31, 257), 1),
    ((257, 31), 0), ((2, 8192), 1), ((1000, 10), -1), ((0, 3), 1), ((3, 0), 1),
)  # fmt: skip
"""Short and long rows on every side of a block, the first and a middle axis, nothing at all."""

TIMED = (("tiny", (64, 10)), ("typical", (512, 1000)), ("large", (8192, 4096)))


def _special(dtype: DType) -> Any:
    inf, nan = np.inf, np.nan
    rows = [
        [-inf, 0, 1, 2], [-inf, -inf, -inf, 0], [-inf] * 4, [nan, 0, 1, 2], [0, 1, 2, nan],
        [inf, 0, 1, 2], [3] * 4, [1e4, -1e4, 0, 1e4], [-88, 88, -104, 0],
    ]  # fmt: skip
    return np.array(rows, dtype)


def _forward(rng: Rng, dtype: DType) -> list[Sample]:
    found = [
        Sample(f"{shape} along {axis}", (rng.normal(0, 3, shape).astype(dtype),), {"axis": axis})
        for shape, axis in SHAPES
    ]
    found.append(Sample("special values", (_special(dtype),), {"axis": 1}))
    return [*found, Sample("special columns", (_special(dtype).T,), {"axis": 0})]


def _probabilities(x: Any, axis: int) -> Any:
    if x.size == 0:
        return x
    power = np.exp(x - x.max(axis=axis, keepdims=True))
    return power / power.sum(axis=axis, keepdims=True)


def _backward(logarithm: bool) -> Callable[[Rng, DType], list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = []
        for shape, axis in SHAPES:
            out = _probabilities(rng.normal(size=shape), axis)
            out = np.log(out) if logarithm else out
            arrays = (rng.normal(size=shape).astype(dtype), out.astype(dtype))
            found.append(Sample(f"{shape} along {axis}", arrays, {"axis": axis}))
        out = np.array([[0, 0.25, 0.75], [1, 0, 0]])
        with np.errstate(divide="ignore"):
            out = np.log(out) if logarithm else out
        arrays = (rng.normal(size=out.shape).astype(dtype), out.astype(dtype))
        return [*found, Sample("impossible classes", arrays, {"axis": 1})]

    return samples


def _timed(arrays: int) -> Callable[[Rng, DType], list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        return [
            Sample(label, (rng.normal(size=s).astype(dtype),) * arrays, {"axis": 1})
            for label, s in TIMED
        ]

    return samples


def _size(sample: Sample) -> int:
    return int(sample.args[0].size)


for _name in ("softmax", "log_softmax"):
    register(OpCase(_name, _forward, "normalise", _timed(1), lambda sample: 5 * _size(sample)))
register(
    OpCase("softmax_backward", _backward(False), "normalise", _timed(2), lambda s: 4 * _size(s))
)
register(
    OpCase("log_softmax_backward", _backward(True), "normalise", _timed(2), lambda s: 4 * _size(s))
)


# Cross-entropy

PLAIN = {"ignore_index": -100, "label_smoothing": 0.0, "reduction": "mean"}


def _labels(rng: Rng, rows: int, classes: int, ignored: float = 0.0) -> Any:
    labels = rng.integers(0, classes, rows)
    return np.where(rng.uniform(size=rows) < ignored, -100, labels)


def _calls(rng: Rng, dtype: DType) -> list[tuple[str, Any, Any, Any, dict[str, Any]]]:
    """Return label, logits, target, class weights and attributes of each call."""
    found: list[tuple[str, Any, Any, Any, dict[str, Any]]] = []
    for reduction in ("none", "mean", "sum"):
        for smoothing in (0.0, 0.1):
            for weighted in (False, True):
                logits = rng.normal(0, 3, (33, 10)).astype(dtype)
                weight = rng.uniform(0.2, 2, 10).astype(dtype) if weighted else None
                attrs = {"ignore_index": -100, "label_smoothing": smoothing, "reduction": reduction}
                label = f"{reduction}, smoothing {smoothing}, {'weighted' if weighted else 'plain'}"
                found.append((label, logits, _labels(rng, 33, 10, 0.2), weight, attrs))
    for rows, classes in ((1, 1), (5, 1), (1, 31), (257, 33), (3, 8192), (20000, 3), (0, 4)):
        logits = rng.normal(0, 3, (rows, classes)).astype(dtype)
        label = f"{rows} rows of {classes} classes"
        found.append((label, logits, _labels(rng, rows, classes), None, PLAIN))
    four = rng.normal(0, 3, (4, 3)).astype(dtype)
    labels = np.array([0, 1, 2, 1])
    found.append(("a class to ignore", four, labels, None, {**PLAIN, "ignore_index": 1}))
    found.append(("all ignored", four, np.full(4, -100), None, PLAIN))
    each = {**PLAIN, "reduction": "none"}
    found.append(("labels out of range", four, np.array([0, 3, -1, 2]), None, each))
    special = _special(dtype)
    found.append(("special values", special, np.arange(len(special)) % 4, None, each))
    huge = np.array([[1e4, 0, -1e4], [-1e4, 1e4, 0]], dtype)
    found.append(("logits of 1e4", huge, np.array([0, 0]), None, PLAIN))
    return found


def _cross_entropy(rng: Rng, dtype: DType) -> list[Sample]:
    return [
        Sample(label, (logits, target, weight), attrs)
        for label, logits, target, weight, attrs in _calls(rng, dtype)
    ]


def _cross_entropy_backward(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    for label, logits, target, weight, attrs in _calls(rng, dtype):
        with np.errstate(all="ignore"):
            log_probs = np.log(_probabilities(logits.astype(np.float64), 1)).astype(dtype)
        grad_shape = target.shape if attrs["reduction"] == "none" else ()
        grad = np.asarray(rng.normal(size=grad_shape), dtype)
        found.append(Sample(label, (grad, log_probs, target, weight), attrs))
    return found


def _cross_entropy_timed(backward: bool) -> Callable[[Rng, DType], list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = []
        for label, (rows, classes) in TIMED:
            logits = rng.normal(size=(rows, classes)).astype(dtype)
            arrays = (logits, _labels(rng, rows, classes), None)
            head = (np.ones((), dtype),) if backward else ()
            found.append(Sample(label, (*head, *arrays), PLAIN))
        return found

    return samples


register(
    OpCase(
        "cross_entropy",
        _cross_entropy,
        "normalise",
        _cross_entropy_timed(False),
        lambda sample: 5 * _size(sample),
    )
)
register(
    OpCase(
        "cross_entropy_backward",
        _cross_entropy_backward,
        "normalise",
        _cross_entropy_timed(True),
        lambda sample: 4 * int(sample.args[1].size),
    )
)
