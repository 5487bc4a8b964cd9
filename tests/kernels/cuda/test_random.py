"""Random words and dropout are the same bits as those of trine.random."""

from __future__ import annotations

import numpy as np
import pytest

import trine

KEYS = ((0, 0, 0), (2**63 + 5, 123, 2**40), (2**64 - 1, 2**32 - 1, 2**64 - 1))


@pytest.mark.parametrize("key", KEYS)
def test_words_are_equal(cuda, order, key):
    key = trine.random.make_key(*key)
    for n in (0, 1, 3, 4, 5, 1023, 1025, 5000):
        words = cuda.random_bits(cuda.asarray_key(key), n=n)
        np.testing.assert_array_equal(cuda.to_numpy(words), trine.random.bits(key, n))
    assert cuda.ran["random_bits"] == "philox"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_is_equal(cuda, order, dtype):
    x = np.random.default_rng(1).normal(size=(3, 5, 101)).astype(dtype)
    x.flat[:4] = np.nan, np.inf, -0.0, -np.inf
    key = trine.random.make_key(7, 8, 9)
    reference = trine.backends.get_backend("numpy")
    for p in (0.0, 0.25, 0.5, 1.0):
        for op in ("dropout", "dropout_backward"):
            got = getattr(cuda, op)(cuda.xp.asarray(x), cuda.asarray_key(key), p=p)
            np.testing.assert_array_equal(cuda.to_numpy(got), getattr(reference, op)(x, key, p=p))
            assert cuda.ran[op] == "philox"


def test_too_many_words_are_refused():
    from trine.kernels.cuda.random import _random_bits

    with pytest.raises(ValueError, match=r"\[random_bits\] expected 0 to 2\^34 elements"):
        _random_bits(np.zeros(5, np.uint32), 2**34 + 1, np.zeros(1))
