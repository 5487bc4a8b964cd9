"""A strict cupy backend over the emulator's stand-in, and calls held against the reference."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trine import backends
from trine.backends.cases import get
from trine.backends.cases.case import Sample
from trine.backends.cases.check import check_sample
from trine.backends.cases.tolerances import TABLE
from trine.backends.op import OPS
from trine.bench import cuda_gate
from trine.kernels import registry
from trine.kernels.cuda import emulator
from trine.kernels.cuda.emulator.launch import ORDERS

sys.path.insert(0, str(Path(__file__).parent))  # for recorded.py, which mutation/ takes too


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
    listed = cuda_gate.INSTANCES.read_text().splitlines()
    new = sorted(set(cuda_gate.instances(backend)) - set(listed))
    assert not new, (
        f"add these lines to {cuda_gate.INSTANCES.name}, then run: python -m trine.bench.cuda_gate "
        f"--out {cuda_gate.TABLE}"
    )


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
