"""The cupy backend over the emulator, and comparing its ops with NumPy in float64."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from trine import backends
from trine.backends.cases.tolerances import TABLE
from trine.backends.op import OPS
from trine.kernels.cuda import emulator

ORDERS = ("forward", "reverse", "shuffled")


@pytest.fixture(params=ORDERS)
def order(request):
    """The order in which the emulator runs threads and blocks."""
    before = emulator.configure(order=request.param, seed=5)
    yield request.param
    emulator.configure(order=before.order, seed=before.seed)


@pytest.fixture
def cuda(stand_in, monkeypatch):
    """The strict cupy backend over the emulator's stand-in."""
    if emulator.unavailable():
        pytest.skip(emulator.unavailable())
    monkeypatch.delitem(sys.modules, "trine.backends.cupy_backend", raising=False)
    monkeypatch.setattr(backends, "_instances", dict(backends._instances))
    monkeypatch.setattr(backends, "_probes", {"cupy": backends.Probe(True, "stand-in")})
    backends._instances.pop("cupy", None)
    backend = backends.get_backend("cupy")
    backend.strict = True
    yield backend
    sys.modules.pop("trine.backends.cupy_backend", None)


@pytest.fixture
def agrees(cuda):
    """Run an op by its CUDA kernel and compare every output with the float64 reference."""

    def compare(op: str, *arrays: Any, tolerance: str = "reduction", **attrs: Any) -> str:
        numpy = backends.get_backend("numpy")
        dtype = next(a.dtype for a in arrays if a is not None)
        wide = [
            a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in arrays
        ]
        with np.errstate(all="ignore"):
            want = OPS[op].reference(numpy, *wide, **attrs)
        device = [None if a is None else cuda.xp.asarray(a) for a in arrays]
        got = getattr(cuda, op)(*device, **attrs)
        assert cuda.ran[op] != "reference"
        want, got = (v if isinstance(v, tuple) else (v,) for v in (want, got))
        assert len(got) == len(want)
        for mine, right in zip(got, want, strict=True):
            host = cuda.to_numpy(mine)
            assert host.shape == right.shape
            scale = float(np.max(np.abs(right), initial=0.0)) or 1.0
            allowed = TABLE[tolerance][dtype.name] * scale
            np.testing.assert_allclose(host, right, rtol=0, atol=allowed, err_msg=op)
        return cuda.ran[op]

    return compare
