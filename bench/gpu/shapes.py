"""The frozen list of ops and shapes that are timed on a GPU: larger ones than a CPU is asked for.

To the timing shapes of the cases come arrays beyond the L2 cache, products that fill a device, and
the convolutions of four nets, layer by layer. A name keeps its meaning: change nothing, add new names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trine.backends import cases
from trine.backends.cases import Sample
from trine.backends.cases.conv_cases import Layer
from trine.backends.op import OPS
from trine.bench import shapes as named
from trine.bench.gpu.small import small_samples
from trine.bench.harness import samples
from trine.kernels import registry

CONV = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad")
SIDE = (1, 1)
DOWN = (2, 2)


def _three(n: int, c: int, size: int, k: int, stride: tuple[int, int] = SIDE) -> Layer:
    return Layer(n, c, (size, size), k, (3, 3), stride, SIDE)


LAYERS: dict[str, dict[str, Layer]] = {
    "LeNet-5, batch 128": {
        "1-6 5x5 at 28": Layer(128, 1, (28, 28), 6, (5, 5), padding=(2, 2)),
        "6-16 5x5 at 14": Layer(128, 6, (14, 14), 16, (5, 5)),
    },
    "VGG-small on 32x32, batch 128": {
        "3-64 at 32": _three(128, 3, 32, 64),
        "64-64 at 32": _three(128, 64, 32, 64),
        "64-128 at 16": _three(128, 64, 16, 128),
        "128-128 at 16": _three(128, 128, 16, 128),
        "128-256 at 8": _three(128, 128, 8, 256),
        "256-256 at 8": _three(128, 256, 8, 256),
    },
    "ResNet-20 on 32x32, batch 128": {
        "3-16 at 32": _three(128, 3, 32, 16),
        "16-16 at 32": _three(128, 16, 32, 16),
        "16-32 down": _three(128, 16, 32, 32, DOWN),
        "32-32 at 16": _three(128, 32, 16, 32),
        "32-64 down": _three(128, 32, 16, 64, DOWN),
        "64-64 at 8": _three(128, 64, 8, 64),
    },
    "ResNet-18 on 224x224, batch 32": {
        "3-64 7x7 down": Layer(32, 3, (224, 224), 64, (7, 7), DOWN, (3, 3)),
        "64-64 at 56": _three(32, 64, 56, 64),
        "64-128 down": _three(32, 64, 56, 128, DOWN),
        "128-128 at 28": _three(32, 128, 28, 128),
        "256-256 at 14": _three(32, 256, 14, 256),
        "512-512 at 7": _three(32, 512, 7, 512),
    },
}
"""Net -> layer -> its convolution."""

DRY_LAYERS = {"dry run": {"2-3 at 5": _three(1, 2, 5, 3)}}
DRY_OPS = {
    "fp32": ("relu", "softmax", "max_pool2d", "adam_step"),
    "tf32": ("matmul",),
    "bf16": ("matmul",),
}

WIDE = 1 << 25
"""Elements of 128 MiB in float32: beyond every L2 cache."""


def _normal(*shapes: tuple[int, ...], **attrs: Any) -> Callable[[Any, Any], Any]:
    def draw(rng: np.random.Generator, dtype: Any) -> tuple[Any, dict[str, Any]]:
        return tuple(rng.standard_normal(s, np.float32).astype(dtype) for s in shapes), attrs

    return draw


def _product(n: int) -> Callable[[Any, Any], Any]:
    return _normal((n, n), (n, n), trans_a=False, trans_b=True)


EXTRA: dict[str, dict[str, Callable[[Any, Any], Any]]] = {
    "relu": {"32 M": _normal((WIDE,))},
    "exp": {"32 M": _normal((WIDE,))},
    "add": {"32 M": _normal((WIDE,), (WIDE,))},
    "sum": {"32 M": _normal((WIDE,))},
    "bias_act": {"64x64x112x112": _normal((64, 64, 112, 112), (64,), activation="relu")},
    "batch_norm": {"64x64x12544": _normal((64, 64, 112 * 112), (64,), (64,), eps=1e-5)},
    "layer_norm": {
        "32768x1024": _normal((32768, 1024), (1024,), (1024,), eps=1e-5),
        "16 long rows": _normal((16, 1 << 21), (1 << 21,), (1 << 21,), eps=1e-5),
    },
    "softmax": {"64 long rows": _normal((64, 393216), axis=1)},
    "matmul": {"4096": _product(4096), "2048": _product(2048), "256": _product(256)},
}
"""Op -> name -> what draws its arrays and attributes."""


def convolutions(op: str, layer: Layer, dtype: str = "float32") -> Sample:
    """Return a call of a convolution, or of one of its gradients, for a layer."""
    make = named.MAKERS[op][1]
    arrays, attrs = make(np.random.default_rng(0), np.dtype(dtype), layer)
    return Sample(layer.label, arrays, attrs)


def ops(dry_run: bool, precision: str = "fp32") -> tuple[str, ...]:
    """Return the ops of table T1: those with timing shapes, but for table T2's.

    In another precision than fp32 only those that have kernels of it.
    """
    if dry_run:
        return DRY_OPS[precision]
    every = (c.op for c in cases.all() if c.timing is not None and c.op not in CONV)
    first = tuple(EXTRA)  # those with goals of their own
    found = (*first, *(op for op in every if op not in first))
    rounding = {k.op for k in registry.all_kernels() if k.precision == precision}
    return tuple(
        op for op in found if not OPS[op].host_bound and (precision == "fp32" or op in rounding)
    )


def kernel_samples(op: str, dry_run: bool, dtype: str = "float32") -> list[Sample]:
    """Return the calls of an op that are timed: large, typical, and those added here."""
    case = cases.get(op)
    if dry_run:
        return small_samples(case, dtype, 1)
    found = samples(case, dtype, 0, ("typical", "large", "peers"))
    extra = EXTRA.get(op, {})
    found += [
        Sample(name, *draw(np.random.default_rng(0), np.dtype(dtype)))
        for name, draw in extra.items()
    ]
    return found
