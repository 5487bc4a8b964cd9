"""Random bits: the documented map from key to bits, its edges, errors."""

from __future__ import annotations

import numpy as np
import pytest

import trine
import trine.functional as F
from trine import random
from trine.random import make_key, stream_id


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_are_the_uniforms_below_p(backend_name: str, dtype: str) -> None:
    key = make_key(3, 4, 5)
    p = np.linspace(0.0, 1.0, 15).reshape(3, 5).astype(dtype)
    drawn = F.bernoulli(trine.tensor(p), key)
    assert drawn.dtype.name == dtype
    assert np.array_equal(drawn.numpy(), random.uniform(key, (3, 5), "float32") < p)


def test_zero_one_and_nan_are_certain(backend_name: str) -> None:
    for p, bit in ((0.0, 0.0), (1.0, 1.0), (-1.0, 0.0), (2.0, 1.0), (float("nan"), 0.0)):
        assert set(F.bernoulli(trine.full((1000,), p)).tolist()) == {bit}


def test_how_often_it_is_one(backend_name: str) -> None:
    drawn = F.bernoulli(trine.full((100_000,), 0.3)).numpy()
    assert drawn.mean() == pytest.approx(0.3, abs=4 * (0.21 / 100_000) ** 0.5)


def test_without_a_key_the_default_generator_gives_its_next(backend_name: str) -> None:
    p = trine.full((64,), 0.5)
    trine.seed(9)
    first, second = F.bernoulli(p).numpy(), F.bernoulli(p).numpy()
    assert not np.array_equal(first, second)
    key = make_key(9, stream_id("bernoulli"), 1)
    assert np.array_equal(F.bernoulli(p, key).numpy(), second)


def test_bits_are_outside_the_graph(backend_name: str) -> None:
    p = trine.full((4,), 0.5).requires_grad_()
    assert not F.bernoulli(p).requires_grad


def test_errors() -> None:
    with pytest.raises(
        ValueError, match=r"\[bernoulli\] expected a key of uint32 \(5,\), got uint32 \(4"
    ):
        F.bernoulli(trine.ones(2), np.zeros(4, np.uint32))
    with pytest.raises(
        TypeError, match=r"\[bernoulli\] expected input of dtype float32 or float64"
    ):
        F.bernoulli(trine.tensor([1, 0]))
