"""Every kernel of every op against float64; and the check itself, on kernels that are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from trine.backends import cases, get_backend
from trine.backends.cases import check
from trine.backends.cases.tolerances import TABLE, compare, tolerance
from trine.backends.op import OPS
from trine.kernels import kernel, registry

CONTRACT = sorted(name for name, spec in OPS.items() if spec.takes_kernels and not spec.user)


def test_every_op_has_a_case_and_every_kernel_an_op():
    get_backend("numba")
    assert {case.op for case in cases.all()} >= set(CONTRACT)
    assert {k.op for k in registry.all_kernels()} <= set(OPS)


@pytest.mark.parametrize("op", CONTRACT)
def test_kernels_agree_with_float64(backend_name, op):
    results = check.check_op(op, backend_name)
    failed = [str(r) for r in results if not r.ok]
    assert not failed, "\n".join(failed)
    assert any(r.status == "passed" for r in results)


def test_every_numba_kernel_serves_something():
    """A kernel that is skipped on every sample is not proven."""
    get_backend("numba")
    for entry in registry.all_kernels():
        if entry.backend != "numba" or entry.user:
            continue
        mine = [r for r in check.check_op(entry.op, "numba") if r.kernel == entry.name]
        assert any(r.status == "passed" for r in mine), f"{entry.op}.{entry.name}"


@pytest.mark.parametrize("name", [n for n in TABLE if n != "exact"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_zeros_fail_in_every_class(name, dtype, scale):
    right = np.full((3, 4), scale)
    assert compare(np.zeros((3, 4), dtype), right, tolerance(name, dtype)) is not None
    assert compare(right.astype(dtype), right, max(tolerance(name, dtype), 1e-7)) is None


def test_nan_is_no_wildcard():
    right = np.array([1.0, 2.0])
    assert "element (1,)" in compare(np.array([1.0, np.nan]), right, 1.0)
    assert compare(np.array([1.0, np.nan]), np.array([1.0, np.nan]), 1e-9) is None
    assert compare(np.array([np.inf]), np.array([-np.inf]), 1.0) is not None


def right_relu(x, out):
    np.maximum(x, 0, out=out)


def zeros(x, out):
    out[...] = 0


def half(x, out):
    flat, result = x.reshape(-1), out.reshape(-1)
    result[: flat.size // 2] = np.maximum(flat[: flat.size // 2], 0)


def mutates(x, out):
    np.maximum(x, 0, out=out)
    x[...] = out


def outside(x, out):
    np.maximum(x, 0, out=out)
    beyond = np.lib.stride_tricks.as_strided(out.reshape(-1), (out.size + 1,))
    beyond[-1] = 1


def low_precision(x, out):
    out[...] = np.maximum(x.astype(np.float16), 0)


def drops_nan(x, out):
    out[...] = np.where(x > 0, x, 0)


SEEN: dict[int, np.ndarray] = {}


def caches_by_identity(x, out):
    """Answers with the first result it ever gave for this size."""
    out[...] = SEEN.setdefault(x.size, np.maximum(x, 0).copy()).reshape(x.shape)


@pytest.fixture
def own_table(monkeypatch):
    monkeypatch.setattr(registry, "_kernels", {})
    registry._touch()
    SEEN.clear()
    yield
    monkeypatch.undo()
    registry._touch()


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (zeros, "relative error 1"),
        (half, "got np.float32(nan)"),
        (mutates, "input x was changed"),
        (outside, "wrote outside"),
        (low_precision, "relative error"),
        (drops_nan, "not finite"),
        (caches_by_identity, "element"),
    ],
)
def test_wrong_kernels_are_caught(own_table, function, message):
    kernel("relu", backend="numpy", name="wrong")(function)
    results = [r for r in check.check_op("relu", "numpy") if r.kernel == "wrong"]
    failed = [r for r in results if r.status == "failed"]
    assert failed
    assert any(message in r.message for r in failed), [r.message for r in failed]


def test_a_right_kernel_passes(own_table):
    kernel("relu", backend="numpy", name="right")(right_relu)
    results = check.check_op("relu", "numpy")
    assert all(r.ok for r in results)
    assert sum(r.kernel == "right" for r in results) > 40


@pytest.mark.filterwarnings("ignore::trine.backends.dispatch.FallbackWarning")
def test_a_kernel_that_is_not_taken_is_told(own_table):
    kernel("relu", backend="numpy", name="never", supports=lambda x: False)(right_relu)
    results = [r for r in check.check_op("relu", "numpy") if r.kernel == "never"]
    assert {r.status for r in results} == {"skipped"}
    assert "does not serve" in results[0].message


def test_cupy_is_skipped_aloud_without_a_gpu():
    from trine.backends import probe

    if probe("cupy").ok:
        pytest.skip("this machine has a GPU")
    results = check.check_op("relu", "cupy")
    assert {r.status for r in results} == {"skipped"}
    assert results[0].message == probe("cupy").reason
