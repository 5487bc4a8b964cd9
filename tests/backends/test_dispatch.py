"""Dispatch: which kernel runs, what it receives, and how a refusal is told."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest

import trine.kernels
from trine.backends import get_backend
from trine.backends.dispatch import FallbackWarning
from trine.errors import BackendError
from trine.kernels import kernel, prefer, registry


@pytest.fixture
def backend(monkeypatch):
    """The numpy backend with a table of kernels of its own."""
    monkeypatch.setattr(registry, "_kernels", {})
    monkeypatch.setattr(registry, "_preferred", {})
    registry._touch()
    backend = get_backend("numpy")
    yield backend
    backend.counters.reset()
    backend.strict = False
    monkeypatch.undo()
    registry._touch()


def _register_double_relu(**options):
    @kernel("relu", backend="numpy", **{"name": "mine", **options})
    def relu(x, out):
        assert x.flags.c_contiguous
        np.maximum(x, 0, out=out)

    return relu


X = np.array([[-1.0, 2.0], [3.0, -4.0]], dtype=np.float32)


def test_a_registered_kernel_runs_and_a_preference_turns_it_off(backend):
    backend.relu(X)
    assert backend.ran["relu"] == "reference"
    _register_double_relu()
    np.testing.assert_array_equal(backend.relu(X), [[0, 2], [3, 0]])
    assert backend.ran["relu"] == "mine"
    prefer("relu", "reference")
    backend.relu(X)
    assert backend.ran["relu"] == "reference"
    prefer("relu", None)
    backend.relu(X)
    assert backend.ran["relu"] == "mine"


def test_priority_then_order_then_preference(backend):
    _register_double_relu(name="first")
    _register_double_relu(name="second", priority=1)
    backend.relu(X)
    assert backend.ran["relu"] == "second"
    prefer("relu", "first")
    backend.relu(X)
    assert backend.ran["relu"] == "first"


def test_nondeterministic_kernels_run_only_by_name(backend):
    _register_double_relu(name="atomic", deterministic=False, priority=9)
    backend.relu(X)
    assert backend.ran["relu"] == "reference"
    prefer("relu", "atomic")
    backend.relu(X)
    assert backend.ran["relu"] == "atomic"


def test_a_static_rule_chooses_by_shape(backend):
    _register_double_relu(name="wide", priority=1, supports=lambda x: x.shape[1] > 2)
    _register_double_relu(name="any")
    backend.relu(X)
    assert backend.ran["relu"] == "any"
    backend.relu(np.ones((2, 3), np.float32))
    assert backend.ran["relu"] == "wide"


def test_views_are_copied_and_counted(backend):
    _register_double_relu()
    backend.counters.reset()
    np.testing.assert_array_equal(backend.relu(X.T), np.maximum(X.T, 0))
    assert backend.counters.copies == 1


def test_a_refused_dtype_warns_once_counts_and_is_an_error_when_strict(backend):
    _register_double_relu(dtypes=("float64",))
    with pytest.warns(
        FallbackWarning, match=r"\[relu\].*reference: mine does not serve dtype float32"
    ):
        backend.relu(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.relu(X)
    assert sum(backend.counters.fallbacks.values()) == 2
    backend.strict = True
    with pytest.raises(BackendError, match=r"\[relu\] expected a numpy kernel"):
        backend.relu(X)


def test_a_kernel_for_floats_only_leaves_integers_to_the_reference_in_silence(backend):
    _register_double_relu()
    (entry,) = registry._kernels["relu", "numpy"]
    registry._kernels["relu", "numpy"] = [dataclasses.replace(entry, floats_only=True)]
    registry._touch()
    backend.strict = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(backend.relu(np.array([-1, 2])), [0, 2])
        assert backend.ran["relu"] == "reference"
        backend.relu(X)
        assert backend.ran["relu"] == "mine"
    assert not backend.counters.fallbacks


def test_an_attribute_left_out_limits_the_kernel_to_its_default(backend):
    @kernel("sum", backend="numpy", name="all")
    def total(x, out):
        out[...] = x.sum()

    assert float(backend.sum(X)) == 0
    assert backend.ran["sum"] == "all"
    with pytest.warns(FallbackWarning, match=r"does not serve axis=\(0,\)"):
        backend.sum(X, axis=(0,))


def test_wrong_kernels_are_refused_by_name(backend):
    @kernel("relu", backend="numpy", name="wrong")
    def relu(out):
        out[...] = 0

    with pytest.raises(
        ValueError, match=r"\[kernel\] expected 'wrong' of relu to take the arrays x"
    ):
        backend.relu(X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "cuda"}, r"\[kernel\] expected a known backend, got 'cuda'"),
        ({"dtypes": ("float16",)}, r"\[kernel\] expected a known dtype, got 'float16'"),
    ],
)
def test_bad_registrations(backend, options, message):
    with pytest.raises(ValueError, match=message):
        kernel("relu", **{"backend": "numpy", "name": "x", **options})(lambda x, out: None)


def test_a_taken_name_is_refused(backend):
    _register_double_relu()
    with pytest.raises(ValueError, match="taken"):
        _register_double_relu()


def test_unknown_preference(backend):
    with pytest.raises(ValueError, match=r"\[prefer\] expected a known kernel of relu, got 'fast'"):
        prefer("relu", "fast")


def test_load_file(backend, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import numpy as np\n"
        "from trine.kernels import kernel\n"
        "@kernel('relu', backend='numpy', name='mine')\n"
        "def relu(x, out):\n"
        "    np.maximum(x, 0, out=out)\n"
    )
    (loaded,) = trine.kernels.load_file(file)
    assert loaded.user
    backend.relu(X)
    assert backend.ran["relu"] == "mine"
    trine.kernels.load_file(file)  # loaded again: replaced, not refused
    with pytest.raises(FileNotFoundError, match=r"\[kernel-file\] expected a Python file"):
        trine.kernels.load_file(tmp_path / "missing.py")
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        trine.kernels.load_file(tmp_path / "broken.py")
