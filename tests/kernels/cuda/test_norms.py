"""Normalisation: channels and rows by a warp, a block, columns and several blocks; far from zero."""

from __future__ import annotations

import numpy as np
import pytest

EPS = {"eps": 1e-5}
CHANNELS = (
    (4, 3, 5),
    (33, 40, 1),
    (2, 3, 40),
    (1, 2, 1100),
    (40, 9, 3),
    (2, 3, 6000),
    (600, 33, 1),
)
"""The last two in chunks: planes by blocks, columns."""


def draw(rng, shape, centre=0.0, dtype="float32"):
    return rng.normal(centre, 1, shape).astype(dtype)


@pytest.mark.parametrize("shape", CHANNELS)
def test_over_the_batch(check, order, shape):
    rng = np.random.default_rng(1)
    channels = shape[1:2]
    x, grad = draw(rng, shape, 0.5), draw(rng, shape)
    weight, bias = draw(rng, channels), draw(rng, channels)
    mean, var = x.mean((0, 2)), x.var((0, 2))
    check("batch_norm", x, weight, bias, **EPS)
    check("batch_norm_eval", x, None, bias, mean + 1, var + 1, **EPS)
    check("batch_norm_backward", grad, x, weight, mean, var, **EPS)
    check("batch_norm_eval_backward", grad, x, None, mean, var, **EPS)


def test_far_from_zero_costs_no_digits(check):
    """The mean of squares would lose everything here; so would one shift by the first element."""
    rng = np.random.default_rng(2)
    for shape in ((8, 3, 50), (2, 2, 9000)):
        x = draw(rng, shape, 1000.0)
        check("batch_norm", x, None, None, **EPS)
        x[0, :, 0] = 0
        check("batch_norm", x, None, None, **EPS)
    check("layer_norm", draw(rng, (5, 70), 1000.0, "float64"), None, None, **EPS)


def test_faulty_elements_spoil_their_channel_only(check):
    x = draw(np.random.default_rng(3), (4, 5, 3))
    x[0, 1, 1], x[2, 3, 0] = np.nan, np.inf
    check("batch_norm", x, None, None, **EPS)
    check("layer_norm", x.reshape(20, 3), None, None, **EPS)
    check("batch_norm", np.full((3, 2, 4), 3, "float32"), None, None, **EPS)


@pytest.mark.parametrize("shape", [(5, 7), (9, 33), (3, 1100), (1, 1), (0, 4), (600, 9)])
def test_over_rows(check, order, shape):
    rng = np.random.default_rng(4)
    x, grad = draw(rng, shape, 0.5), draw(rng, shape)
    weight, bias = draw(rng, shape[1:]), draw(rng, shape[1:])
    check("layer_norm", x, weight, bias, **EPS)
    mean = x.mean(1)
    rstd = 1 / np.sqrt(x.var(1) + np.float32(1e-5))
    check("layer_norm_backward", grad, x, weight, mean, rstd)


@pytest.mark.parametrize(
    ("shape", "groups"),
    [((2, 6, 5), 1), ((2, 6, 5), 3), ((9, 6, 1), 6), ((2, 4, 700), 2), ((0, 4, 3), 2)],
)
def test_over_groups(check, order, shape, groups):
    rng = np.random.default_rng(5)
    x, grad = draw(rng, shape, 0.5), draw(rng, shape)
    weight, bias = draw(rng, shape[1:2]), draw(rng, shape[1:2])
    check("group_norm", x, weight, bias, groups=groups, **EPS)
    check("group_norm", x, None, None, groups=groups, **EPS)
    grouped = x.reshape(shape[0], groups, shape[1] // groups * shape[2])
    mean, rstd = grouped.mean(2), 1 / np.sqrt(grouped.var(2) + np.float32(1e-5))
    check("group_norm_backward", grad, x, weight, mean, rstd, groups=groups)
