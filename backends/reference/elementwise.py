"""Elementwise primitives: z_i = f(x_i) or f(x_i, y_i), with NumPy's broadcasting.

Operands of a pair have one dtype (tensors convert before they come here); results have it too.
NaN goes through every function, also maximum and minimum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from trine.backends.allocator import POOLED_BYTES
from trine.backends.op import op
from trine.backends.reference import rules
from trine.dtypes import Array, DType


class ElementwiseOps:
    """Elementwise primitives on `self.xp`."""

    xp: Any

    if TYPE_CHECKING:

        def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
            """Return an uninitialised array of the backend's own memory."""

    def _arithmetic(self, function: Callable[..., Array], x: Array, y: Array) -> Array:
        """Return function(x, y); what is large lies in the pool, where no page is fresh."""
        sizes = getattr(x, "nbytes", 0), getattr(y, "nbytes", 0)  # a Python number has none
        if max(sizes) < POOLED_BYTES or min(sizes) == 0:
            return function(x, y)
        if x.dtype.kind != "f" or x.dtype != y.dtype:
            return function(x, y)
        return function(x, y, out=self.empty(np.broadcast_shapes(x.shape, y.shape), x.dtype))

    @op(outputs=rules.binary)
    def add(self, x: Array, y: Array) -> Array:
        """x + y."""
        return self._arithmetic(self.xp.add, x, y)

    @op(outputs=rules.binary)
    def sub(self, x: Array, y: Array) -> Array:
        """x - y."""
        return self._arithmetic(self.xp.subtract, x, y)

    @op(outputs=rules.binary)
    def mul(self, x: Array, y: Array) -> Array:
        """x * y, the Hadamard product."""
        return self._arithmetic(self.xp.multiply, x, y)

    @op(outputs=rules.binary)
    def div(self, x: Array, y: Array) -> Array:
        """x / y; by IEEE rules where y = 0."""
        return self._arithmetic(self.xp.true_divide, x, y)

    @op(outputs=rules.binary)
    def floor_div(self, x: Array, y: Array) -> Array:
        """floor(x / y)."""
        return self.xp.floor_divide(x, y)

    @op(outputs=rules.binary)
    def pow(self, x: Array, y: Array) -> Array:
        """x to the power y."""
        return self.xp.power(x, y)

    @op(outputs=rules.binary)
    def maximum(self, x: Array, y: Array) -> Array:
        """The larger of x and y; NaN if either is."""
        return self.xp.maximum(x, y)

    @op(outputs=rules.binary)
    def minimum(self, x: Array, y: Array) -> Array:
        """The smaller of x and y; NaN if either is."""
        return self.xp.minimum(x, y)

    @op(outputs=rules.unary)
    def neg(self, x: Array) -> Array:
        """-x."""
        return self.xp.negative(x)

    @op(outputs=rules.unary)
    def abs(self, x: Array) -> Array:
        """|x|."""
        return self.xp.abs(x)

    @op(outputs=rules.unary)
    def sign(self, x: Array) -> Array:
        """-1, 0 or 1; 0 at 0."""
        return self.xp.sign(x)

    @op(outputs=rules.unary)
    def floor(self, x: Array) -> Array:
        """The largest integer not above x."""
        return self.xp.floor(x)

    @op(outputs=rules.unary)
    def exp(self, x: Array) -> Array:
        """e^x."""
        return self.xp.exp(x)

    @op(outputs=rules.unary)
    def expm1(self, x: Array) -> Array:
        """e^x - 1, exact near 0."""
        return self.xp.expm1(x)

    @op(outputs=rules.unary)
    def log(self, x: Array) -> Array:
        """Natural logarithm."""
        return self.xp.log(x)

    @op(outputs=rules.unary)
    def log1p(self, x: Array) -> Array:
        """ln(1 + x), exact near 0."""
        return self.xp.log1p(x)

    @op(outputs=rules.unary)
    def sqrt(self, x: Array) -> Array:
        """Square root; NaN below 0."""
        return self.xp.sqrt(x)

    @op(outputs=rules.unary)
    def sin(self, x: Array) -> Array:
        """sin x, x in radians."""
        return self.xp.sin(x)

    @op(outputs=rules.unary)
    def cos(self, x: Array) -> Array:
        """cos x, x in radians."""
        return self.xp.cos(x)

    @op(outputs=rules.unary)
    def tanh(self, x: Array) -> Array:
        """tanh x."""
        return self.xp.tanh(x)

    @op(outputs=rules.unary)
    def sigmoid(self, x: Array) -> Array:
        """1 / (1 + e^-x), by e^-|x| so that nothing overflows."""
        decay = self.xp.exp(-self.xp.abs(x))
        return self.xp.where(x >= 0, 1 / (1 + decay), decay / (1 + decay)).astype(x.dtype)

    @op(outputs=rules.unary)
    def relu(self, x: Array) -> Array:
        """max(x, 0)."""
        return self.xp.maximum(x, x.dtype.type(0))

    @op(outputs=rules.unary)
    def softplus(self, x: Array) -> Array:
        """ln(1 + e^x), as max(x, 0) + ln(1 + e^-|x|)."""
        return self.xp.maximum(x, x.dtype.type(0)) + self.xp.log1p(self.xp.exp(-self.xp.abs(x)))

    @op(outputs=rules.binary_bool)
    def equal(self, x: Array, y: Array) -> Array:
        """x == y."""
        return self.xp.equal(x, y)

    @op(outputs=rules.binary_bool)
    def not_equal(self, x: Array, y: Array) -> Array:
        """x != y."""
        return self.xp.not_equal(x, y)

    @op(outputs=rules.binary_bool)
    def greater(self, x: Array, y: Array) -> Array:
        """x > y."""
        return self.xp.greater(x, y)

    @op(outputs=rules.binary_bool)
    def greater_equal(self, x: Array, y: Array) -> Array:
        """x >= y."""
        return self.xp.greater_equal(x, y)

    @op(outputs=rules.binary_bool)
    def less(self, x: Array, y: Array) -> Array:
        """x < y."""
        return self.xp.less(x, y)

    @op(outputs=rules.binary_bool)
    def less_equal(self, x: Array, y: Array) -> Array:
        """x <= y."""
        return self.xp.less_equal(x, y)

    @op(outputs=rules.binary_bool)
    def logical_and(self, x: Array, y: Array) -> Array:
        """x and y, nonzero counting as true."""
        return self.xp.logical_and(x, y)

    @op(outputs=rules.binary_bool)
    def logical_or(self, x: Array, y: Array) -> Array:
        """x or y, nonzero counting as true."""
        return self.xp.logical_or(x, y)

    @op(outputs=rules.unary_bool)
    def logical_not(self, x: Array) -> Array:
        """Whether x is zero."""
        return self.xp.logical_not(x)

    @op(outputs=rules.unary_bool)
    def isfinite(self, x: Array) -> Array:
        """Whether x is neither NaN nor infinite."""
        return self.xp.isfinite(x)

    @op(outputs=rules.where)
    def where(self, condition: Array, x: Array, y: Array) -> Array:
        """x where the condition holds, y elsewhere."""
        return self.xp.where(condition, x, y)

    def astype(self, x: Array, *, dtype: DType) -> Array:
        """Return x in another dtype (x itself if it has it)."""
        with np.errstate(invalid="ignore"):  # NaN to int is some integer, as on a device
            return x.astype(dtype, copy=False)

    def mask(self, name: str, x: Array, y: Array, dtype: DType) -> Array:
        """Return the comparison `name` of x and y as 0 and 1 of a dtype."""
        return self.astype(getattr(self, name)(x, y), dtype=dtype)
