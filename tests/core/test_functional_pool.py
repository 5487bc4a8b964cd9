"""Pooling against loops over windows that follow PyTorch's definitions, and the rules on ties."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import trine
import trine.functional as F
from trine.backends import get_backend

Pair = tuple[int, int]

WINDOWS = list(itertools.product([2, (3, 2)], [1, 2, (3, 2)], [0, 1, (1, 0)], [False, True]))
"""(kernel, stride, padding, ceil_mode)."""


def t64(values: Any, requires_grad: bool = False) -> trine.Tensor:
    return trine.tensor(values, "float64", requires_grad)


def both(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else value


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def starts(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> range:
    """Return where windows start, counted from the input's first element."""
    fits = (size + 2 * padding - dilation * (kernel - 1) - 1) / stride
    count = (math.ceil(fits) if ceil else math.floor(fits)) + 1
    if ceil and (count - 1) * stride - padding >= size:  # would start behind the input
        count -= 1
    return range(-padding, -padding + count * stride, stride)


def max_loop(x, kernel, stride, padding, dilation, ceil, delta=None):
    """Return the maxima, or with `delta` the gradient: to the first maximum, in row-major order."""
    kernel, stride, padding, dilation = (both(v) for v in (kernel, stride, padding, dilation))
    h, w = x.shape[2:]
    rows, columns = (
        starts((h, w)[i], kernel[i], stride[i], padding[i], dilation[i], ceil) for i in (0, 1)
    )
    out = np.full((*x.shape[:2], len(rows), len(columns)), -np.inf)
    grad = np.zeros_like(x)
    for n, c, p, q in np.ndindex(*out.shape):
        place = None
        for r, s in np.ndindex(*kernel):
            i, j = rows[p] + r * dilation[0], columns[q] + s * dilation[1]
            if not (0 <= i < h and 0 <= j < w):
                continue
            value = x[n, c, i, j]
            if (
                place is None
                or value > x[n, c, *place]
                or (np.isnan(value) and not np.isnan(x[n, c, *place]))
            ):
                place = (i, j)
        if place is not None:
            out[n, c, p, q] = x[n, c, *place]
            if delta is not None:
                grad[n, c, *place] += delta[n, c, p, q]
    return out if delta is None else grad


def avg_loop(x, kernel, stride, padding, ceil, include, divisor, delta=None):
    """Return the means, or with `delta` the gradient, window by window."""
    kernel, stride, padding = both(kernel), both(stride), both(padding)
    size = x.shape[2:]
    rows, columns = (starts(size[i], kernel[i], stride[i], padding[i], 1, ceil) for i in (0, 1))
    out, grad = np.zeros((*x.shape[:2], len(rows), len(columns))), np.zeros_like(x)
    for p, q in np.ndindex(*out.shape[2:]):
        corner = (rows[p], columns[q])
        ends = [min(corner[i] + kernel[i], size[i] + padding[i]) for i in (0, 1)]
        whole = (ends[0] - corner[0]) * (ends[1] - corner[1])  # no element past the padding counts
        here = tuple(slice(max(corner[i], 0), min(ends[i], size[i])) for i in (0, 1))
        inside = (here[0].stop - here[0].start) * (here[1].stop - here[1].start)
        count = divisor or (whole if include else inside)
        out[:, :, p, q] = x[:, :, *here].sum((2, 3)) / count
        if delta is not None:
            grad[:, :, *here] += (delta[:, :, p, q] / count)[:, :, None, None]
    return out if delta is None else grad


def run(function, x, delta):
    """Return a function's value at x and its gradient for the upstream gradient delta."""
    tensor = t64(x, True)
    out = function(tensor)
    assert out.shape == delta.shape
    out.backward(t64(delta))
    return out.detach().numpy(), tensor.grad.numpy()


