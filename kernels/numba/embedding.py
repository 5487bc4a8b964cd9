"""Rows of a table by number; in the gradient each thread owns a range of the table's rows.

The places where a row was looked up are strung together first, in order, so that each row of the
gradient is written once and adds up what belongs to it.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from trine.dtypes import Array, int64
from trine.kernels.numba.jit import helper, parallel, scratch
from trine.kernels.registry import kernel

RANGES = 16
"""Ranges of rows that threads can share."""


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


@helper
def _string_places(indices: Array, padding_idx: int, heads: Array, following: Array) -> None:
    """heads[row] = the first place of a row, following[m] = the place after m; -1 ends a string."""
    heads[:] = -1
    for m in range(indices.size - 1, -1, -1):
        row = indices[m]
        following[m] = heads[row]
        heads[row] = m
    if padding_idx >= 0:
        heads[padding_idx] = -1


@helper
def _sum_rows(
    grad_out: Array, heads: Array, following: Array, first: int, last: int, grad_weight: Array
) -> None:
    for row in range(first, last):
        target = grad_weight[row]
        m = heads[row]
        if m < 0:
            target[:] = 0
            continue
        for d in range(target.size):
            target[d] = grad_out[m, d]
        m = following[m]
        while m >= 0:
            for d in range(target.size):
                target[d] += grad_out[m, d]
            m = following[m]


@parallel()
def _embedding_backward(
    grad_out: Array, indices: Array, padding_idx: int, heads: Array, following: Array,
    grad_weight: Array,
) -> None:  # fmt: skip
    rows = grad_weight.shape[0]
    _string_places(indices, padding_idx, heads[:rows], following)
    for part in prange(RANGES):
        number = np.int64(part)
        first, last = number * rows // RANGES, (number + 1) * rows // RANGES
        _sum_rows(grad_out, heads, following, first, last, grad_weight)


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
    heads = scratch("embedding_heads", num_embeddings, int64)
    following = scratch("embedding_following", indices.size, int64)
    _embedding_backward(work, grad_out, indices, padding_idx, heads, following, grad_weight)
