"""A case: how an op is proven and timed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trine.dtypes import DType
from trine.errors import suggest

Rng = np.random.Generator


@dataclass(frozen=True)
class Sample:
    """One call of an op: NumPy arrays (None for an absent one) and attributes."""

    label: str
    args: tuple[Any, ...]
    attrs: dict[str, Any] = field(default_factory=dict)


Samples = Callable[[Rng, DType], Sequence[Sample]]


@dataclass(frozen=True)
class OpCase:
    """What is known of an op for checking and timing.

    samples(rng, dtype) makes calls with hostile sizes and values; timing(rng, dtype) makes calls
    worth timing, labelled "tiny", "typical" or "large". `tolerance` names a class of
    `trine.backends.cases.tolerances`. flops(sample) counts the arithmetic of a call, 0 where only
    bytes matter. nbytes(sample) counts the bytes that a call cannot do without; by default those of
    its inputs and outputs, once each, twice for an input that the op changes.
    """

    op: str
    samples: Samples
    tolerance: str = "elementwise"
    timing: Samples | None = None
    flops: Callable[[Sample], int] = lambda sample: 0
    nbytes: Callable[[Sample], int] | None = None


MODULES = (
    "primitive_cases",
    "linear_cases",
    "conv_cases",
    "pool_cases",
    "activation_cases",
    "softmax_cases",
    "norm_cases",
    "embedding_cases",
    "dropout_cases",
    "recurrent_cases",
    "region_cases",
    "optimiser_cases",
)
"""The modules beside this one that register cases."""

_cases: dict[str, OpCase] = {}
_loaded = False


def register(case: OpCase) -> OpCase:
    """Enter a case; a later one for the same op replaces the earlier."""
    _cases[case.op] = case
    return case


def _load() -> None:
    global _loaded  # noqa: PLW0603  the modules are imported once
    if not _loaded:
        _loaded = True
        for name in MODULES:
            importlib.import_module(f"trine.backends.cases.{name}")


def all() -> tuple[OpCase, ...]:
    """Return every case, in the order in which they were registered."""
    _load()
    return tuple(_cases.values())


def get(op: str) -> OpCase:
    """Return the case of an op; raises ValueError if it has none."""
    _load()
    if op not in _cases:
        raise suggest("cases", "op with a case", op, _cases)
    return _cases[op]