def check(function, x, delta, expected, gradient):
    """Compare the fused op and its composition with what the loops gave."""
    out, grad = run(function, x, delta)
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(grad, gradient, rtol=1e-12, atol=1e-13)
    with trine.autograd.composed_ops():
        out, grad = run(function, x, delta)
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(grad, gradient, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("kernel", "stride", "padding", "ceil"), WINDOWS)
@pytest.mark.parametrize("dilation", [1, (2, 1)])
def test_max_pool2d(backend_name, rng, kernel, stride, padding, ceil, dilation):
    x = np.round(rng.normal(size=(2, 2, 8, 7)))  # whole numbers: many ties
    options = (kernel, stride, padding, dilation, ceil)
    expected = max_loop(x, *options)
    delta = rng.normal(size=expected.shape)
    gradient = max_loop(x, *options, delta)
    check(lambda t: F.max_pool2d(t, *options), x, delta, expected, gradient)


def test_the_error_of_a_maximum_goes_to_the_first_in_row_major_order(backend_name):
    x = t64([[[[1.0, 5, 2, 2], [5, 5, 2, 2]]]], True)
    out = F.max_pool2d(x, 2)
    assert out.tolist() == [[[[5.0, 2.0]]]]
    out.backward(t64([[[[3.0, 4.0]]]]))
    assert x.grad is not None
    assert x.grad.tolist() == [[[[0, 3, 4, 0], [0, 0, 0, 0]]]]


def test_nan_wins_and_the_first_nan_gets_the_error(backend_name):
    x = t64([[[[np.inf, np.nan], [np.nan, 1.0]]]], True)
    out = F.max_pool2d(x, 2)
    assert np.isnan(out.item())
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[[[0, 1], [0, 0]]]]


@pytest.mark.parametrize("padding", [0, 1])
def test_a_window_of_minus_infinity_finds_an_element_of_the_input(backend_name, padding):
    x = t64(np.full((1, 1, 2, 2), -np.inf), True)
    out = F.max_pool2d(x, 2, padding=padding)
    assert (out.detach().numpy() == -np.inf).all()
    out.backward(t64(np.ones(out.shape)))
    assert x.grad is not None
    expected = [[1, 0], [0, 0]] if padding == 0 else [[1, 1], [1, 1]]
    assert x.grad.tolist() == [[expected]]


def test_a_window_whose_holes_hide_the_input_is_minus_infinity(backend_name):
    """Elements -1 and 1 of an axis of one: all padding; the error goes nowhere."""
    x = t64([[[[3.0]]]], True)
    out = F.max_pool2d(x, 2, padding=1, dilation=2)
    assert out.item() == -np.inf
    out.backward(t64([[[[5.0]]]]))
    assert x.grad is not None
    assert x.grad.item() == 0
    _, argmax = get_backend(backend_name).max_pool2d(
        x.data, kernel_size=(2, 2), stride=(1, 1), padding=(1, 1), dilation=(2, 2), ceil_mode=False
    )
    assert argmax.item() == 0  # the same on all backends


@pytest.mark.parametrize(("kernel", "dtype"), [((16, 16), np.uint8), ((17, 16), np.int32)])
def test_argmax_is_an_element_number_as_wide_as_needed(backend_name, kernel, dtype):
    x = np.zeros((1, 1, 17, 16))
    x[0, 0, kernel[0] - 1, 15] = 1
    out, argmax = get_backend(backend_name).max_pool2d(
        x, kernel_size=kernel, stride=kernel, padding=(0, 0), dilation=(1, 1), ceil_mode=False
    )
    assert argmax.dtype == dtype
    assert argmax.tolist() == [[[[kernel[0] * kernel[1] - 1]]]]
    assert out.tolist() == [[[[1.0]]]]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation", "floor", "ceil"),
    [(5, 2, 2, 0, 1, 2, 3), (4, 3, 2, 0, 1, 1, 2), (3, 2, 2, 1, 1, 2, 2), (6, 2, 4, 1, 1, 2, 2),
     (112, 3, 2, 0, 1, 55, 56), (7, 2, 3, 1, 1, 3, 3), (7, 3, 2, 0, 2, 2, 2), (8, 3, 2, 0, 2, 2, 3)],
)  # fmt: skip
def test_ceil_mode_sizes(backend_name, size, kernel, stride, padding, dilation, floor, ceil):
    """A last window may reach past the end, but starts inside the input or before it."""
    x = trine.zeros(1, 1, size, size)
    for mode, expected in ((False, floor), (True, ceil)):
        assert F.max_pool2d(x, kernel, stride, padding, dilation, mode).shape[2:] == (expected,) * 2
        if dilation == 1:
            assert F.avg_pool2d(x, kernel, stride, padding, mode).shape[2:] == (expected,) * 2


