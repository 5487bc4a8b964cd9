"""Tensors: PyTorch's promotion, indexing and shapes; what they refuse; interchange."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import trine
from trine import GraphError


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("float32", "float64", "float64"),
        ("int64", "float32", "float32"),
        ("uint8", "int32", "int32"),
        ("bool", "uint8", "uint8"),
        ("bool", "float32", "float32"),
        ("int32", "int64", "int64"),
    ],
)
def test_promotion_of_tensors(left, right, expected):
    a, b = trine.ones(2, dtype=left), trine.ones(2, dtype=right)
    assert (a + b).dtype == (b + a).dtype == expected


@pytest.mark.parametrize(
    ("dtype", "number", "expected"),
    [
        ("float32", 2.5, "float32"),
        ("float32", 3, "float32"),
        ("int64", 2.5, "float32"),
        ("uint8", 3, "uint8"),
        ("bool", 1, "int64"),
        ("float64", 1.5, "float64"),
    ],
)
def test_promotion_with_numbers(dtype, number, expected):
    assert (trine.ones(2, dtype=dtype) * number).dtype == expected


def test_a_tensor_without_axes_does_not_widen():
    assert (trine.ones(2) + trine.tensor(1.0, dtype="float64")).dtype == "float32"
    assert (trine.ones(2, dtype="int64") + trine.tensor(1.0, dtype="float64")).dtype == "float64"


def test_division_of_integers_gives_floats():
    result = trine.tensor([1, 2]) / 2
    assert result.dtype == "float32"
    np.testing.assert_array_equal(result.numpy(), [0.5, 1.0])


def test_python_data_get_default_types():
    assert trine.tensor([0.5, 1]).dtype == "float32"
    assert trine.tensor([1, 2]).dtype == "int64"
    assert trine.tensor([True]).dtype == "bool"
    assert trine.tensor(np.ones(2)).dtype == "float64"


def test_tensor_copies_and_as_tensor_shares():
    source = np.ones(3, dtype=np.float32)
    copied, shared = trine.tensor(source), trine.from_numpy(source)
    source[0] = 5
    assert copied.numpy()[0] == 1
    assert shared.numpy()[0] == 5


@pytest.mark.parametrize("bad", [["a", "b"], [1 + 2j], [None]])
def test_data_that_are_not_numbers(bad):
    with pytest.raises(TypeError, match=r"\[(asarray|dtype)\] expected"):
        trine.tensor(bad)


def test_unsupported_dtype():
    with pytest.raises(TypeError, match=r"\[dtype\] expected one of .*float32.*'float16'"):
        trine.ones(2, dtype="float16")


def test_numpy_arrays_do_not_slip_in():
    with pytest.raises(TypeError, match=r"\[add\] expected a tensor or a number, got ndarray"):
        trine.ones(2) + np.ones(2)
    with pytest.raises(TypeError, match=r"\[mul\] expected a tensor or a number, got ndarray"):
        np.ones(2) * trine.ones(2)


def test_indexing(backend_name):
    x = trine.tensor(np.arange(24.0).reshape(2, 3, 4))
    host = x.numpy()
    for index in [0, -1, slice(1, 3), (0, slice(None), 1), (..., 2), None, (slice(None), [0, 2])]:
        np.testing.assert_array_equal(x[index].numpy(), host[index])
    mask = x > 10
    np.testing.assert_array_equal(x[mask].numpy(), host[host > 10])
    rows = trine.tensor([1, 0, 1])
    np.testing.assert_array_equal(x[rows].numpy(), host[[1, 0, 1]])
    with pytest.raises(IndexError, match=r"\[getitem\] expected an index within shape"):
        x[5]


def test_repeated_indices_add_their_gradients_in_order(backend_name):
    x = trine.zeros(4, requires_grad=True)
    weights = trine.tensor([1.0, 10.0, 100.0, 1000.0])
    (x[trine.tensor([2, 0, 2, 2])] * weights).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [10, 0, 1101, 0])


def test_max_along_an_axis_takes_the_first_of_equals():
    x = trine.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 0.0]], requires_grad=True)
    values, positions = x.max(1)
    np.testing.assert_array_equal(positions.numpy(), [1, 0])
    values.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[0, 1, 0], [1, 0, 0]])


def test_nan_goes_through_maximum_and_max():
    x = trine.tensor([1.0, float("nan"), 2.0])
    assert np.isnan(x.max().item())
    assert np.isnan(trine.maximum(x, x * 0 + 5).numpy()[1])


def test_shapes():
    x = trine.zeros(2, 3, 4)
    assert x.T.shape == (4, 3, 2)
    assert x.flatten(1).shape == (2, 12)
    assert x.unsqueeze(-1).shape == (2, 3, 4, 1)
    assert x[:1].squeeze(0).shape == (3, 4)
    assert trine.stack([x, x], 1).shape == (2, 2, 3, 4)
    assert x.reshape(6, -1).shape == (6, 4)
    assert x.transpose(0, -1).shape == (4, 3, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x.reshape(5, -1), r"\[reshape\] expected a shape of 24 elements"),
        (lambda x: x.sum(3), r"\[sum\] expected dim from -3 to 2"),
        (lambda x: x.permute(0, 0, 1), r"\[permute\] expected each of 3 axes once"),
        (lambda x: x + trine.zeros(3), r"\[add\] expected shapes that broadcast"),
        (lambda x: x @ trine.zeros(3, 2), r"\[matmul\] expected inner sizes to agree"),
        (lambda x: trine.cat([]), r"\[cat\] expected at least one tensor"),
        (lambda x: trine.cat([x, trine.zeros(2, 2, 4)]), r"\[cat\] expected shapes that agree"),
        (lambda x: x.item(), r"\[item\] expected one element"),
        (lambda x: x.expand(2, 3, 5), r"\[expand\]"),
        (lambda x: trine.zeros(0).max(), r"\[max\] expected at least one element"),
    ],
)
def test_wrong_shapes_are_refused(backend_name, call, message):
    with pytest.raises(ValueError, match=message):
        call(trine.zeros(2, 3, 4))


@pytest.mark.parametrize(
    ("a", "b"),
    [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((5, 2, 3), (3, 4)), ((1, 2, 3), (4, 3, 2))],
)
def test_matmul_follows_numpy(backend_name, a, b):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=a), rng.normal(size=b)
    np.testing.assert_allclose((trine.tensor(x) @ trine.tensor(y)).numpy(), x @ y, rtol=1e-12)


def test_dtype_is_kept_by_every_method():
    x = trine.tensor(np.linspace(0.1, 1, 6, dtype=np.float32).reshape(2, 3))
    names = (
        "exp log sqrt tanh sigmoid relu softplus sin cos abs sum mean std amax norm expm1 log1p sign "
        "floor square"
    )
    for name in names.split():
        assert getattr(x, name)().dtype == "float32", name
    assert (2**x).dtype == (1 / x).dtype == (x**2).dtype == "float32"


def test_in_place_outside_the_graph():
    x = trine.ones(3)
    x += 1
    x *= 2
    x[1] = 0.5
    np.testing.assert_array_equal(x.numpy(), [4, 0.5, 4])
    with pytest.raises(ValueError, match="broadcasts"):
        x.add_(trine.ones(2, 3))


def test_leaving_the_graph_is_explicit():
    x = trine.ones(2, requires_grad=True)
    with pytest.raises(GraphError, match=r"detach\(\)\.numpy\(\)"):
        x.numpy()
    with pytest.raises(GraphError):
        np.asarray(x)
    np.testing.assert_array_equal(np.asarray(x.detach()), [1, 1])


def test_integers_have_no_gradient():
    with pytest.raises(TypeError, match=r"\[requires_grad_\] expected float32 or float64"):
        trine.tensor([1, 2], requires_grad=True)


def test_moving_between_backends():
    x = trine.ones(2, backend="numpy", requires_grad=True)
    moved = x.to("numba")
    assert moved.backend.name == "numba"
    assert moved.requires_grad
    moved.detach().fill_(3)
    assert x.detach().numpy()[0] == 1
    with pytest.raises(GraphError, match="gradients do not cross"):
        (x * 2).to("numba")
    y = x.to(dtype="float64")
    y.sum().backward()
    assert x.grad.dtype == "float32"


def test_dlpack_shares_memory():
    source = np.arange(4, dtype=np.float32)
    x = trine.from_dlpack(source)
    source[0] = 9
    assert x.numpy()[0] == 9
    back = np.from_dlpack(trine.ones(3))
    np.testing.assert_array_equal(back, [1, 1, 1])
    with pytest.raises(TypeError, match=r"\[from_dlpack\]"):
        trine.from_dlpack([1, 2])


def test_deepcopy_is_independent():
    x = trine.ones(2, requires_grad=True)
    (x * 2).sum().backward()
    y = copy.deepcopy(x)
    y.detach().fill_(5)
    assert x.detach().numpy()[0] == 1
    np.testing.assert_array_equal(y.grad.numpy(), [2, 2])
    with pytest.raises(GraphError, match=r"\[deepcopy\]"):
        copy.deepcopy(x * 2)


def test_repr_tells_what_it_is():
    assert repr(trine.tensor([1.0, 2.0], backend="numpy")) == "tensor([1., 2.])"
    x = trine.ones(1, requires_grad=True, backend="numpy")
    assert "requires_grad=True" in repr(x)
    assert "grad_fn=<mul>" in repr(x * 2)


def test_use_is_a_context():
    with trine.use("numpy"):
        assert trine.ones(1).backend.name == "numpy"
        with trine.use("numba"):
            assert trine.ones(1).backend.name == "numba"
        assert trine.ones(1).backend.name == "numpy"


def test_unknown_backend_is_named():
    with pytest.raises(
        ValueError, match=r"unknown|known backend, got 'nunba'. Did you mean 'numba'"
    ):
        trine.use("nunba")
