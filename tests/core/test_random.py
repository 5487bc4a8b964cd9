"""Philox: Random123's known answers, the documented map of elements, equality across backends."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

import trine
from trine import random
from trine.backends import get_backend

# Random123's kat_vectors for philox4x32-10: counter, key, result.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def _words(*values: int) -> tuple[np.ndarray, ...]:
    return tuple(np.array([value], dtype=np.uint64) for value in values)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter, key, expected):
    words = random.philox4x32(_words(*counter), _words(*key))
    assert tuple(int(word[0]) for word in words) == expected


def test_draws_use_the_known_counter_layout(backend_name):
    """The third known answer as a draw: block, draw and stream are the counter's words."""
    backend = get_backend(backend_name)
    key = random.make_key(
        seed=(0x299F31D0 << 32) | 0xA4093822,
        counter=(0x13198A2E << 32) | 0x85A308D3,
        stream=0x03707344,
    )
    words = backend.random_bits(key, n=11)
    counters = _words(2, 0x85A308D3, 0x13198A2E, 0x03707344)
    expected = random.philox4x32(counters, _words(0xA4093822, 0x299F31D0))
    assert words.dtype == np.uint32
    assert [int(w) for w in words[8:]] == [int(e[0]) for e in expected[:3]]


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 255, 4096, 70001])
def test_bits_equal_on_every_backend(backend_name, n):
    key = random.make_key(7, random.stream_id("test"), 2**40 + 1)
    np.testing.assert_array_equal(
        get_backend(backend_name).random_bits(key, n=n), random.bits(key, n)
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniforms_and_normals_are_the_same_bytes(backend_name, dtype):
    backend = get_backend(backend_name)
    key = random.make_key(1, 2, 3)
    kind = np.dtype(dtype)
    uniform = backend.random_uniform(key, shape=(33, 7), dtype=kind)
    normal = backend.random_normal(key, shape=(33, 7), dtype=kind)
    assert uniform.tobytes() == random.uniform(key, (33, 7), kind).tobytes()
    assert normal.tobytes() == random.normal(key, (33, 7), kind).tobytes()
    assert uniform.dtype == normal.dtype == kind


def test_normals_invert_the_distribution():
    edges = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, int(0.075 * 2**32), int(0.925 * 2**32)]
    words = np.array([*edges, *range(0, 2**32, 2**26 + 12345)], dtype=np.uint32)
    exact = [NormalDist().inv_cdf((int(w) + 0.5) / 2**32) for w in words]
    got = random.normal_from_bits(words, np.dtype("float64"))
    np.testing.assert_allclose(got, exact, rtol=0, atol=2e-15 * 8)


def test_uniforms_fill_the_unit_interval():
    draws = random.uniform(random.make_key(0, 0, 0), (200_000,))
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.005
    counts = np.histogram(draws, bins=16, range=(0, 1))[0]
    assert np.abs(counts - 12_500).max() < 6 * np.sqrt(12_500)


def test_permutation_is_one_and_depends_on_the_key():
    first = random.permutation(random.make_key(0, 1, 0), 1000)
    again = random.permutation(random.make_key(0, 1, 0), 1000)
    other = random.permutation(random.make_key(0, 1, 1), 1000)
    np.testing.assert_array_equal(np.sort(first), np.arange(1000))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_integers_cover_their_range():
    draws = random.integers(random.make_key(0, 0, 0), -2, 3, (5000,))
    assert set(np.unique(draws)) == {-2, -1, 0, 1, 2}


def test_generator_counts_draws_and_resumes():
    generator = random.Generator(5)
    first, second = generator.key(1), generator.key(1)
    assert (first != second).any()
    state = generator.state()
    third = generator.key(1)
    generator.load_state(state)
    np.testing.assert_array_equal(generator.key(1), third)


def test_seed_gives_the_same_tensors_on_every_backend(backend_name):
    trine.seed(11)
    draw = trine.randn(4, 5)
    assert (
        draw.numpy().tobytes()
        == random.normal(random.make_key(11, random.stream_id("randn"), 0), (4, 5)).tobytes()
    )


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range(seed):
    with pytest.raises(ValueError, match=r"\[random\] expected seed from 0 to 2\^64 - 1"):
        trine.seed(seed)


def test_streams_differ_by_purpose_and_path():
    assert len({random.stream_id("a"), random.stream_id("b"), random.stream_id("a", "x")}) == 3
