"""What competes on one sample: the kernels of the registry, and peers; each is checked first.

A kernel may be wrong in ways that one check does not see: it may remember the answer for arrays it
has met. So after the timing it is called on the very arrays that were timed, with other values in
them, and on fresh arrays, both against the float64 reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np

from trine.backends import Backend
from trine.backends.cases import OpCase, Sample
from trine.backends.cases.check import check_call, check_sample, preferring, reference
from trine.backends.cases.tolerances import compare, tolerance
from trine.backends.op import OPS
from trine.bench.limits import Roofs
from trine.bench.peers import Peer, PeerCall
from trine.bench.results import BenchResult
from trine.bench.timing import Timed, pool_of
from trine.kernels import registry

Known = tuple[list[Any], list[Any]]
"""What `reference` returns: outputs in float64, and the arrays as the op left them."""


class Candidate(Timed, Protocol):
    """What can be checked and timed."""

    @property
    def serves(self) -> bool:
        """Whether it has this call at all, right or wrong."""

    def prepare(self) -> bool:
        """Check it and put its inputs in place; False if it gets no time."""

    def recheck(self, fresh: Sample, known: Known) -> None:
        """Check it after timing, on other values; take the times away if it is wrong."""


def needed_bytes(case: OpCase, sample: Sample, known: Known, dtype: str) -> int:
    """Return the bytes that a call reads and writes at least."""
    if case.nbytes is not None:
        return case.nbytes(sample)
    spec, width = OPS[case.op], np.dtype(dtype).itemsize
    total = 0
    for name, array in zip(spec.arrays, sample.args, strict=False):
        if array is not None:
            total += array.nbytes * (2 if name in spec.mutates else 1)
    for out in map(np.asarray, known[0]):
        total += out.size * (width if out.dtype.kind == "f" else out.dtype.itemsize)
    return total


class KernelCandidate:
    """One kernel, or the reference, of one backend on one sample."""

    def __init__(
        self, backend: Backend, kernel: str, case: OpCase, sample: Sample, dtype: str, known: Known
    ) -> None:
        self.backend, self.kernel, self.case, self.sample = backend, kernel, case, sample
        self.dtype, self.known = dtype, known
        self.pool = pool_of(backend.name, kernel)
        flops = float(case.flops(sample))
        self.result = BenchResult(
            case.op, backend.name, kernel, dtype, sample.label,
            arrays=tuple("-" if a is None else str(tuple(a.shape)) for a in sample.args),
            flops=flops, work=flops, bytes=needed_bytes(case, sample, known, dtype),
        )  # fmt: skip
        for entry in registry.kernels(case.op, backend.name):
            if entry.name == kernel:
                call = OPS[case.op].bind(sample.args, sample.attrs)
                self.result.work = entry.work(call, flops)
        self._refused = False
        self.arrays: list[Any] = []

    @property
    def serves(self) -> bool:
        """Whether the kernel serves the call, right or wrong."""
        return not self._refused

    def prepare(self) -> bool:
        """Check the kernel and put its inputs in place; False if it gets no time."""
        checked = check_sample(
            self.backend, self.case, self.sample, self.kernel, self.dtype, self.known
        )
        self._refused = checked.status == "skipped"
        if checked.status == "failed":
            self.result.error = next(iter(checked.message.splitlines()), "")
        if checked.status != "passed":
            return False
        self.arrays = self._on_backend(self.sample)
        with self.ready():
            self.call()  # compiles; the check may have met another layout
        return True

    def _on_backend(self, sample: Sample) -> list[Any]:
        return [None if a is None else self.backend.xp.asarray(a.copy()) for a in sample.args]

    def ready(self) -> AbstractContextManager[None]:
        """Prefer this kernel inside the block."""
        return preferring(self.case.op, self.kernel)

    def call(self) -> Any:
        """Call the op and wait for the device."""
        out = getattr(self.backend, self.case.op)(*self.arrays, **self.sample.attrs)
        self.backend.synchronize()
        return out

    def recheck(self, fresh: Sample, known: Known) -> None:
        """Check it on the timed arrays with other values, and on fresh arrays."""
        changed = self._on_backend(fresh)
        for old, new in zip(self.arrays, changed, strict=True):
            if old is not None and old.shape == new.shape:
                old[...] = new
        same_shape = all(
            a is None or a.shape == b.shape for a, b in zip(self.arrays, changed, strict=True)
        )
        for arrays in (self.arrays, changed) if same_shape else (changed,):
            fault = check_call(
                self.backend, self.case, fresh, arrays, self.kernel, self.dtype, known
            )
            if fault is not None:
                self.result.fail(f"wrong after timing: {fault}")
                return


class PeerCandidate:
    """Another library's function for the op on the same sample."""

    def __init__(self, peer: Peer, case: OpCase, sample: Sample, dtype: str, known: Known) -> None:
        self.peer, self.case, self.sample, self.dtype, self.known = peer, case, sample, dtype, known
        self.pool = peer.name
        flops = float(case.flops(sample))
        self.result = BenchResult(
            case.op, peer.name, "", dtype, sample.label, side=peer.name,
            flops=flops, work=flops, bytes=needed_bytes(case, sample, known, dtype),
        )  # fmt: skip
        self.built: PeerCall | None = None

    @property
    def serves(self) -> bool:
        """Whether the peer has the op."""
        return self.built is not None or bool(self.result.error)

    def prepare(self) -> bool:
        """Build the call and check it; False if it gets no time."""
        self.built = self.peer.build(self.case.op, self.sample)
        if self.built is None:
            return False
        fault = self._fault(self.built, self.known)
        if fault is not None:
            self.result.error = fault
        return fault is None

    def _fault(self, built: PeerCall, known: Known) -> str | None:
        allowed = tolerance(self.case.tolerance, self.dtype)
        got = built.outputs(built.call())
        spec = OPS[self.case.op]
        changed = [a for n, a in zip(spec.arrays, known[1], strict=False) if n in spec.mutates]
        expected = known[0] or [a for a in changed if a is not None]
        for number, (mine, wanted) in enumerate(zip(got, expected, strict=False)):
            if mine is None:
                continue  # an output for the backward pass that the peer does not show
            fault = compare(mine, np.asarray(wanted), allowed)
            if fault is not None:
                return f"output {number} of {self.peer.name}: {fault}"
        return None

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Nothing to set up."""
        yield

    def call(self) -> Any:
        """Call the peer and wait for it."""
        assert self.built is not None
        return self.built.call()

    def recheck(self, fresh: Sample, known: Known) -> None:
        """Check it on fresh values."""
        built = self.peer.build(self.case.op, fresh)
        assert built is not None
        fault = self._fault(built, known)
        if fault is not None:
            self.result.fail(f"wrong after timing: {fault}")


def judge(result: BenchResult, roofs: Roofs) -> str | None:
    """Enter roof and bound into a row; return why its time is impossible, if it is."""
    if result.backend == "cupy" or not result.rounds or result.dtype not in roofs.peak:
        return None
    numbers = (result.work, result.bytes, result.dtype)
    result.roof, result.bound = roofs.seconds(*numbers), roofs.bound(*numbers)
    if not math.isfinite(result.roof):
        result.roof = None
    return roofs.too_fast(result.median, *numbers)


__all__ = ["Candidate", "KernelCandidate", "PeerCandidate", "judge", "needed_bytes", "reference"]
