"""Checking kernels: every kernel of an op against the float64 reference on the case's samples.

A kernel passes a sample if its outputs are close enough everywhere (they were poisoned before, so
an element left out shows), have the declared shape and dtype, nothing was written outside of them,
the inputs are as they were (or exactly the declared ones are changed), the same comes out for
inputs with other strides, and it is the kernel that ran.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.backends import Backend, get_backend, probe
from trine.backends.allocator import PoolAllocator
from trine.backends.cases.case import OpCase, Sample
from trine.backends.cases.case import all as all_cases
from trine.backends.cases.case import get as get_case
from trine.backends.cases.tolerances import compare, tolerance
from trine.backends.dispatch import HYPER_ARRAYS
from trine.backends.op import OPS, OpSpec
from trine.dtypes import Array, DType
from trine.kernels import registry

GUARD = 64
"""Bytes before and behind a poisoned output that must stay as they are."""

GUARD_BYTE, POISON_BYTE = 0xA5, 0xCD


@dataclass(frozen=True)
class CheckResult:
    """How a kernel did on one sample."""

    op: str
    backend: str
    kernel: str
    dtype: str
    sample: str
    status: str
    """ "passed", "failed" or "skipped"."""
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether it did not fail."""
        return self.status != "failed"

    def __str__(self) -> str:
        head = f"{self.op} on {self.backend} ({self.kernel}, {self.dtype}), {self.sample}"
        return f"{head}: {self.message or self.status}"


