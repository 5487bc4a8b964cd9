"""Cases of embedding."""

from __future__ import annotations

from typing import Any

import numpy as np

from trine.backends.cases.case import OpCase, Rng, Sample, register
from trine.dtypes import DType

TIMED = (("tiny", 100, 16, 64), ("typical", 5000, 64, 2048), ("large", 50000, 256, 32768))
"""Rows of the table, columns, look-ups."""


def _embedding(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    for rows, columns, shape in (
        (6, 3, (4,)), (1, 1, (1,)), (6, 3, ()), (6, 3, (0,)), (31, 33, (5, 7)), (257, 8, (2, 3, 4)),
        (40, 257, (300,)), (3, 2, (70000,)),
    ):  # fmt: skip
        weight = rng.normal(size=(rows, columns)).astype(dtype)
        indices = np.asarray(rng.integers(0, rows, shape))
        found.append(Sample(f"{shape} of ({rows}, {columns})", (weight, indices)))
    return found


def _backward_call(
    rng: Rng, dtype: DType, rows: int, columns: int, indices: Any, padding_idx: int = -1
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    grad_out = rng.normal(size=(len(indices), columns)).astype(dtype)
    return (grad_out, indices), {"num_embeddings": rows, "padding_idx": padding_idx}


def _embedding_backward(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    for rows, columns, count, padding_idx in (
        (6, 3, 9, -1), (6, 3, 9, 2), (6, 3, 9, 0), (6, 3, 9, 5), (1, 1, 1, -1), (1, 4, 500, -1),
        (31, 33, 257, 7), (5, 257, 100, -1), (1000, 8, 10, -1), (3, 2, 20000, 1), (6, 3, 0, 1),
    ):  # fmt: skip
        indices = rng.integers(0, rows, count)
        arrays, attrs = _backward_call(rng, dtype, rows, columns, indices, padding_idx)
        label = f"{count} of ({rows}, {columns}), padding {padding_idx}"
        found.append(Sample(label, arrays, attrs))
    for label, indices in (
        ("all equal", np.full(64, 3)),
        ("rising", np.arange(8)),
        ("falling", np.arange(8)[::-1].copy()),
        ("only padding", np.full(5, 2)),
    ):
        arrays, attrs = _backward_call(rng, dtype, 8, 4, indices, 2 if "padding" in label else -1)
        found.append(Sample(label, arrays, attrs))
    return found


def _timed(rng: Rng, dtype: DType) -> list[Sample]:
    return [
        Sample(
            label, (rng.normal(size=(rows, columns)).astype(dtype), rng.integers(0, rows, count))
        )
        for label, rows, columns, count in TIMED
    ]


def _timed_backward(rng: Rng, dtype: DType) -> list[Sample]:
    return [
        Sample(label, *_backward_call(rng, dtype, rows, columns, rng.integers(0, rows, count)))
        for label, rows, columns, count in TIMED
    ]


def _looked_up_bytes(sample: Sample) -> int:
    """Count the rows that are looked up, not the whole table."""
    weight, indices = sample.args
    rows = int(indices.size) * int(weight.shape[1]) * int(weight.itemsize)
    distinct = len(np.unique(indices)) * int(weight.shape[1]) * int(weight.itemsize)
    return int(indices.nbytes) + rows + distinct


register(OpCase("embedding", _embedding, "exact", _timed, nbytes=_looked_up_bytes))
register(
    OpCase(
        "embedding_backward",
        _embedding_backward,
        "reduction",
        _timed_backward,
        lambda sample: int(sample.args[0].size),
    )
)
