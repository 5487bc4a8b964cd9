"""Right before fast: a call's error against float64, computed on the device by the plain bodies.

An error that is good passes. One above it passes up to twice PyTorch's in the same precision, but
never beyond what the precision can be the reason of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from trine.backends import Backend, cases
from trine.backends.cases import Sample
from trine.backends.cases.tolerances import tolerance
from trine.backends.op import OPS, OpSpec
from trine.dtypes import Array, DType
from trine.kernels import registry

GOOD = {"fp32": 1e-5, "tf32": 1e-3, "bf16": 1e-2}
"""By precision: below it a relative error is its rounding."""
FAILS = 1e-4
"""Above it an error is never the rounding of float32."""
SAME = 2.0
"""Between them ours may be so many times PyTorch's."""


def fails(op: str, precision: str) -> float:
    """Return the error above which a result is wrong, whoever made it."""
    if precision == "fp32":
        return FAILS
    return tolerance(cases.get(op).tolerance, "float32", precision)


def allowed(op: str, precision: str, theirs: float | None) -> float:
    """Return the error up to which a result counts as right, given PyTorch's, if there is one."""
    if theirs is None:
        return GOOD["fp32"] if precision == "fp32" else fails(op, precision)
    return min(max(GOOD[precision], SAME * theirs), fails(op, precision))


@contextmanager
def references() -> Iterator[None]:
    """Run every op by its plain body inside the block, on CuPy's own functions."""
    before = registry.preferred()
    for name in OPS:
        registry.prefer(name, "reference")
    try:
        yield
    finally:
        for name in OPS:
            registry.prefer(name, before.get(name))


@contextmanager
def poisoned(backend: Backend) -> Iterator[None]:
    """Fill outputs with NaN before kernels get them: what is not written shows."""
    plain = backend.empty

    def empty(shape: tuple[int, ...], dtype: DType) -> Array:
        made = plain(shape, dtype)
        made.fill(np.nan if np.dtype(dtype).kind == "f" else 0x5A)
        return made

    backend.empty = empty  # type: ignore[method-assign]
    try:
        yield
    finally:
        del backend.empty


def on_device(backend: Backend, sample: Sample, floats: str | None = None) -> list[Any]:
    """Return a sample's arrays on the device, floats in another type if one is given."""
    return [
        None
        if a is None
        else backend.xp.asarray(a.astype(floats) if floats and a.dtype.kind == "f" else a)
        for a in sample.args
    ]


def expected(backend: Backend, op: str, sample: Sample) -> list[Any]:
    """Return what a call gives in float64, on the host."""
    spec = OPS[op]
    arrays = on_device(backend, sample, "float64")
    with references(), np.errstate(all="ignore"):
        result = spec.reference(backend, *arrays, **sample.attrs)
    return [backend.to_numpy(a) for a in results(spec, arrays, result)]


def results(spec: OpSpec, arrays: Sequence[Any], result: Any) -> list[Any]:
    """Return a call's outputs, or the arrays that it has changed."""
    if result is not None:
        return list(result) if isinstance(result, tuple) else [result]
    changed = (a for n, a in zip(spec.arrays, arrays, strict=False) if n in spec.mutates)
    return [a for a in changed if a is not None]


def error(got: Sequence[Any], wanted: Sequence[Any]) -> float:
    """Return the largest relative error (Frobenius) over the outputs; inf where one is wrong.

    Numbers that are not floats must be equal, NaN and Inf stand in the same places. None stands for
    an output that is not shown.
    """
    worst = 0.0
    for mine, right in zip(got, wanted, strict=False):
        if mine is None:
            continue
        a, b = np.asarray(mine), np.asarray(right)
        if a.shape != b.shape:
            return float("inf")
        if b.dtype.kind != "f":
            if not np.array_equal(a, b):
                return float("inf")
            continue
        a = a.astype(np.float64)
        finite = np.isfinite(b)
        if not np.array_equal(finite, np.isfinite(a)):
            return float("inf")
        a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
        size = float(np.linalg.norm(b))
        gap = float(np.linalg.norm(a - b))
        worst = max(worst, gap / size if size else (0.0 if gap == 0 else float("inf")))
    return worst
