"""The CuPy backend's own code, on a stand-in for CuPy; and the real one where there is a GPU."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import trine
from trine import backends
from trine.backends.op import OPS

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def stand_in():
    spec = importlib.util.spec_from_file_location("cupy_stand_in", HERE / "cupy_stand_in.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cupy_backend(stand_in, monkeypatch):
    """The cupy backend over the stand-in."""
    monkeypatch.setitem(sys.modules, "cupy", stand_in.StandIn())
    monkeypatch.delitem(sys.modules, "trine.backends.cupy_backend", raising=False)
    monkeypatch.setattr(backends, "_instances", dict(backends._instances))
    monkeypatch.setattr(backends, "_probes", {"cupy": backends.Probe(True, "stand-in")})
    backends._instances.pop("cupy", None)
    yield backends.get_backend("cupy")
    sys.modules.pop("trine.backends.cupy_backend", None)


def test_copies_are_counted_and_nothing_else_moves(cupy_backend):
    counters = cupy_backend.counters
    counters.reset()
    x = trine.tensor([[1.0, -2.0]], backend="cupy", requires_grad=True)
    assert counters.uploads == 1
    ((x * 2).relu().exp().sum() + (x @ x.T).tanh().mean()).backward()
    assert (counters.uploads, counters.downloads, counters.syncs) == (1, 0, 0)
    assert x.grad.tolist is not None
    x.grad.numpy()
    assert (counters.downloads, counters.syncs) == (1, 1)


def test_the_stand_in_would_catch_a_hidden_copy(cupy_backend, stand_in):
    """The guards that the other tests rely on do fire."""
    x = cupy_backend.asarray(np.ones(3))
    with pytest.raises(TypeError, match="Unsupported type"):
        x + np.ones(3)
    with pytest.raises(stand_in.HiddenSyncError):
        float(x.sum())
    with pytest.raises(TypeError, match="on the CPU"):
        np.asarray(trine.ones(2, backend="cupy"))


def test_every_op_runs_on_device_arrays_as_on_numpy(cupy_backend):
    """Each case of each op: no NumPy array slips in, no value is read, the same numbers come out."""
    from trine.backends import cases

    compared = 0
    reference = backends.get_backend("numpy")
    for case in cases.all():
        spec = OPS[case.op]
        for sample in case.samples(np.random.default_rng(0), np.dtype("float64")):
            host = [None if a is None else np.array(a) for a in sample.args]
            device = [None if a is None else cupy_backend.xp.asarray(a) for a in sample.args]
            expected = getattr(reference, case.op)(*host, **sample.attrs)
            if spec.host_bound:
                continue
            got = getattr(cupy_backend, case.op)(*device, **sample.attrs)
            pairs = zip(_outputs(expected, host, spec), _outputs(got, device, spec), strict=True)
            for want, have in pairs:
                np.testing.assert_array_equal(
                    np.asarray(want),
                    cupy_backend.xp.asnumpy(have),
                    err_msg=f"{case.op} {sample.label}",
                )
                compared += 1
    assert compared > 200


def _outputs(result, arrays, spec):
    if spec.mutates:
        return [arrays[spec.arrays.index(name)] for name in spec.mutates
                if spec.arrays.index(name) < len(arrays)
                and arrays[spec.arrays.index(name)] is not None]  # fmt: skip
    return result if isinstance(result, tuple) else (result,)


def test_random_bits_are_the_same_words(cupy_backend):
    key = trine.random.make_key(1, 2, 3)
    words = cupy_backend.random_bits(cupy_backend.asarray_key(key), n=9)
    np.testing.assert_array_equal(cupy_backend.xp.asnumpy(words), trine.random.bits(key, 9))


def test_out_of_memory_is_told(cupy_backend, stand_in, monkeypatch):
    def fail(*_args, **_kwargs):
        raise stand_in.OutOfMemoryError

    monkeypatch.setattr(cupy_backend.xp, "empty", fail, raising=False)
    with pytest.raises(trine.BackendError, match=r"GiB of GPU memory .* smaller batch. In use"):
        cupy_backend.empty((1000, 1000), np.dtype("float32"))


def test_the_reference_uses_only_what_cupy_has(cupy_backend, stand_in):
    """Names that the bodies ask of the array module exist in the real CuPy, where it is installed."""
    cupy_spec = importlib.util.find_spec("cupy_backends")
    if cupy_spec is None:
        pytest.skip("CuPy is not installed")
    test_every_op_runs_on_device_arrays_as_on_numpy(cupy_backend)
    names = sorted(stand_in.used_names)
    code = f"import cupy; print([n for n in {names!r} if not hasattr(cupy, n)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_a_gpu_the_probe_gives_reason_and_remedy():
    result = backends.probe("cupy")
    if result.ok:
        pytest.skip("this machine has a GPU")
    assert result.reason
    assert result.remedy
    with pytest.raises(trine.BackendError, match=r"\[backend\] expected the cupy backend to run"):
        backends.get_backend("cupy")


@pytest.mark.gpu
def test_every_op_on_the_gpu():
    """Each case of each op on the real device against NumPy, within the table of tolerances."""
    from trine.backends.cases import check

    results = check.check_all(backends=("cupy",))
    failed = [r for r in results if not r.ok]
    assert not failed, "\n".join(str(r) for r in failed)


@pytest.mark.gpu
def test_a_tensor_goes_to_the_gpu_and_back():
    x = trine.tensor([1.0, 2.0], backend="cupy", requires_grad=True)
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2, 4])
