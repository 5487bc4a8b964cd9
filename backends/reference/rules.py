"""Shapes and dtypes of primitive ops' outputs, which is all that their kernels need to know."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trine.dtypes import Array, DType, bool_, int64

Outputs = dict[str, tuple[tuple[int, ...], DType]]


def unary(x: Array, **_: Any) -> Outputs:
    """One output like the input."""
    return {"out": (x.shape, x.dtype)}


def unary_bool(x: Array, **_: Any) -> Outputs:
    """One truth value an element."""
    return {"out": (x.shape, bool_)}


def binary(x: Array, y: Array, **_: Any) -> Outputs:
    """Two inputs of one dtype, broadcast."""
    return {"out": (np.broadcast_shapes(x.shape, y.shape), x.dtype)}


def binary_bool(x: Array, y: Array, **_: Any) -> Outputs:
    """Two inputs, broadcast, one truth value an element."""
    return {"out": (np.broadcast_shapes(x.shape, y.shape), bool_)}


def where(condition: Array, x: Array, y: Array, **_: Any) -> Outputs:
    """Three inputs, broadcast."""
    return {"out": (np.broadcast_shapes(condition.shape, x.shape, y.shape), x.dtype)}


def reduced_shape(
    shape: tuple[int, ...], axis: tuple[int, ...] | int | None, keepdims: bool
) -> tuple[int, ...]:
    """Return the shape after reducing over some axes (all of them for None)."""
    if axis is None:
        axes = set(range(len(shape)))
    else:
        axes = {a % len(shape) for a in ((axis,) if isinstance(axis, int) else axis)}
    if keepdims:
        return tuple(1 if i in axes else size for i, size in enumerate(shape))
    return tuple(size for i, size in enumerate(shape) if i not in axes)


def reduction(x: Array, *, axis: tuple[int, ...] | None, keepdims: bool, **_: Any) -> Outputs:
    """A reduction that keeps the dtype."""
    return {"out": (reduced_shape(x.shape, axis, keepdims), x.dtype)}


def sum_reduction(x: Array, *, axis: tuple[int, ...] | None, keepdims: bool, **_: Any) -> Outputs:
    """A sum: integers and truth values add up in int64."""
    dtype = x.dtype if x.dtype.kind == "f" else int64
    return {"out": (reduced_shape(x.shape, axis, keepdims), dtype)}


def arg_reduction(x: Array, *, axis: int | None, keepdims: bool, **_: Any) -> Outputs:
    """Positions along an axis, or in the flat array."""
    return {"out": (reduced_shape(x.shape, axis, keepdims), int64)}


def matmul(x: Array, y: Array, *, trans_a: bool, trans_b: bool) -> Outputs:
    """Product of the last two axes, broadcast over the others."""
    rows = x.shape[-1] if trans_a else x.shape[-2]
    columns = y.shape[-2] if trans_b else y.shape[-1]
    batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return {"out": ((*batch, rows, columns), x.dtype)}


def reshape(x: Array, *, shape: tuple[int, ...]) -> Outputs:
    """Another shape of as many elements."""
    return {"out": (resolve_shape(x.shape, shape), x.dtype)}


def resolve_shape(old: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, ...]:
    """Return `new` with a -1 replaced by what is left of the elements.

    Raises ValueError if the numbers of elements differ.
    """
    size = math.prod(old)
    known = math.prod(s for s in new if s != -1)
    holes = sum(s == -1 for s in new)
    fits = size == known if holes == 0 else holes == 1 and known > 0 and size % known == 0
    if not fits or any(s < -1 for s in new):
        raise ValueError(
            f"[reshape] expected a shape of {size} elements for {old}, got {new}. Make the products "
            "equal; at most one -1 stands for the rest."
        )
    return tuple(size // known if s == -1 else s for s in new)
