"""Convolution and transposed convolution against loops over outputs, and their rules."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import trine
import trine.functional as F
from trine.backends import get_backend
from trine.errors import GraphError

Pair = tuple[int, int]

GEOMETRIES = list(itertools.product([1, 2, (3, 1)], [0, 1, (2, 0)], [1, (2, 1)], [1, 2, 4]))
"""(stride, padding, dilation, groups) for four input channels."""


def t64(values: Any, requires_grad: bool = False) -> trine.Tensor:
    return trine.tensor(values, "float64", requires_grad)


def both(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else value


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def patches(shape, kernel, stride, padding, dilation):
    """Yield (i, j), the output's place, with the slices of the padded input under its kernel."""
    counts = [
        (shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i in (0, 1)
    ]
    for i, j in np.ndindex(*counts):
        corner = (i * stride[0], j * stride[1])
        yield (
            (i, j),
            tuple(
                slice(corner[k], corner[k] + dilation[k] * (kernel[k] - 1) + 1, dilation[k])
                for k in (0, 1)
            ),
        )


def correlate(x, w, b, stride=1, padding=0, dilation=1, groups=1, delta=None):
    """Return z, output by output; with `delta` the gradients of x and w instead."""
    stride, padding, dilation = both(stride), both(padding), both(dilation)
    (k, c), kernel = w.shape[:2], w.shape[2:]
    padded = np.pad(x, [(0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2])
    places = list(patches(x.shape, kernel, stride, padding, dilation))
    z = np.zeros((len(x), k, *(n + 1 for n in places[-1][0])))
    grad_padded, grad_w = np.zeros_like(padded), np.zeros_like(w)
    for (i, j), (rows, columns) in places:
        for out in range(k):
            first = out // (k // groups) * c
            here = (slice(None), slice(first, first + c), rows, columns)
            z[:, out, i, j] = (padded[here] * w[out]).sum((1, 2, 3)) + b[out]
            if delta is not None:
                error = delta[:, out, i, j, None, None, None]
                grad_padded[here] += error * w[out]
                grad_w[out] += (error * padded[here]).sum(0)
    if delta is None:
        return z
    (h, wd), (a, e) = x.shape[2:], padding
    return grad_padded[:, :, a : a + h, e : e + wd], grad_w


def transpose_correlate(x, w, b, stride, padding, output_padding, dilation, groups):
    """Return the transposed convolution by carrying each input to where it goes."""
    n, c, h, wd = x.shape
    k, kernel = w.shape[1] * groups, w.shape[2:]
    size = [
        ((h, wd)[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + output_padding[i] + 1
        for i in (0, 1)
    ]
    full = np.zeros((n, k, *size))
    cg, kg = c // groups, k // groups
    for ci, i, j, ki, r, s in np.ndindex(c, h, wd, kg, *kernel):
        place = (i * stride[0] + r * dilation[0], j * stride[1] + s * dilation[1])
        full[:, ci // cg * kg + ki, *place] += x[:, ci, i, j] * w[ci, ki, r, s]
    (a, e), (p, q) = padding, size
    return full[:, :, a : p - a, e : q - e] + b[:, None, None]


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), GEOMETRIES)
def test_conv2d_and_its_gradients(backend_name, rng, stride, padding, dilation, groups):
    x, w, b = (
        rng.normal(size=(2, 4, 9, 7)),
        rng.normal(size=(8, 4 // groups, 3, 2)),
        rng.normal(size=8),
    )
    options = (stride, padding, dilation, groups)
    expected = correlate(x, w, b, *options)
    delta = rng.normal(size=expected.shape)
    grad_x, grad_w = correlate(x, w, b, *options, delta)
    inputs = [t64(v, True) for v in (x, w, b)]
    out = F.conv2d(*inputs, *options)
    out.backward(t64(delta))
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-12, atol=1e-12)
    for tensor, gradient in zip(inputs, (grad_x, grad_w, delta.sum((0, 2, 3))), strict=True):
        np.testing.assert_allclose(tensor.grad.numpy(), gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), GEOMETRIES[::5])
@pytest.mark.parametrize("activation", ["none", "tanh"])
def test_fused_conv2d_equals_its_composition(
    backend_name, rng, stride, padding, dilation, groups, activation
):
    values = (
        rng.normal(size=(2, 4, 7, 8)),
        rng.normal(size=(4, 4 // groups, 2, 3)),
        rng.normal(size=4),
    )

    def run() -> list[np.ndarray[Any, Any]]:
        inputs = [t64(v, True) for v in values]
        out = F.conv2d(*inputs, stride, padding, dilation, groups, activation=activation)
        (out * out).sum().backward()
        return [out.detach().numpy(), *(t.grad.numpy() for t in inputs)]

    fused = run()
    with trine.autograd.composed_ops():
        composed = run()
    for one, other in zip(fused, composed, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
def test_conv2d_with_an_activation(backend_name, rng, check_gradients, activation):
    x, w, b = rng.normal(size=(2, 2, 4, 5)), rng.normal(size=(3, 2, 2, 2)), rng.normal(size=3)
    z = correlate(x, w, b, 2, 1)
    act = {
        "relu": lambda z: np.maximum(z, 0),
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
        "tanh": np.tanh,
    }
    out = F.conv2d(t64(x), t64(w), t64(b), 2, 1, activation=activation)
    np.testing.assert_allclose(out.numpy(), act[activation](z), rtol=1e-12, atol=1e-13)
    check_gradients(
        lambda *inputs: F.conv2d(*inputs, 2, 1, activation=activation), t64(x), t64(w), t64(b)
    )


def test_conv2d_in_float32_stays_there(backend_name, rng):
    x, w, b = rng.normal(size=(2, 3, 8, 8)), rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4)
    inputs = [trine.tensor(v, "float32", True) for v in (x, w, b)]
    out = F.conv2d(*inputs, padding=1, activation="relu")
    assert out.dtype == np.float32
    expected = np.maximum(correlate(x, w, b, 1, 1), 0)
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    out.sum().backward()
    assert [t.grad.dtype for t in inputs] == [np.float32] * 3


def test_input_gradient_is_the_padded_error_convolved_with_the_turned_kernel(backend_name, rng):
    """Zero-pad delta by F - 1, convolve with the kernel turned by 180 degrees, sum over k."""
    x, w = rng.normal(size=(1, 2, 6, 5)), rng.normal(size=(3, 2, 3, 3))
    delta = rng.normal(size=(1, 3, 4, 3))
    inputs = t64(x, True), t64(w, True)
    F.conv2d(*inputs).backward(t64(delta))
    turned = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    np.testing.assert_allclose(
        inputs[0].grad.numpy(), correlate(delta, turned, np.zeros(2), padding=2), atol=1e-12
    )
    weight = [[(delta[0, k][:, :] * x[0, c, r : r + 4, s : s + 3]).sum() for r in range(3) for s in range(3)]
              for k in range(3) for c in range(2)]  # fmt: skip
    np.testing.assert_allclose(inputs[1].grad.numpy().ravel(), np.ravel(weight), atol=1e-12)


def test_conv2d_correlates(backend_name):
    """z_ij = sum_rs w_rs x_(i+r)(j+s) + b, without turning the kernel."""
    x = trine.arange(9).float().reshape(1, 1, 3, 3)
    w = trine.tensor([[[[1.0, 0.0], [0.0, 10.0]]]])
    assert F.conv2d(x, w, trine.tensor([0.5])).tolist() == [[[[40.5, 51.5], [73.5, 84.5]]]]


@pytest.mark.parametrize("spelling", ["VALID", "valid", "SAME", "Same", "same"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(28, 5, 1), (7, 3, 2), (8, 3, 2), (5, 1, 3), (9, 2, 4)]
)
def test_valid_and_same_sizes(backend_name, spelling, size, kernel, stride):
    x, w = trine.ones(1, 1, size, size), trine.ones(1, 1, kernel, kernel)
    out = F.conv2d(x, w, stride=stride, padding=spelling)
    valid, same = -(-(size - kernel + 1) // stride), -(-size // stride)
    assert out.shape[2:] == ((valid, valid) if spelling.lower() == "valid" else (same, same))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "sides"),
    [(28, 5, 1, 1, (2, 2)), (8, 3, 2, 1, (0, 1)), (7, 3, 2, 1, (1, 1)), (6, 2, 1, 1, (0, 1)),
     (9, 2, 4, 1, (0, 1)), (5, 1, 3, 1, (0, 0)), (8, 3, 1, 2, (2, 2)), (10, 4, 3, 1, (1, 2))],
)  # fmt: skip
def test_same_pads_left_the_smaller_half(backend_name, rng, size, kernel, stride, dilation, sides):
    x, w = rng.normal(size=(1, 2, size, size)), rng.normal(size=(1, 2, kernel, kernel))
    explicit = np.pad(x, [(0, 0), (0, 0), sides, sides])
    expected = correlate(explicit, w, np.zeros(1), stride, 0, dilation)
    out = F.conv2d(t64(x), t64(w), stride=stride, padding="same", dilation=dilation)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padding", [1, (2, 1), "same"])
def test_reflected_padding(backend_name, rng, check_gradients, padding):
    x, w = rng.normal(size=(1, 2, 4, 5)), rng.normal(size=(2, 2, 2, 3))
    sides = {1: [(1, 1), (1, 1)], (2, 1): [(2, 2), (1, 1)], "same": [(0, 1), (1, 1)]}[padding]
    expected = correlate(np.pad(x, [(0, 0), (0, 0), *sides], mode="reflect"), w, np.zeros(2))

    def conv(x: trine.Tensor, w: trine.Tensor) -> trine.Tensor:
        return F.conv2d(x, w, padding=padding, padding_mode="reflect")

    np.testing.assert_allclose(conv(t64(x), t64(w)).numpy(), expected, rtol=1e-12, atol=1e-12)
    check_gradients(conv, t64(x), t64(w))


@pytest.mark.parametrize(
    ("wanted", "ran"),
    [("x", {"conv2d_input_grad"}), ("w", {"conv2d_weight_grad"}), ("b", {"sum"}),
     ("xwb", {"conv2d_input_grad", "conv2d_weight_grad", "sum"})],
)  # fmt: skip
def test_conv2d_computes_only_the_gradients_that_are_needed(backend_name, rng, wanted, ran):
    shapes = {"x": (1, 2, 4, 4), "w": (2, 2, 3, 3), "b": (2,)}
    inputs = {n: t64(rng.normal(size=shape), n in wanted) for n, shape in shapes.items()}
    out = F.conv2d(*inputs.values())
    backend = get_backend(backend_name)
    backend.ran.clear()
    out.backward(t64(np.ones(out.shape)))
    assert set(backend.ran) == ran
    assert {n for n, t in inputs.items() if t.grad is not None} == set(wanted)


def test_conv2d_of_no_images(backend_name):
    x = trine.zeros(0, 2, 5, 5, requires_grad=True)
    w = trine.ones(3, 2, 3, 3, requires_grad=True)
    out = F.conv2d(x, w)
    assert out.shape == (0, 3, 3, 3)
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == (0, 2, 5, 5)
    assert w.grad is not None
    assert (w.grad.numpy() == 0).all()


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    ("stride", "padding", "output_padding", "dilation"),
    [((1, 1), (0, 0), (0, 0), (1, 1)), ((2, 3), (1, 0), (1, 2), (1, 1)), ((2, 1), (2, 1), (0, 0), (2, 2)),
     ((1, 2), (0, 1), (1, 0), (2, 1)), ((3, 3), (1, 1), (2, 1), (1, 2))],
)  # fmt: skip
def test_conv_transpose2d(
    backend_name, rng, check_gradients, stride, padding, output_padding, dilation, groups
):
    x, w = rng.normal(size=(2, 4, 3, 4)), rng.normal(size=(4, 2, 3, 2))
    b = rng.normal(size=2 * groups)
    expected = transpose_correlate(x, w, b, stride, padding, output_padding, dilation, groups)

    def conv(x: trine.Tensor, w: trine.Tensor, b: trine.Tensor) -> trine.Tensor:
        return F.conv_transpose2d(x, w, b, stride, padding, output_padding, groups, dilation)

    out = conv(t64(x), t64(w), t64(b))
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-12, atol=1e-12)
    with trine.autograd.composed_ops():
        again = conv(t64(x), t64(w), t64(b))
    np.testing.assert_allclose(again.numpy(), expected, rtol=1e-12, atol=1e-12)
    check_gradients(conv, t64(x), t64(w), t64(b))


def test_conv_transpose2d_is_the_adjoint_of_conv2d(backend_name, rng):
    """<conv(x), y> = <x, conv_transpose(y)> for the same kernel."""
    x, w, y = (
        rng.normal(size=(1, 3, 9, 8)),
        rng.normal(size=(2, 3, 3, 2)),
        rng.normal(size=(1, 2, 5, 4)),
    )
    forward = F.conv2d(t64(x), t64(w), stride=2, padding=(1, 0)).numpy()
    back = F.conv_transpose2d(t64(y), t64(w), stride=2, padding=(1, 0)).numpy()
    assert back.shape == x.shape
    np.testing.assert_allclose((forward * y).sum(), (x * back).sum(), rtol=1e-12)


def test_second_derivatives_of_a_convolution_need_its_composition(backend_name, rng):
    x, w = t64(rng.normal(size=(1, 1, 4, 4)), True), t64(rng.normal(size=(1, 1, 2, 2)), True)
    with pytest.raises(GraphError, match="composed_ops"):
        trine.grad((F.conv2d(x, w) ** 2).sum(), x, create_graph=True)
    with trine.autograd.composed_ops():
        (first,) = trine.grad((F.conv2d(x, w) ** 2).sum(), x, create_graph=True)
        assert first is not None
        (second,) = trine.grad(first.sum(), x)
    ones = np.ones((1, 1, 4, 4))  # d/dx of sum_x 2 W^T W x is 2 W^T W 1
    expected, _ = correlate(ones, w.detach().numpy(), np.zeros(1),
                            delta=2 * correlate(ones, w.detach().numpy(), np.zeros(1)))  # fmt: skip
    assert second is not None
    np.testing.assert_allclose(second.numpy(), expected, rtol=1e-11)


def conv(x=(1, 4, 6, 6), w=(2, 4, 3, 3), b=None, **options):
    return F.conv2d(trine.ones(x), trine.ones(w), b if b is None else trine.ones(b), **options)


def conv_t(x=(1, 4, 6, 6), w=(4, 2, 3, 3), b=None, **options):
    bias = None if b is None else trine.ones(b)
    return F.conv_transpose2d(trine.ones(x), trine.ones(w), bias, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conv(x=(4, 6, 6)), r"\[conv2d\] expected input \(N, C, H, W\), got shape \(4, 6, 6\)"),
        (lambda: conv(w=(2, 3, 3, 3)), r"weight \(K, 4/1, R, S\).*got \(2, 3, 3, 3\)"),
        (lambda: conv(w=(3, 2, 3, 3), groups=2), r"K a multiple of 2.*got \(3, 2, 3, 3\)"),
        (lambda: conv(groups=0), r"groups as an int >= 1, got 0"),
        (lambda: conv(groups=2.0), r"groups as an int >= 1, got 2\.0"),
        (lambda: conv(b=(3,)), r"bias of shape \(2,\).*got \(3,\)"),
        (lambda: conv(stride=0), r"stride as an int >= 1 or two of them, got 0"),
        (lambda: conv(stride=(1, 2, 3)), r"stride .* got \(1, 2, 3\)"),
        (lambda: conv(stride=1.5), r"stride .* got 1\.5"),
        (lambda: conv(dilation=True), r"dilation .* got True"),
        (lambda: conv(padding=-1), r"padding as an int >= 0 or two of them, got -1"),
        (lambda: conv(padding="full"), r'"valid" or "same", got \'full\''),
        (lambda: conv(padding_mode="wrap"), r"padding_mode .* got 'wrap'"),
        (lambda: conv(activation="rely"), r"Did you mean 'relu'"),
        (lambda: conv(w=(2, 4, 7, 3)), r"fits the padded height 6, got 7"),
        (lambda: conv(w=(2, 4, 3, 4), dilation=(1, 2)), r"fits the padded width 6, got 7"),
        (lambda: conv(padding=6, padding_mode="reflect"), r"reflections narrower"),
        (lambda: conv_t(w=(3, 2, 3, 3)), r"\[conv_transpose2d\] expected weight \(4, K/groups"),
        (lambda: conv_t(groups=3), r"expected weight \(4, K/groups"),
        (lambda: conv_t(b=(4,)), r"bias of shape \(2,\)"),
        (lambda: conv_t(output_padding=1), r"output_padding below stride or dilation, got 1"),
        (lambda: conv_t(padding=9), r"at least one element, got -10 for the height"),
    ],
)  # fmt: skip
def test_wrong_calls(backend_name, call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_kinds(backend_name):
    x, w = trine.ones(1, 1, 3, 3), trine.ones(1, 1, 2, 2)
    with pytest.raises(TypeError, match=r"weight of dtype float32 to match input, got float64"):
        F.conv2d(x, w.double())
    with pytest.raises(TypeError, match=r"input of dtype float32 or float64, got int64"):
        F.conv2d(x.long(), w)
    with pytest.raises(TypeError, match=r"expected weight to be a tensor, got ndarray"):
        F.conv_transpose2d(x, w.numpy())


def test_numbers_of_any_kind_and_lists_are_taken(backend_name):
    x, w = trine.ones(1, 1, 5, 5), trine.ones(1, 1, 2, 2)
    one = F.conv2d(x, w, stride=np.int64(2), padding=[1, 0])
    assert one.tolist() == F.conv2d(x, w, stride=(2, 2), padding=(1, 0)).tolist()
