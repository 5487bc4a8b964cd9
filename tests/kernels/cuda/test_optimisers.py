"""Optimiser steps and sums of squares: every variant, sizes about a block, faulty scales."""

from __future__ import annotations

import numpy as np
import pytest

from trine.backends import cases

STEPS = ("sgd_step", "adam_step", "rmsprop_step", "adagrad_step", "unit_step")


@pytest.mark.parametrize("op", STEPS)
def test_steps_in_any_order(check, order, op):
    for sample in cases.get(op).samples(np.random.default_rng(1), np.dtype("float32")):
        if sample.args[0].size < 5000:
            check(op, *sample.args, **sample.attrs)


@pytest.mark.parametrize("op", STEPS)
def test_a_scale_that_is_not_finite_changes_no_bit(cuda, op):
    for sample in cases.get(op).samples(np.random.default_rng(2), np.dtype("float32")):
        if not np.isfinite(sample.args[-1][0]):
            arrays = [None if a is None else cuda.xp.asarray(a) for a in sample.args]
            getattr(cuda, op)(*arrays, **sample.attrs)
            for before, after in zip(sample.args, arrays, strict=True):
                if before is not None:
                    assert cuda.to_numpy(after).tobytes() == before.tobytes()


def test_more_elements_than_a_grid_has_threads(check, monkeypatch):
    from trine.kernels.cuda import optimiser

    monkeypatch.setattr(optimiser, "MOST_BLOCKS", 2)
    for op in STEPS:
        for sample in cases.get(op).samples(np.random.default_rng(3), np.dtype("float32")):
            if sample.args[0].size == 4097:
                check(op, *sample.args, **sample.attrs)


@pytest.mark.parametrize("size", [0, 1, 33, 4096, 4097, 12300])
def test_sum_of_squares(cuda, check, order, size):
    x = np.random.default_rng(4).normal(size=size).astype("float32")
    check("sum_squares", x)
    first, again = (cuda.to_numpy(cuda.sum_squares(cuda.xp.asarray(x))) for _ in range(2))
    assert first.tobytes() == again.tobytes()
