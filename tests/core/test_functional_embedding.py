"""Embedding: rows by number, gradients that add up, the padding row, errors."""

from __future__ import annotations

import numpy as np
import pytest

import trine
import trine.functional as F


@pytest.fixture
def table() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(6, 3))


def test_embedding_looks_rows_up(backend_name, table):
    weight = trine.tensor(table, "float32")
    for indices in ([4, 0, 4], [[1, 2], [3, 5]], 2):
        for dtype in ("int64", "int32", "uint8"):
            out = F.embedding(trine.tensor(indices, dtype), weight)
            assert out.dtype == np.float32
            assert (out.numpy() == table.astype(np.float32)[np.asarray(indices)]).all()


@pytest.mark.parametrize("padding_idx", [None, 1, -2])
def test_gradient_adds_up_over_duplicates_and_skips_padding(backend_name, table, padding_idx):
    indices = np.array([[1, 4, 1], [0, 1, 4]])
    upstream = np.random.default_rng(6).normal(size=(2, 3, 3))
    expected = np.zeros((6, 3))
    for place in np.ndindex(2, 3):
        expected[indices[place]] += upstream[place]
    if padding_idx is not None:
        expected[padding_idx] = 0
    weight = trine.tensor(table, requires_grad=True)
    out = F.embedding(trine.tensor(indices), weight, padding_idx)
    assert (out.detach().numpy() == table[indices]).all()  # the padding row is looked up as it is
    out.backward(trine.tensor(upstream))
    np.testing.assert_allclose(weight.grad.numpy(), expected, rtol=1e-13, atol=1e-14)
    weight.grad = None
    with trine.autograd.composed_ops():
        again = F.embedding(trine.tensor(indices), weight, padding_idx)
    assert (again.detach().numpy() == table[indices]).all()
    again.backward(trine.tensor(upstream))
    np.testing.assert_allclose(weight.grad.numpy(), expected, rtol=1e-13, atol=1e-14)


def test_gradient_by_differences(backend_name, table, check_gradients):
    indices = trine.tensor([3, 3, 0, 5])
    check_gradients(lambda w: F.embedding(indices, w), trine.tensor(table))


def test_no_lookups_give_a_zero_gradient(backend_name, table):
    weight = trine.tensor(table, requires_grad=True)
    out = F.embedding(trine.zeros(2, 0, dtype="int64"), weight)
    assert out.shape == (2, 0, 3)
    out.sum().backward()
    assert (weight.grad.numpy() == 0).all()


def test_the_sum_of_duplicates_has_one_order(backend_name):
    rng = np.random.default_rng(8)
    indices = trine.tensor(rng.integers(0, 3, size=500))
    upstream = trine.tensor(
        rng.normal(size=(500, 4)) * 10.0 ** rng.integers(-4, 4, (500, 1)), "float32"
    )
    found = []
    for _ in range(3):
        weight = trine.zeros(3, 4, requires_grad=True)
        F.embedding(indices, weight).backward(upstream)
        found.append(weight.grad.numpy().tobytes())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda w: F.embedding(trine.tensor([0, 6]), w), ValueError,
         r"\[embedding\] expected numbers from 0 to 5.* got 0 to 6"),
        (lambda w: F.embedding(trine.tensor([-1]), w), ValueError, "got -1 to -1"),
        (lambda w: F.embedding(trine.tensor([0.0]), w), TypeError, "expected input of integers"),
        (lambda w: F.embedding([0], w), TypeError, "expected input to be a tensor, got list"),
        (lambda w: F.embedding(trine.tensor([0]), w[0]), ValueError, r"shape \(V, D\), got \(3,\)"),
        (lambda w: F.embedding(trine.tensor([0]), w, 6), ValueError, "padding_idx from -6 to 5"),
        (lambda w: F.embedding(trine.tensor([0]), w.long()), TypeError, "expected weight of dtype"),
    ],
)  # fmt: skip
def test_embedding_errors(backend_name, table, call, error, message):
    with pytest.raises(error, match=message):
        call(trine.tensor(table))
