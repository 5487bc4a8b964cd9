"""Padding in PyTorch's order of arguments, and its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import trine
import trine.functional as F
from trine.functional.padding import same_padding


def t64(values: Any) -> trine.Tensor:
    return trine.tensor(values, "float64")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


@pytest.mark.parametrize(
    ("pad", "widths"),
    [((1, 2), [(0, 0), (0, 0), (1, 2)]), ((1, 0, 2, 3), [(0, 0), (2, 3), (1, 0)]),
     ([0, 1, 1, 0, 2, 1], [(2, 1), (1, 0), (0, 1)]), ((0, 0), [(0, 0)] * 3)],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_pad(backend_name, rng, check_gradients, pad, widths, mode):
    x = rng.normal(size=(3, 4, 5))
    got = F.pad(t64(x), pad, mode)
    np.testing.assert_array_equal(got.numpy(), np.pad(x, widths, mode=mode))
    check_gradients(lambda t: F.pad(t, pad, mode) * 1, t64(x))


def test_pad_with_a_value_and_in_the_input_dtype(backend_name):
    x = trine.ones(2, 2)
    assert F.pad(x, (0, 1), value=-1.5).tolist() == [[1, 1, -1.5], [1, 1, -1.5]]
    assert F.pad(x, (0, 1), value=2).dtype == np.float32
    assert F.pad(x.long(), (1, 0), value=3).tolist() == [[3, 1, 1], [3, 1, 1]]
    assert F.pad(x, (1, 0), value=None).tolist() == [[0, 1, 1], [0, 1, 1]]


def test_padding_differentiates_twice(backend_name):
    x = t64([1.0, 2.0, 3.0]).requires_grad_()
    (first,) = trine.grad((F.pad(x, (2, 1), "reflect") ** 3).sum(), x, create_graph=True)
    assert first is not None  # padded: 3 2 1 2 3 2
    (second,) = trine.grad(first.sum(), x)
    assert first.tolist() == [3.0, 36.0, 54.0]
    assert second is not None
    assert second.tolist() == [6.0, 36.0, 36.0]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "expected"),
    [(28, 5, 1, 1, (2, 2)), (8, 3, 2, 1, (0, 1)), (7, 3, 2, 1, (1, 1)), (6, 2, 1, 1, (0, 1)),
     (5, 1, 3, 1, (0, 0)), (3, 2, 5, 1, (0, 0)), (8, 3, 1, 2, (2, 2)), (224, 7, 2, 1, (2, 3))],
)  # fmt: skip
def test_same_padding(size, kernel, stride, dilation, expected):
    """N_pad = max(0, (W' - 1) S + F - W), left the smaller half (TensorFlow's rule)."""
    assert same_padding(size, kernel, stride, dilation) == expected


@pytest.mark.parametrize(
    ("pad", "mode", "message"),
    [
        (
            (1,),
            "constant",
            r"\[pad\] expected pairs of numbers >= 0 for at most 2 axes, got \(1,\)",
        ),
        ((1, 1) * 3, "constant", r"at most 2 axes"),
        ((1, -1), "constant", r"got \(1, -1\)"),
        ((1.5, 1), "constant", r"got \(1\.5, 1\)"),
        (2, "constant", r"got 2\. Give \(left, right, top, bottom\)"),
        ((1, 1), "wrap", r"mode \"constant\" or \"reflect\", got 'wrap'"),
        ((3, 0), "reflect", r"narrower than the axes of \(2, 3\), got \(3, 0\)"),
        ((0, 0, 0, 2), "reflect", r"narrower than the axes"),
    ],
)
def test_wrong_calls(backend_name, pad, mode, message):
    with pytest.raises(ValueError, match=message):
        F.pad(trine.ones(2, 3), pad, mode)


def test_wrong_kinds(backend_name):
    with pytest.raises(TypeError, match=r"\[pad\] expected input to be a tensor, got list"):
        F.pad([1.0], (1, 1))
