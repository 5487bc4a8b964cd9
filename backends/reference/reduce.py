"""Reductions: one value for all elements along some axes."""

from __future__ import annotations

from typing import Any

from trine.backends.op import op
from trine.backends.reference import rules
from trine.dtypes import Array, int64

Axes = tuple[int, ...] | None


class ReduceOps:
    """Reductions on `self.xp`; `axis=None` reduces over all axes."""

    xp: Any

    @op(outputs=rules.sum_reduction)
    def sum(self, x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
        """Sum over axes; integers and truth values are added in int64."""
        dtype = x.dtype if x.dtype.kind == "f" else int64
        return self.xp.asarray(self.xp.sum(x, axis=axis, keepdims=keepdims, dtype=dtype))

    @op(outputs=rules.reduction)
    def max(self, x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
        """Largest element; NaN if any is. Raises ValueError for no elements."""
        return self.xp.asarray(self.xp.max(x, axis=axis, keepdims=keepdims))

    @op(outputs=rules.reduction)
    def min(self, x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
        """Smallest element; NaN if any is. Raises ValueError for no elements."""
        return self.xp.asarray(self.xp.min(x, axis=axis, keepdims=keepdims))

    @op(outputs=rules.arg_reduction)
    def argmax(self, x: Array, *, axis: int | None = None, keepdims: bool = False) -> Array:
        """Position of the first largest element, int64."""
        return self.xp.asarray(self.xp.argmax(x, axis=axis, keepdims=keepdims)).astype(int64)

    @op(outputs=rules.arg_reduction)
    def argmin(self, x: Array, *, axis: int | None = None, keepdims: bool = False) -> Array:
        """Position of the first smallest element, int64."""
        return self.xp.asarray(self.xp.argmin(x, axis=axis, keepdims=keepdims)).astype(int64)

    def sum_to(self, x: Array, *, shape: tuple[int, ...]) -> Array:
        """Sum what broadcasting `shape` to x.shape repeated: the gradient of broadcasting."""
        if x.shape == shape:
            return x
        extra = len(x.shape) - len(shape)
        axes = tuple(
            i for i in range(len(x.shape)) if i < extra or (shape[i - extra] == 1 != x.shape[i])
        )
        return self.sum(x, axis=axes, keepdims=True).reshape(shape)
