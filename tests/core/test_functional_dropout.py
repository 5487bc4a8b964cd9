"""Dropout: the documented map from key to mask, its edges, its gradient, errors."""

from __future__ import annotations

import numpy as np
import pytest

import trine
import trine.functional as F
from trine.random import default_generator, make_key, stream_id


def philox_word(seed: int, draw: int, stream: int, element: int) -> int:
    """Return word `element` of a draw by Philox 4x32-10 in Python integers (Salmon et al., 2011)."""
    c = [element // 4, draw & 0xFFFFFFFF, draw >> 32, stream]
    k = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c[element % 4]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mask_is_the_documented_map(backend_name, dtype):
    seed, draw, stream, p = (7 << 33) + 5, 3 + (1 << 32), 99, 0.3
    x = np.random.default_rng(1).normal(size=(3, 7)).astype(dtype)
    kept = [
        (philox_word(seed, draw, stream, i) >> 8) * 2.0**-24 >= np.float32(p) for i in range(21)
    ]
    kept = np.reshape(kept, x.shape)
    scale = x.dtype.type(1 / (1 - p))
    tensor = trine.tensor(x, requires_grad=True)
    out = F.dropout(tensor, p, key=make_key(seed, stream, draw))
    assert out.dtype == x.dtype
    np.testing.assert_allclose(out.detach().numpy(), np.where(kept, x * scale, 0), rtol=1e-6)
    assert 0 < kept.sum() < kept.size
    out.sum().backward()
    np.testing.assert_allclose(tensor.grad.numpy(), np.where(kept, scale, 0), rtol=1e-6)
    with trine.autograd.composed_ops():
        again = F.dropout(tensor.detach(), p, key=make_key(seed, stream, draw))
    np.testing.assert_allclose(again.numpy(), out.detach().numpy(), rtol=1e-6)


def test_gradient_by_differences(backend_name, check_gradients):
    key = make_key(1, 2, 3)
    x = trine.tensor(np.random.default_rng(2).normal(size=(4, 5)))
    check_gradients(lambda a: F.dropout(a, 0.4, key=key), x)


def test_an_element_whose_uniform_equals_p_is_kept(backend_name):
    drawn = [(philox_word(1, 0, 2, i) >> 8) * 2.0**-24 for i in range(8)]
    out = F.dropout(trine.ones(8), drawn[3], key=make_key(1, 2, 0)).numpy()
    assert [value > 0 for value in out] == [u >= drawn[3] for u in drawn]
    assert out[3] > 0


def test_edges_of_p(backend_name):
    x = trine.tensor([1.0, -2.0, np.inf, np.nan], requires_grad=True)
    assert F.dropout(x, 0.0) is x
    assert F.dropout(x, 0.9, training=False) is x
    assert default_generator().counter == 0  # nothing was drawn
    out = F.dropout(x, 1.0)
    assert out.detach().numpy().tolist() == [0, 0, 0, 0]
    out.sum().backward()
    assert x.grad.numpy().tolist() == [0, 0, 0, 0]
    assert F.dropout(trine.zeros(0, 3), 0.5).shape == (0, 3)


def test_the_default_generator_gives_a_new_mask_each_time_and_repeats_by_seed(backend_name):
    x = trine.ones(1000)
    first, second = F.dropout(x), F.dropout(x)
    assert (first.numpy() != second.numpy()).any()
    trine.seed(0)
    assert (F.dropout(x).numpy() == first.numpy()).all()
    assert (F.dropout(x, key=make_key(0, stream_id("dropout"), 1)).numpy() == second.numpy()).all()
    assert set(first.numpy().tolist()) == {0.0, 2.0}
    assert 440 < (first.numpy() > 0).sum() < 560  # within 3.8 standard deviations of 500


def test_both_backends_drop_the_same_elements():
    key = make_key(4, 5, 6)
    outs = [
        F.dropout(trine.ones(257, backend=name), 0.25, key=key).numpy()
        for name in ("numpy", "numba")
    ]
    assert (outs[0] == outs[1]).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.dropout(trine.ones(2), 1.5), ValueError, r"\[dropout\] expected p from 0 to 1"),
        (lambda: F.dropout(trine.ones(2), -0.1), ValueError, "expected p from 0 to 1"),
        (lambda: F.dropout(trine.arange(2)), TypeError, "expected input of dtype float32"),
        (lambda: F.dropout(trine.ones(2), key=np.zeros(4, np.uint32)), ValueError,
         r"expected a key of uint32 \(5,\), got uint32 \(4,\)"),
        (lambda: F.dropout(trine.ones(2), key=np.zeros(5)), ValueError, "got float64"),
    ],
)  # fmt: skip
def test_dropout_errors(backend_name, call, error, message):
    with pytest.raises(error, match=message):
        call()