@pytest.mark.parametrize(("kernel", "stride", "padding", "ceil"), WINDOWS)
@pytest.mark.parametrize(("include", "divisor"), [(True, None), (False, None), (True, 3)])
def test_avg_pool2d(backend_name, rng, kernel, stride, padding, ceil, include, divisor):
    x = rng.normal(size=(2, 2, 8, 7))
    options = (kernel, stride, padding, ceil, include, divisor)
    expected = avg_loop(x, *options)
    delta = rng.normal(size=expected.shape)
    gradient = avg_loop(x, *options, delta)
    check(lambda t: F.avg_pool2d(t, *options), x, delta, expected, gradient)


def test_the_error_of_an_average_is_spread_evenly(backend_name):
    x = t64(np.arange(16.0).reshape(1, 1, 4, 4), True)
    out = F.avg_pool2d(x, 2)
    assert out.tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    out.backward(t64([[[[4.0, 8.0], [0.0, -4.0]]]]))
    assert x.grad is not None
    assert x.grad.tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2], [0, 0, -1, -1], [0, 0, -1, -1]]]]


@pytest.mark.parametrize("spelling", ["same", "SAME", "valid", "Valid"])
@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (6, 2, 1), (5, 1, 3)])
def test_pooling_over_same_and_valid_windows(backend_name, rng, spelling, size, kernel, stride):
    x = rng.normal(size=(1, 2, size, size))
    out = -(-size // stride) if spelling.lower() == "same" else -(-(size - kernel + 1) // stride)
    total = max(0, (out - 1) * stride + kernel - size) if spelling.lower() == "same" else 0
    sides = [(0, 0), (0, 0), *[(total // 2, total - total // 2)] * 2]
    low, zero = np.pad(x, sides, constant_values=-np.inf), np.pad(x, sides)
    inside = np.pad(np.ones_like(x), sides)
    largest, mean, own_mean = (np.empty((1, 2, out, out)) for _ in range(3))
    for p, q in np.ndindex(out, out):
        here = (..., slice(p * stride, p * stride + kernel), slice(q * stride, q * stride + kernel))
        largest[:, :, p, q] = low[here].max((2, 3))
        mean[:, :, p, q] = zero[here].mean((2, 3))
        own_mean[:, :, p, q] = zero[here].sum((2, 3)) / inside[here].sum((2, 3))
    got = F.max_pool2d(t64(x), kernel, stride, padding=spelling).numpy()
    np.testing.assert_array_equal(got, largest)
    got = F.avg_pool2d(t64(x), kernel, stride, padding=spelling).numpy()
    np.testing.assert_allclose(got, mean, rtol=1e-13)
    got = F.avg_pool2d(t64(x), kernel, stride, padding=spelling, count_include_pad=False).numpy()
    np.testing.assert_allclose(got, own_mean, rtol=1e-13)
    given = F.avg_pool2d(t64(x), kernel, stride, spelling, False, False, divisor_override=5).numpy()
    np.testing.assert_allclose(given, mean * kernel * kernel / 5, rtol=1e-13)


@pytest.mark.parametrize("padding", ["same", 1])
def test_gradients_of_pooling(backend_name, rng, check_gradients, padding):
    x = rng.permutation(2 * 8 * 6).reshape(1, 2, 8, 6) / 10  # no ties nearby
    check_gradients(lambda t: F.max_pool2d(t, 3, 2, padding), t64(x))
    check_gradients(lambda t: F.avg_pool2d(t, 3, 2, padding), t64(x))
    check_gradients(lambda t: F.avg_pool2d(t, 3, 2, padding, count_include_pad=False), t64(x))


@pytest.mark.parametrize(
    ("size", "wanted", "bins"),
    [((7, 5), (3, 2), (3, 2)), ((7, 5), 1, (1, 1)), ((2, 3), (5, 4), (5, 4)), ((6, 4), (None, 2), (6, 2)),
     ((6, 4), None, (6, 4)), ((9, 8), [4, 3], (4, 3))],
)  # fmt: skip
def test_adaptive_avg_pool2d(backend_name, rng, size, wanted, bins):
    x = rng.normal(size=(2, 3, *size))
    expected, gradient = np.empty((2, 3, *bins)), np.zeros_like(x)
    delta = rng.normal(size=expected.shape)
    for p, q in np.ndindex(*bins):
        place = (p, q)
        here = tuple(
            slice(math.floor(place[i] * size[i] / bins[i]), math.ceil((place[i] + 1) * size[i] / bins[i]))
            for i in (0, 1)
        )  # fmt: skip
        window = x[:, :, *here]
        expected[:, :, p, q] = window.mean((2, 3))
        share = delta[:, :, p, q] / (window.shape[2] * window.shape[3])
        gradient[:, :, *here] += share[:, :, None, None]
    check(lambda t: F.adaptive_avg_pool2d(t, wanted), x, delta, expected, gradient)


@pytest.mark.parametrize(
    "function",
    [
        lambda t: F.max_pool2d(t, 2, 2, 1),
        lambda t: F.avg_pool2d(t, 2, 2, 1, count_include_pad=False),
        lambda t: F.avg_pool2d(t, 3, 2, "same", count_include_pad=False),
        lambda t: F.adaptive_avg_pool2d(t, 3),
    ],
)
def test_pooling_in_float32_and_of_no_images(backend_name, rng, function):
    x = rng.normal(size=(2, 1, 8, 8))
    tensor = trine.tensor(x, "float32", True)
    out = function(tensor)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.detach().numpy(), function(t64(x)).numpy(), rtol=1e-5, atol=1e-6)
    out.sum().backward()
    assert tensor.grad is not None
    assert tensor.grad.dtype == np.float32
    none = trine.zeros(0, 1, 8, 8, requires_grad=True)
    function(none).sum().backward()
    assert none.grad is not None
    assert none.grad.shape == (0, 1, 8, 8)


IMAGES = (1, 2, 6, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.max_pool2d(x[0], 2), r"\[max_pool2d\] expected input \(N, C, H, W\), got shape"),
        (lambda x: F.max_pool2d(x, 0), r"kernel_size as an int >= 1 or two of them, got 0"),
        (lambda x: F.max_pool2d(x, 2, 0), r"stride as an int >= 1 or two of them, got 0"),
        (lambda x: F.max_pool2d(x, 2, padding=2), r"at most half the kernel \(2, 2\), got 2"),
        (lambda x: F.max_pool2d(x, (4, 2), padding=(0, 2)), r"at most half the kernel \(4, 2\)"),
        (lambda x: F.max_pool2d(x, 3, padding="full"), r'"valid" or "same", got \'full\''),
        (lambda x: F.max_pool2d(x, (2, 7)), r"fits the padded width 6, got 7"),
        (lambda x: F.max_pool2d(x, 4, dilation=2), r"fits the padded height 6, got 4"),
        (lambda x: F.avg_pool2d(x, 7), r"\[avg_pool2d\] expected a window that fits the padded height"),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=0), r"divisor_override .* got 0"),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=2.5), r"divisor_override .* got 2\.5"),
        (lambda x: F.adaptive_avg_pool2d(x, (2, 0)), r"output_size as an int >= 1"),
        (lambda x: F.adaptive_avg_pool2d(x, (1, 2, 3)), r"output_size .* got \(1, 2, 3\)"),
        (lambda x: F.adaptive_avg_pool2d(x[:, :, :0], 1), r"images with elements, got \(1, 2, 0, 6\)"),
    ],
)  # fmt: skip
def test_wrong_calls(backend_name, call, message):
    with pytest.raises(ValueError, match=message):
        call(trine.zeros(*IMAGES))


def test_wrong_kinds(backend_name):
    with pytest.raises(
        TypeError, match=r"\[avg_pool2d\] expected input of dtype float32 or float64"
    ):
        F.avg_pool2d(trine.zeros(*IMAGES).long(), 2)
