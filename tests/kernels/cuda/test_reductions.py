"""Sums, extrema and their positions over any axes: ties, NaN, infinities, nothing at all."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from trine.kernels.cuda.reductions import reduction_steps

SHAPES = ((33,), (1,), (), (3, 1030), (1030, 3), (40, 70), (2, 5, 33))


@pytest.mark.parametrize("op", ["sum", "max"])
def test_all_sets_of_axes(check, order, op):
    rng = np.random.default_rng(1)
    for shape in SHAPES:
        x = rng.normal(size=shape).astype("float32")
        for count in range(len(shape) + 1):
            for axes in itertools.combinations(range(len(shape)), count):
                check(op, x, axis=axes, keepdims=False)
    check(op, rng.normal(size=(2, 3, 4, 3, 2)).astype("float32"), axis=(0, 2, 4), keepdims=True)
    check(op, rng.normal(size=(2, 3, 4, 3)).astype("float32"), axis=(0, -2), keepdims=False)


@pytest.mark.parametrize("op", ["sum", "max", "min"])
def test_chunks(cuda, check, op):
    """Several blocks for one result; and the same bits again."""
    rng = np.random.default_rng(2)
    for shape, axis in (
        ((20000,), None),
        ((2, 9000), (1,)),
        ((600, 40), (0,)),
        ((2, 9, 5000), (0, 2)),
    ):
        x = rng.normal(size=shape).astype("float32")
        check(op, x, axis=axis, keepdims=False)
        x = cuda.xp.asarray(x)
        first, again = (cuda.to_numpy(getattr(cuda, op)(x, axis=axis)) for _ in range(2))
        assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("op", ["sum", "max", "min"])
def test_special_values(check, op):
    x = np.random.default_rng(3).normal(size=(6, 37)).astype("float32")
    x[0, 3], x[1, 36], x[2, 0], x[3] = np.nan, -np.inf, np.inf, -np.inf
    x[4, 1], x[4, 2] = np.inf, -np.inf
    for axis in ((1,), (0,), None):
        check(op, x, axis=axis, keepdims=False)


@pytest.mark.parametrize("op", ["argmax", "argmin"])
def test_positions(cuda, check, order, op):
    rng = np.random.default_rng(4)
    for shape, axis in (
        ((33,), None),
        ((5, 1100), 1),
        ((300, 40), 0),
        ((5, 7, 3), 1),
        ((3, 4), None),
    ):
        x = rng.integers(-3, 3, shape).astype("float32")
        check(op, x, axis=axis, keepdims=False)
        if x.size > 40:
            x.flat[[7, 30]] = np.nan
            got = cuda.to_numpy(getattr(cuda, op)(cuda.xp.asarray(x), axis=axis))
            np.testing.assert_array_equal(got, getattr(np, op)(x, axis=axis))
    x = np.full((2, 5), -np.inf if op == "argmax" else np.inf, "float32")
    check(op, x, axis=1, keepdims=True)


def test_nothing_to_reduce(cuda, check):
    check("sum", np.zeros((0, 3), "float32"), axis=(0,), keepdims=False)
    check("sum", np.zeros((4, 0), "float32"), axis=None, keepdims=False)
    check("max", np.zeros((0, 3), "float32"), axis=(1,), keepdims=False)
    empty = cuda.xp.asarray(np.zeros((0, 3), "float32"))
    for op in ("max", "min"):
        with pytest.raises(ValueError, match=rf"\[{op}\] expected elements to reduce"):
            getattr(cuda, op)(empty, axis=(0,))
    with pytest.raises(ValueError, match=r"\[argmax\] expected elements to choose from"):
        cuda.argmax(empty, axis=0)


def test_steps_of_a_reduction():
    assert reduction_steps((5, 7, 3), {1}) == [(5, 7, 3, 1)]
    assert reduction_steps((5, 7, 3), {0, 2}) == [(1, 5, 7, 3)]
    assert reduction_steps((5, 7, 3), {0, 1, 2}) == [(1, 1, 1, 105)]
    assert reduction_steps((5, 1, 3), {1}) == [(1, 1, 15, 1)]
    assert reduction_steps((2, 3, 4, 5), {0, 2}) == [(6, 4, 5, 1), (1, 2, 15, 1)]
