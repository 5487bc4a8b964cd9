"""Every op of the matrix by its CUDA kernels, in float32 and float64, on all samples of its case.

Each call runs its threads and blocks in another order than the one before it: forward, in reverse,
shuffled by two seeds. A sample has one order in float32 and another one in float64. In float64 a grid
has at most three blocks, so that kernels which loop over their grid do so.
"""

from __future__ import annotations

import numpy as np
import pytest
from recorded import OP_NAMES

from trine.backends import cases
from trine.backends.cases.check import check_sample, reference
from trine.backends.op import OPS
from trine.kernels import registry
from trine.kernels.cuda import emulator, launch

FEW_BLOCKS = 3
ORDERS = (("forward", 0), ("reverse", 0), ("shuffled", 1), ("shuffled", 2))


@pytest.fixture
def in_order():
    """A function that sets the order of threads and blocks, by number, and returns it."""
    before = emulator.configure()

    def choose(number):
        order, seed = ORDERS[number % len(ORDERS)]
        emulator.configure(order=order, seed=seed)
        return order, seed

    yield choose
    emulator.configure(order=before.order, seed=before.seed)


@pytest.mark.parametrize("op", OP_NAMES)
def test_kernels_agree_with_float64_in_any_order(cuda, in_order, op, monkeypatch):
    kernels = registry.kernels(op, "cupy")
    assert kernels, "an op without a CUDA kernel"
    served = set()
    for number, dtype in enumerate(registry.KERNEL_DTYPES):
        if dtype == "float64":
            monkeypatch.setattr(launch, "MAX_BLOCKS", FEW_BLOCKS)
        samples = cases.get(op).samples(np.random.default_rng(0), np.dtype(dtype))
        for i, sample in enumerate(samples):
            known = reference(OPS[op], sample)
            for k, kernel in enumerate(kernels):
                order = in_order(i + k + 2 * number)
                result = check_sample(cuda, cases.get(op), sample, kernel.name, dtype, known)
                assert result.ok, f"{result} (in order {order})"
                if result.status == "passed":
                    served.add((kernel.name, dtype))
    assert served == {(kernel.name, dtype) for kernel in kernels for dtype in kernel.dtypes}
