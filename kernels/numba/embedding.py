"""Rows of a table by number; in the gradient each thread owns a range of the table's rows."""

from __future__ import annotations

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba.jit import parallel
from trine.kernels.registry import kernel

RANGES = 16
"""Ranges of rows; each looks at all indices and adds up its own, in order."""


def _check_range(op: str, indices: Array, rows: int) -> None:
    """Raise IndexError rather than read or write past the table."""
    if indices.size and not (indices.min() >= 0 and indices.max() < rows):
        raise IndexError(
            f"[{op}] expected indices from 0 to {rows - 1}, got {indices.min()} to "
            f"{indices.max()}. Check the vocabulary's size."
        )


@parallel()
def _embedding(weight: Array, indices: Array, out: Array) -> None:
    for i in prange(indices.size):
        source, target = weight[indices[i]], out[i]
        for d in range(weight.shape[1]):
            target[d] = source[d]


@kernel("embedding", backend="numba", name="rows")
def embedding(weight: Array, indices: Array, out: Array) -> None:
    """out[...] = weight[indices[...]]."""
    _check_range("embedding", indices, weight.shape[0])
    count = indices.size
    _embedding(out.size, weight, indices.reshape(count), out.reshape(count, weight.shape[1]))


@parallel()
def _embedding_backward(
    grad_out: Array, indices: Array, padding_idx: int, grad_weight: Array
) -> None:
    rows = grad_weight.shape[0]
    for part in prange(RANGES):
        number = np.int64(part)
        first, last = number * rows // RANGES, (number + 1) * rows // RANGES
        grad_weight[first:last] = 0
        for m in range(indices.size):
            row = indices[m]
            if first <= row < last and row != padding_idx:
                source, target = grad_out[m], grad_weight[row]
                for d in range(target.size):
                    target[d] += source[d]


@kernel("embedding_backward", backend="numba", name="ranges")
def embedding_backward(
    grad_out: Array,
    indices: Array,
    num_embeddings: int,
    padding_idx: int,
    grad_weight: Array,
) -> None:
    """grad_weight[v] = sum of grad_out[m] over m with indices[m] = v, in order of m."""
    _check_range("embedding_backward", indices, num_embeddings)
    work = grad_out.size + grad_weight.size
    _embedding_backward(work, grad_out, indices, padding_idx, grad_weight)
