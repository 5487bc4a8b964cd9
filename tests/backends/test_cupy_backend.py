"""The CuPy backend's own code, on a stand-in for CuPy."""

from __future__ import annotations

import numpy as np
import pytest

import trine
from trine import backends
from trine.backends.op import OPS
from trine.kernels import registry


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
    with pytest.raises(stand_in._errors.HiddenSyncError):
        float(x.sum())
    with pytest.raises(TypeError, match="on the CPU"):
        np.asarray(trine.ones(2, backend="cupy"))


def test_every_reference_runs_on_device_arrays_as_on_numpy(cupy_backend):
    """Each case of each op: no NumPy array slips in, no value is read, the same numbers come out."""
    from trine.backends import cases

    for name in OPS:
        registry.prefer(name, "reference")
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
        raise stand_in.cuda.memory.OutOfMemoryError(1, 0)

    monkeypatch.setattr(stand_in, "empty", fail)
    with pytest.raises(trine.BackendError, match=r"GiB of GPU memory .* smaller batch. In use"):
        cupy_backend.empty((1000, 1000), np.dtype("float32"))


def test_without_a_gpu_the_probe_gives_reason_and_remedy():
    result = backends.probe("cupy")
    if result.ok:
        pytest.skip("this machine has a GPU")
    assert result.reason
    assert result.remedy
    with pytest.raises(trine.BackendError, match=r"\[backend\] expected the cupy backend to run"):
        backends.get_backend("cupy")
