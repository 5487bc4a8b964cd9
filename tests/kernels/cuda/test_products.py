"""Matrix products and the fully connected layer over several tiles, splits and batches."""

from __future__ import annotations

import numpy as np
import pytest

from trine.kernels.cuda import tiles

RNG = np.random.default_rng(11)


def normal(shape, dtype="float32"):
    return RNG.normal(size=shape).astype(dtype)


@pytest.mark.parametrize(("m", "n", "k"), [(65, 130, 17), (3, 67, 700), (129, 64, 1)])
def test_linear_covers_several_tiles_and_ragged_ends(agrees, order, m, n, k):
    agrees("linear", normal((m, k)), normal((n, k)), normal((n,)), activation="relu")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
def test_large_tiles_with_every_layout(agrees, monkeypatch, dtype, trans_a, trans_b):
    monkeypatch.setattr(tiles, "MANY_BLOCKS", 2)
    m, n, k = 131, 129, 21
    a, b = (
        normal((k, m) if trans_a else (m, k), dtype),
        normal((n, k) if trans_b else (k, n), dtype),
    )
    agrees("matmul", a, b, trans_a=trans_a, trans_b=trans_b)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ((3, 5, 4), (3, 4, 2)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((4, 3), (2, 3, 3, 5)),
        ((2, 1, 2, 3, 4), (3, 1, 4, 2)),
        ((0, 3, 4), (4, 2)),
    ],
)
def test_batches_broadcast(agrees, order, x, y):
    agrees("matmul", normal(x), normal(y), trans_a=False, trans_b=False)


def test_more_axes_than_a_kernel_takes_are_refused(cuda):
    x, y = normal((2, 1, 2, 1, 2, 3)), normal((1, 2, 1, 2, 3, 2))
    with pytest.raises(Exception, match="matmul"):
        cuda.matmul(cuda.xp.asarray(x), cuda.xp.asarray(y), trans_a=False, trans_b=False)


@pytest.mark.parametrize("activation", ["none", "sigmoid"])
def test_gradients_split_deep_sums(agrees, order, activation):
    """1100 rows are a deep sum for the weights' gradient: it is cut and added in order."""
    n, i, o = 1100, 9, 11
    out = np.abs(normal((n, o))) % 1
    agrees(
        "linear_backward",
        normal((n, o)),
        normal((n, i)),
        normal((o, i)),
        out,
        activation=activation,
    )
    agrees("linear_weight_grad", normal((n, o)), normal((n, i)), out, activation=activation)


def test_the_same_bytes_in_every_order(cuda):
    from trine.kernels.cuda import emulator

    grad, x, out = normal((900, 5)), normal((900, 7)), normal((900, 5))
    found = set()
    for name in ("forward", "reverse", "shuffled"):
        before = emulator.configure(order=name)
        arrays = (cuda.xp.asarray(a) for a in (grad, x, out))
        result = cuda.linear_weight_grad(*arrays, activation="tanh")
        emulator.configure(order=before.order)
        found.add(b"".join(cuda.to_numpy(r).tobytes() for r in result))
    assert len(found) == 1


def test_gradients_of_no_rows_are_zero(agrees):
    empty = normal((0, 3))
    agrees("linear_weight_grad", empty, normal((0, 4)), empty, activation="relu")


def test_too_many_tiles_are_refused():
    with pytest.raises(
        ValueError, match=r"\[linear\] expected a product of at most .* smaller batch"
    ):
        tiles.SMALL.grid("linear", 2**30, 2**30, 1)
