"""Every op on a GPU: against float64, and against the numpy backend."""

from __future__ import annotations

import numpy as np
import pytest

import trine
from trine.backends import cases, get_backend
from trine.backends.cases.check import check_op, check_sample
from trine.backends.cases.tolerances import compare, tolerance
from trine.backends.op import OPS
from trine.bench.gpu.judged import on_device, results
from trine.bench.gpu.small import small_samples

pytestmark = pytest.mark.gpu
NAMES = [case.op for case in cases.all() if not OPS[case.op].host_bound]
DTYPES = ("float32", "float64")


def calls(op, dtype, dry_run):
    case = cases.get(op)
    if dry_run:
        return small_samples(case, dtype, 1, 500)
    return case.samples(np.random.default_rng(0), np.dtype(dtype))


@pytest.mark.parametrize("op", NAMES)
def test_every_kernel_against_float64(op, dry_run):
    if dry_run:
        checked = [
            check_sample(get_backend("cupy"), cases.get(op), sample, None, dtype)
            for dtype in DTYPES
            for sample in calls(op, dtype, dry_run)
        ]
    else:
        checked = check_op(op, "cupy")
    failed = [str(result) for result in checked if not result.ok]
    assert checked, "no sample"
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("op", NAMES)
def test_the_numbers_of_the_numpy_backend(op, dry_run):
    """Both may be off by the op's tolerance, in opposite directions."""
    gpu, cpu, spec = get_backend("cupy"), get_backend("numpy"), OPS[op]
    for dtype in DTYPES:
        allowed = 2 * tolerance(cases.get(op).tolerance, dtype)
        for sample in calls(op, dtype, dry_run):
            host = [None if a is None else a.copy() for a in sample.args]
            device = on_device(gpu, sample)
            with np.errstate(all="ignore"):
                want = results(spec, host, getattr(cpu, op)(*host, **sample.attrs))
            got = results(spec, device, getattr(gpu, op)(*device, **sample.attrs))
            assert len(got) == len(want)
            for mine, right in zip(got, want, strict=True):
                fault = compare(gpu.to_numpy(mine), np.asarray(right), allowed)
                assert fault is None, f"{op} {dtype} {sample.label}: {fault}"


def test_a_tensor_goes_to_the_gpu_and_back():
    x = trine.tensor([1.0, 2.0], backend="cupy", requires_grad=True)
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2, 4])
