"""Dropout: elements set to zero at random, by a mask that is a pure function of a key."""

from __future__ import annotations

from typing import Any

from trine.backends.op import op
from trine.dtypes import Array, DType, float32

Outputs = dict[str, tuple[tuple[int, ...], DType]]


def _dropout_outputs(x: Array, key: Array, *, p: float) -> Outputs:
    return {"out": (x.shape, x.dtype)}


def _dropout_backward_outputs(grad_out: Array, key: Array, *, p: float) -> Outputs:
    return {"grad_x": (grad_out.shape, grad_out.dtype)}


class DropoutOps:
    """Dropout on `self.xp`."""

    xp: Any
    random_uniform: Any

    @op(outputs=_dropout_outputs)
    def dropout(self, x: Array, key: Array, *, p: float) -> Array:
        """y_i = x_i / (1 - p) where u_i >= p, else 0.

        u_i is the i-th float32 uniform (row-major, whatever x's dtype) of the Philox draw `key`:
        uint32 (5,), see `trine.random`. The mask is never stored: the gradient draws it again.
        """
        return self._drop(x, key, p)

    @op(outputs=_dropout_backward_outputs)
    def dropout_backward(self, grad_out: Array, key: Array, *, p: float) -> Array:
        """dx_i = dy_i / (1 - p) where u_i >= p, else 0: the same mask again."""
        return self._drop(grad_out, key, p)

    def _drop(self, x: Array, key: Array, p: float) -> Array:
        dtype = x.dtype.type
        kept = self.random_uniform(key, shape=x.shape, dtype=float32) >= float32.type(p)
        scale = dtype(1 / (1 - p)) if p < 1 else dtype(0)  # uniforms are below 1: none is kept
        return self.xp.where(kept, x * scale, dtype(0))
