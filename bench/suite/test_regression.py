"""A small suite for pytest-benchmark: `pytest bench/ --benchmark-only`; not part of the tests.

It follows one machine over time (`--benchmark-autosave`, `--benchmark-compare`). For claims about
kernels use `trine bench`, which checks what it times and knows the machine's limits.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from trine.backends import get_backend
from trine.backends.cases import get
from trine.bench.models import MODELS
from trine.bench.steps import initial_weights, make_step

OPS = (
    "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "max_pool2d", "linear", "softmax",
    "cross_entropy", "layer_norm", "lstm", "adam_step",
)  # fmt: skip
"""One op of each family."""


@pytest.mark.parametrize("op", OPS)
def test_op(benchmark, op):
    """Time the kernel that the numba backend chooses, on the op's typical shape."""
    case, backend = get(op), get_backend("numba")
    assert case.timing is not None
    samples = {s.label: s for s in case.timing(np.random.default_rng(0), np.dtype("float32"))}
    sample = samples["typical"]
    call = getattr(backend, op)
    benchmark.group = "ops"
    benchmark.extra_info["kernel"] = None
    call(*sample.args, **sample.attrs)  # compiles
    benchmark(lambda: call(*sample.args, **sample.attrs))
    benchmark.extra_info["kernel"] = backend.ran[op]


@pytest.mark.parametrize("name", ["lenet5", "mlp", "mlp-small", "lstm"])
def test_step(benchmark, name):
    """Time a training step at the model's first batch size."""
    model = MODELS[name]
    step = make_step(name, model.batches[0], "numba", "float32", initial_weights(model, 0), seed=0)
    benchmark.group = "training steps"
    step()  # compiles
    benchmark(step)


def test_dispatch(benchmark):
    """Time a call of an op on one element: nothing but the way to the kernel."""
    backend = get_backend("numba")
    x = np.ones(1, np.float32)
    benchmark.group = "overhead"
    benchmark(backend.relu, x)


def test_import(benchmark):
    """Time a process that imports trine and nothing else."""
    benchmark.group = "overhead"
    benchmark(lambda: subprocess.run([sys.executable, "-c", "import trine"], check=True))
