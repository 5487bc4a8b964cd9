"""Softmax, its logarithm and cross-entropy: rows of every length, along every axis, hostile values."""

from __future__ import annotations

import numpy as np
import pytest

ROWS = ((1, 1), (3, 31), (9, 33), (2, 1024), (2, 1030), (1, 9001))
"""Below and above a warp, a row by a warp and by blocks of both sizes, ragged ends."""


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_rows_and_columns(check, order, op):
    rng = np.random.default_rng(1)
    for shape, axis in (*((shape, -1) for shape in ROWS), ((2, 5, 35), 1), ((300, 33), 0)):
        x = rng.normal(0, 4, shape).astype("float32")
        check(op, x, axis=axis)
        y = np.exp(x - x.max(axis, keepdims=True))
        y /= y.sum(axis, keepdims=True)
        y = np.log(y) if op == "log_softmax" else y
        check(f"{op}_backward", rng.normal(size=shape).astype("float32"), y, axis=axis)


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_impossible_and_faulty_rows(check, op):
    """-inf has probability 0; a row of nothing else, NaN or +inf spoil a row and only that row."""
    x = np.random.default_rng(2).normal(size=(6, 40)).astype("float64")
    x[0, 3] = x[5] = -np.inf
    x[2, 39], x[3, 0], x[4] = np.nan, np.inf, 700.0
    check(op, x, axis=1)
    check(op, np.ascontiguousarray(x.T), axis=0)
    check(op, np.zeros((0, 3), "float32"), axis=1)


def calls(rng, rows, classes, dtype="float32"):
    target = rng.integers(0, classes, rows)
    target[:1] = -100
    weight = rng.uniform(0.5, 2, classes).astype(dtype)
    for reduction in ("none", "mean", "sum"):
        for smoothing, used in ((0.0, None), (0.1, weight)):
            attrs = {"ignore_index": -100, "label_smoothing": smoothing, "reduction": reduction}
            yield target, used, attrs


def test_cross_entropy(check, order):
    rng = np.random.default_rng(3)
    for rows, classes in ((33, 10), (600, 3), (2, 1500)):
        logits = rng.normal(0, 3, (rows, classes)).astype("float32")
        log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        for target, weight, attrs in calls(rng, rows, classes):
            check("cross_entropy", logits, target, weight, **attrs)
            shape = target.shape if attrs["reduction"] == "none" else ()
            grad = np.asarray(rng.normal(size=shape), "float32")
            check("cross_entropy_backward", grad, log_probs, target, weight, **attrs)


def test_labels_out_of_range_and_no_rows(check):
    logits = np.random.default_rng(4).normal(size=(4, 3)).astype("float32")
    target = np.array([0, 3, -1, 2])
    for reduction in ("none", "mean"):
        attrs = {"ignore_index": -100, "label_smoothing": 0.0, "reduction": reduction}
        check("cross_entropy", logits, target, None, **attrs)
        check("cross_entropy", logits[:0], target[:0], None, **attrs)
        check("cross_entropy", logits, np.full(4, -100), None, **attrs)
