"""Timing kernels honestly.

A kernel gets a time only if it passes its op's check before, and gives the right numbers on fresh
inputs after. Candidates take turns within each round, so that a slow phase of the machine meets all
of them; the first call after each change is dropped. What is timed is a call of the op through the
backend, allocation of outputs included, up to the end of the device's work.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trine.backends import Backend, get_backend
from trine.backends.cases import OpCase, Sample, get
from trine.backends.cases.check import check_sample, preferring, reference
from trine.backends.cases.tolerances import compare, tolerance
from trine.backends.op import OPS
from trine.kernels import registry

ROUNDS = 7


@dataclass
class BenchResult:
    """The times of one kernel on one shape, in seconds a call; or why there are none."""

    op: str
    backend: str
    kernel: str
    dtype: str
    shape: str
    times: list[float] = field(default_factory=list)
    flops: int = 0
    bytes: int = 0
    error: str = ""

    def percentile(self, q: float) -> float:
        """Return a percentile of the times."""
        return float(np.percentile(self.times, q))

    @property
    def median(self) -> float:
        """The median time."""
        return self.percentile(50)

    @property
    def gflops(self) -> float:
        """Arithmetic a second, in 1e9."""
        return self.flops / self.median / 1e9

    @property
    def gbytes(self) -> float:
        """Bytes of inputs and outputs a second, in 1e9."""
        return self.bytes / self.median / 1e9


def run(
    ops: Iterable[str],
    backends: Sequence[str],
    *,
    shapes: Sequence[str] = (),
    seconds: float = 0.5,
    dtype: str = "float32",
    seed: int = 0,
) -> list[BenchResult]:
    """Time every kernel of the ops, and the reference, on the shapes of their cases.

    `shapes` names those to time ("tiny", "typical", "large"), all by default; `seconds` is the time
    for each kernel and shape. Ops without timing shapes are left out.
    """
    results: list[BenchResult] = []
    for op in ops:
        case = get(op)
        if case.timing is None:
            continue
        for sample in case.timing(np.random.default_rng(seed), np.dtype(dtype)):
            if shapes and sample.label not in shapes:
                continue
            known = reference(OPS[op], sample)
            candidates = [
                Candidate(get_backend(name), kernel, case, sample, dtype, known)
                for name in backends
                for kernel in _kernel_names(op, name)
            ]
            _time_together([c for c in candidates if c.prepare(seed)], seconds, seed)
            results.extend(c.result for c in candidates if c.serves)
    return results


def _kernel_names(op: str, backend: str) -> list[str]:
    get_backend(backend).launchers(OPS[op])  # the backend's kernels are registered now
    return ["reference", *(k.name for k in registry.kernels(op, backend))]


class Candidate:
    """One kernel on one backend for one shape."""

    def __init__(
        self,
        backend: Backend,
        kernel: str,
        case: OpCase,
        sample: Sample,
        dtype: str,
        known: tuple[list[Any], list[Any]],
    ) -> None:
        self.backend, self.kernel, self.case, self.sample = backend, kernel, case, sample
        self.serves = True
        self.dtype = dtype
        self.known = known
        arrays = [a for a in sample.args if a is not None]
        width = np.dtype(dtype).itemsize
        out_bytes = sum(a.size * (width if a.dtype.kind == "f" else a.dtype.itemsize)
                        for a in map(np.asarray, known[0]))  # fmt: skip
        self.result = BenchResult(
            case.op, backend.name, kernel, dtype, sample.label,
            flops=case.flops(sample), bytes=sum(a.nbytes for a in arrays) + out_bytes,
        )  # fmt: skip
        self.arrays: list[Any] = []

    def prepare(self, seed: int) -> bool:
        """Check the kernel and put its inputs in place; False if it gets no time."""
        with preferring(self.case.op, self.kernel):
            checked = check_sample(
                self.backend, self.case, self.sample, self.kernel, self.dtype, self.known
            )
        self.serves = checked.status != "skipped"
        if checked.status == "failed":
            self.result.error = checked.message
        if checked.status != "passed":
            return False
        self.arrays = self.fresh_arrays()
        self.call()  # compiles; the check may have met another layout
        return True

    def fresh_arrays(self) -> list[Any]:
        """Return copies of the sample's arrays on the backend."""
        return [None if a is None else self.backend.xp.asarray(a.copy()) for a in self.sample.args]

    def call(self) -> Any:
        """Call the op and wait for the device."""
        out = getattr(self.backend, self.case.op)(*self.arrays, **self.sample.attrs)
        self.backend.synchronize()
        return out

    def recheck(self, seed: int) -> None:
        """Compare the numbers on fresh inputs after timing; drop the times if they are wrong."""
        timing = self.case.timing
        assert timing is not None  # run() has made sure
        fresh = next(
            s
            for s in timing(np.random.default_rng(seed + 1), np.dtype(self.dtype))
            if s.label == self.sample.label
        )
        expected, _ = reference(OPS[self.case.op], fresh)
        arrays = [None if a is None else self.backend.xp.asarray(a.copy()) for a in fresh.args]
        with preferring(self.case.op, self.kernel):
            out = getattr(self.backend, self.case.op)(*arrays, **fresh.attrs)
        outputs = [] if out is None else list(out) if isinstance(out, tuple) else [out]
        allowed = tolerance(self.case.tolerance, self.dtype)
        for got, wanted in zip(outputs, expected, strict=True):
            fault = compare(self.backend.to_numpy(got), np.asarray(wanted), allowed)
            if fault is not None:
                self.result.error = f"wrong after timing: {fault}"
                self.result.times.clear()


def _time_together(candidates: list[Candidate], seconds: float, seed: int) -> None:
    """Time candidates in turns, round after round."""
    for _ in range(ROUNDS):
        for candidate in candidates:
            end = time.perf_counter() + seconds / ROUNDS
            with preferring(candidate.case.op, candidate.kernel):
                if len(candidates) > 1:
                    candidate.call()  # caches and thread pools change hands here
                while True:
                    before = time.perf_counter()
                    candidate.call()
                    after = time.perf_counter()
                    candidate.result.times.append(after - before)
                    if after >= end:
                        break
    for candidate in candidates:
        candidate.recheck(seed)
