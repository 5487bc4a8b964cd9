"""A strict cupy backend over the emulator's stand-in, and calls held against the reference."""

from __future__ import annotations

import sys

import pytest

from trine import backends
from trine.backends.cases import get
from trine.backends.cases.case import Sample
from trine.backends.cases.check import check_sample
from trine.kernels import registry
from trine.kernels.cuda import emulator
from trine.kernels.cuda.emulator.launch import ORDERS


@pytest.fixture(autouse=True, scope="session")
def _needs_a_compiler():
    reason = emulator.unavailable()
    if reason is not None:
        pytest.skip(f"no CUDA emulator: {reason}")


@pytest.fixture
def cuda(stand_in, monkeypatch):
    """The cupy backend, emulated; a fallback on the reference is an error."""
    monkeypatch.delitem(sys.modules, "trine.backends.cupy_backend", raising=False)
    monkeypatch.setattr(backends, "_instances", dict(backends._instances))
    monkeypatch.setattr(backends, "_probes", {"cupy": backends.Probe(True, "stand-in")})
    backends._instances.pop("cupy", None)
    backend = backends.get_backend("cupy")
    backend.strict = True
    assert stand_in.__name__ == "cupy"
    yield backend
    sys.modules.pop("trine.backends.cupy_backend", None)


@pytest.fixture(params=ORDERS)
def order(request):
    """Threads and blocks in this order: kernels must not depend on it."""
    before = emulator.configure(order=request.param, seed=5)
    yield request.param
    emulator.configure(order=before.order, seed=before.seed)


@pytest.fixture
def check(cuda):
    """Run a call on every kernel of an op and compare it with the float64 reference."""

    def run(op, *arrays, **attrs):
        dtype = next(
            (a.dtype.name for a in arrays if a is not None and a.dtype.kind == "f"), "float32"
        )
        kernels = registry.kernels(op, "cupy")
        assert kernels
        for kernel in kernels:
            sample = Sample(str([getattr(a, "shape", None) for a in arrays]), arrays, attrs)
            result = check_sample(cuda, get(op), sample, kernel.name, dtype)
            assert result.status == "passed", str(result)

    return run
