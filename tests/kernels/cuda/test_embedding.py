"""Rows by number, and their gradient in order: repeats, rows nobody names, padding, many rows."""

from __future__ import annotations

import numpy as np
import pytest

from trine.kernels.cuda import embedding


def test_rows_by_number(check, order):
    rng = np.random.default_rng(1)
    for rows, width, shape in (
        (5, 3, (7,)),
        (1, 1, (1,)),
        (40, 33, (3, 2, 5)),
        (9, 300, (2,)),
        (4, 2, (0,)),
    ):
        weight = rng.normal(size=(rows, width)).astype("float32")
        check("embedding", weight, rng.integers(0, rows, shape))


def test_a_number_out_of_range_gives_nan(cuda):
    weight = cuda.xp.asarray(np.ones((3, 2), "float32"))
    out = cuda.to_numpy(cuda.embedding(weight, cuda.xp.asarray(np.array([0, 3, -1, 2]))))
    np.testing.assert_array_equal(np.isnan(out).all(1), [False, True, True, False])


@pytest.mark.parametrize("enough", [1, 4096])
def test_gradients_add_up_in_order(cuda, order, enough, monkeypatch):
    """Equal to the last bit, since terms are added in the reference's order; one row a warp, or many."""
    monkeypatch.setattr(embedding, "ENOUGH_WARPS", enough)
    rng = np.random.default_rng(2)
    for rows, width, count, padding in (
        (6, 3, 9, 2),
        (200, 33, 70, -1),
        (3, 40, 500, 0),
        (5, 2, 0, 1),
    ):
        indices = rng.integers(0, rows, count)
        grad = rng.normal(size=(count, width)).astype("float32")
        got = cuda.embedding_backward(
            cuda.xp.asarray(grad),
            cuda.xp.asarray(indices),
            num_embeddings=rows,
            padding_idx=padding,
        )
        wanted = np.zeros((rows, width), "float32")
        for m, v in enumerate(indices):
            if v != padding:
                wanted[v] += grad[m]
        assert cuda.to_numpy(got).tobytes() == wanted.tobytes()
        assert cuda.ran["embedding_backward"] == "slices"