class GuardedAllocator(PoolAllocator):
    """Lends poisoned arrays between guard bytes, and tells when these were overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self._lent: list[tuple[npt.NDArray[np.uint8], int, str]] = []

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """Return a poisoned array (NaN where it holds floats) with guards around it."""
        nbytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        raw = np.full(nbytes + 2 * GUARD, GUARD_BYTE, np.uint8)
        inner = raw[GUARD : GUARD + nbytes]
        inner[...] = POISON_BYTE
        array = inner.view(dtype).reshape(shape)
        if dtype.kind == "f":
            array.fill(np.nan)
        self._lent.append((raw, nbytes, f"{self.op} {shape}"))
        return array

    def broken(self) -> str | None:
        """Return which array was written past, if one was."""
        for raw, nbytes, label in self._lent:
            if (raw[:GUARD] != GUARD_BYTE).any() or (raw[GUARD + nbytes :] != GUARD_BYTE).any():
                return f"wrote outside of the output of {label}"
        return None


@contextmanager
def guarded(backend: Backend) -> Iterator[GuardedAllocator]:
    """Let a backend on the CPU take its outputs from a guarded allocator inside the block."""
    before, allocator = backend.allocator, GuardedAllocator()
    backend.allocator = allocator
    try:
        yield allocator
    finally:
        backend.allocator = before


@contextmanager
def preferring(op: str, name: str | None) -> Iterator[None]:
    """Prefer a kernel inside the block."""
    before = registry.preferred().get(op)
    registry.prefer(op, name)
    try:
        yield
    finally:
        registry.prefer(op, before)


def reference(spec: OpSpec, sample: Sample) -> tuple[list[Any], list[Any]]:
    """Return the outputs of a sample in float64, and the arrays as the op left them."""
    arrays = [_to_float64(a) for a in sample.args]
    with np.errstate(all="ignore"):
        out = spec.reference(get_backend("numpy"), *arrays, **sample.attrs)
    return _as_list(out), arrays


def _to_float64(array: Any) -> Any:
    if array is None:
        return None
    return array.astype(np.float64 if array.dtype.kind == "f" else array.dtype, copy=True)


def _as_list(out: Any) -> list[Any]:
    if out is None:
        return []
    return list(out) if isinstance(out, tuple) else [out]


def _strided(array: Any) -> Any:
    """Return equal elements at other strides: reversed, every second of a larger array."""
    if array is None or array.ndim == 0:
        return array
    wide = np.repeat(array, 2, axis=-1)[..., ::2]
    return (
        np.ascontiguousarray(wide[::-1])[::-1]
        if array.ndim == 1
        else np.swapaxes(np.ascontiguousarray(np.swapaxes(wide, 0, -1)), 0, -1)
    )


def check_sample(
    backend: Backend,
    case: OpCase,
    sample: Sample,
    kernel: str | None,
    dtype: str,
    known: tuple[list[Any], list[Any]] | None = None,
) -> CheckResult:
    """Check one kernel, or the backend's own choice for None, on one sample.

    `known` is what `reference` returns for the sample, where that was computed before.
    """
    spec = OPS[case.op]
    expected, changed = known if known is not None else reference(spec, sample)

    def result(status: str, message: str = "") -> CheckResult:
        ran = kernel or backend.ran.get(case.op, "reference")
        return CheckResult(case.op, backend.name, ran, dtype, sample.label, status, message)

    layouts = ["contiguous"] if spec.mutates else ["contiguous", "strided"]
    for layout in layouts:
        hosts = [
            None if a is None else (_strided(a) if layout == "strided" else a.copy())
            for a in sample.args
        ]
        arrays = [None if h is None else _on(backend, h) for h in hosts]
        if kernel not in (None, "reference"):
            with preferring(case.op, kernel):
                refusal = _refusal(backend, spec, arrays, sample.attrs, kernel, dtype)
            if refusal is not None:
                return result("skipped", f"does not serve {refusal}")
        try:
            fault = check_call(backend, case, sample, arrays, kernel, dtype, (expected, changed))
        except Exception as error:  # whatever a user's kernel raises is that kernel's failure
            fault = f"raised {type(error).__name__}: {error}"
            backend.ran.setdefault(case.op, "the backend's choice")
        if fault is not None:
            return result("failed", f"{fault} ({layout} inputs)")
    return result("passed")


def check_call(
    backend: Backend,
    case: OpCase,
    sample: Sample,
    arrays: list[Any],
    kernel: str | None,
    dtype: str,
    known: tuple[list[Any], list[Any]],
) -> str | None:
    """Call an op once on arrays that hold a sample's values; return what is wrong, if anything.

    Outputs are poisoned and guarded; `known` is what `reference` returns for the sample.
    """
    spec, (expected, changed) = OPS[case.op], known
    with preferring(case.op, kernel), guarded(backend) as allocator:
        backend.ran.pop(case.op, None)
        out = getattr(backend, case.op)(*arrays, **sample.attrs)
        broken = allocator.broken()
    if broken:
        return broken
    if kernel is not None and backend.ran.get(case.op) != kernel:
        return f"{backend.ran.get(case.op)} ran instead"
    allowed = tolerance(case.tolerance, dtype, _precision_of(backend, case.op))
    fault = _compare_outputs(backend, spec, sample, _as_list(out), expected, allowed, dtype)
    return fault or _compare_inputs(backend, spec, arrays, sample, changed, allowed)


def _precision_of(backend: Backend, op: str) -> str:
    """Return the precision of the kernel that served the last call of an op."""
    ran = backend.ran.get(op)
    found = (k.precision for k in registry.kernels(op, backend.name) if k.name == ran)
    return next(found, "fp32")


def _on(backend: Backend, host: Any) -> Any:
    return host if backend.device == "cpu" else backend.xp.asarray(host)


def _refusal(
    backend: Backend, spec: OpSpec, arrays: list[Any], attrs: dict[str, Any], name: str, dtype: str
) -> str | None:
    call = spec.bind(tuple(arrays), attrs)
    for launcher in backend.launchers(spec):
        if launcher.name == name:
            floats = {
                a.dtype.name
                for n, a in zip(spec.arrays, arrays, strict=False)
                if a is not None and a.dtype.kind == "f" and n not in HYPER_ARRAYS
            }
            return launcher.refusal(spec, call, dtype if floats else None)
    return "this backend"


def _compare_outputs(
    backend: Backend, spec: OpSpec, sample: Sample, got: list[Any], expected: list[Any],
    allowed: float, dtype: str,
) -> str | None:  # fmt: skip
    if len(got) != len(expected):
        return f"{len(got)} outputs instead of {len(expected)}"
    call = spec.bind(sample.args, sample.attrs)
    declared = spec.outputs(**call) if spec.outputs is not None else {}
    names = list(declared) or [f"out{i}" for i in range(len(got))]
    for name, mine, wanted in zip(names, got, expected, strict=True):
        host = backend.to_numpy(mine)
        if name in declared and (
            tuple(host.shape) != tuple(declared[name][0]) or host.dtype != declared[name][1]
        ):
            shape, kind = declared[name]
            return f"{name} is {host.dtype} {host.shape}, declared {kind} {shape}"
        fault = compare(host, np.asarray(wanted), allowed)
        if fault is not None:
            return f"{name}, {fault}"
    return None


def _compare_inputs(
    backend: Backend, spec: OpSpec, arrays: list[Any], sample: Sample, changed: list[Any],
    allowed: float,
) -> str | None:  # fmt: skip
    for name, array, before, after in zip(spec.arrays, arrays, sample.args, changed, strict=False):
        if array is None:
            continue
        host = backend.to_numpy(array)
        if name in spec.mutates:
            fault = compare(host, after, allowed)
            if fault is not None:
                return f"{name}, {fault}"
        elif host.tobytes() != before.tobytes():
            return f"the input {name} was changed"
    return None


def check_op(op: str, backend: str, seed: int = 0) -> list[CheckResult]:
    """Check every kernel of an op on a backend, and what the backend chooses by itself."""
    found = probe(backend)
    case = get_case(op)
    if not found.ok:
        return [
            CheckResult(op, backend, "any", dtype, "all samples", "skipped", found.reason)
            for dtype in registry.KERNEL_DTYPES
        ]
    engine = get_backend(backend)
    engine.launchers(OPS[op])  # the backend's kernels are registered now
    names: list[str | None] = [None, *(k.name for k in registry.kernels(op, backend))]
    results: list[CheckResult] = []
    for dtype in registry.KERNEL_DTYPES:
        samples = case.samples(np.random.default_rng(seed), np.dtype(dtype))
        known = [reference(OPS[op], sample) for sample in samples]
        for name in names:
            results.extend(
                check_sample(engine, case, sample, name, dtype, right)
                for sample, right in zip(samples, known, strict=True)
            )
    return results


def check_all(
    ops: Iterable[str] | None = None, backends: Sequence[str] = ("numpy", "numba"), seed: int = 0
) -> list[CheckResult]:
    """Check ops (all that have a case by default) on backends."""
    names = tuple(ops) if ops is not None else tuple(case.op for case in all_cases())
    return [r for op in names for backend in backends for r in check_op(op, backend, seed)]
