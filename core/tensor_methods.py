"""What one computes with tensors: arithmetic, functions, reductions, shapes, products.

`TensorMethods` is the part of `trine.tensor.Tensor` that records ops; it holds no state. Operands
of a pair are brought to one dtype by PyTorch's rules before an op sees them.
"""

# mypy: disable-error-code="misc"
# `self` is always a Tensor, which mypy cannot know of a base class.

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from trine.autograd import apply
from trine.backends.reference.rules import resolve_shape
from trine.dtypes import DEFAULT_FLOAT, DType, bool_, is_float, promote
from trine.primitives import PRIMITIVES as P

if TYPE_CHECKING:
    from trine.tensor import Tensor

Number = bool | int | float
Dims = int | Sequence[int] | None


class TensorMethods:  # noqa: PLW1641  Tensor hashes by identity
    """Methods of a tensor that compute; see `trine.tensor.Tensor`."""

    __slots__ = ()

    # Elementwise

    def _operand(self: Tensor, op: str, other: Any) -> Tensor:
        """Return the other operand as a tensor here; a number in the type that the pair gets."""
        if hasattr(other, "backend"):
            return cast("Tensor", other)
        if isinstance(other, (bool, int, float)) or (
            isinstance(other, np.generic) and other.dtype.kind in "biuf"
        ):
            number = other.item() if isinstance(other, np.generic) else other
            return self._wrap(
                self.backend.constant(number, promote(self.dtype, number)), self.backend
            )
        raise TypeError(
            f"[{op}] expected a tensor or a number, got {type(other).__name__}. Make it a tensor: "
            "trine.tensor(x)."
        )

    def _pair(
        self: Tensor, op: str, other: Any, *, reverse: bool = False, floats: bool = False
    ) -> Any:
        other = self._operand(op, other)
        dtype = result_dtype(self, other)
        if floats and not is_float(dtype):
            dtype = DEFAULT_FLOAT
        x, y = self.astype(dtype), other.astype(dtype)
        return (y, x) if reverse else (x, y)

    def _binary(
        self: Tensor, op: str, other: Any, *, reverse: bool = False, floats: bool = False
    ) -> Any:
        x, y = self._pair(op, other, reverse=reverse, floats=floats)
        _check_broadcast(op, x, y)
        return apply(P[op], x, y)

    def _compare(self: Tensor, op: str, other: Any) -> Tensor:
        x, y = self._pair(op, other)
        _check_broadcast(op, x, y)
        if x.backend is not y.backend:
            apply(P["add"], x, y)  # words the error
        return self._wrap(getattr(self.backend, op)(x.data, y.data), self.backend)

    def _unary(self: Tensor, op: str) -> Tensor:
        x = self if is_float(self.dtype) else self.astype(DEFAULT_FLOAT)
        return apply(P[op], x)  # type: ignore[no-any-return]

    def __add__(self: Tensor, other: Any) -> Tensor:
        return self._binary("add", other)  # type: ignore[no-any-return]

    def __radd__(self: Tensor, other: Any) -> Tensor:
        return self._binary("add", other, reverse=True)  # type: ignore[no-any-return]

    def __sub__(self: Tensor, other: Any) -> Tensor:
        return self._binary("sub", other)  # type: ignore[no-any-return]

    def __rsub__(self: Tensor, other: Any) -> Tensor:
        return self._binary("sub", other, reverse=True)  # type: ignore[no-any-return]

    def __mul__(self: Tensor, other: Any) -> Tensor:
        return self._binary("mul", other)  # type: ignore[no-any-return]

    def __rmul__(self: Tensor, other: Any) -> Tensor:
        return self._binary("mul", other, reverse=True)  # type: ignore[no-any-return]

    def __truediv__(self: Tensor, other: Any) -> Tensor:
        return self._binary("div", other, floats=True)  # type: ignore[no-any-return]

    def __rtruediv__(self: Tensor, other: Any) -> Tensor:
        return self._binary("div", other, reverse=True, floats=True)  # type: ignore[no-any-return]

    def __pow__(self: Tensor, other: Any) -> Tensor:
        return self._binary("pow", other)  # type: ignore[no-any-return]

    def __rpow__(self: Tensor, other: Any) -> Tensor:
        return self._binary("pow", other, reverse=True)  # type: ignore[no-any-return]

    def __floordiv__(self: Tensor, other: Any) -> Tensor:
        x, y = self._pair("floor_div", other)
        return self._wrap(self.backend.floor_div(x.data, y.data), self.backend)

    def __neg__(self: Tensor) -> Tensor:
        return apply(P["neg"], self)  # type: ignore[no-any-return]

    def __matmul__(self: Tensor, other: Any) -> Tensor:
        return self.matmul(other)

    def __eq__(self: Tensor, other: object) -> Tensor:  # type: ignore[override]
        return self._compare("equal", other)

    def __ne__(self: Tensor, other: object) -> Tensor:  # type: ignore[override]
        return self._compare("not_equal", other)

    def __lt__(self: Tensor, other: Any) -> Tensor:
        return self._compare("less", other)

    def __le__(self: Tensor, other: Any) -> Tensor:
        return self._compare("less_equal", other)

    def __gt__(self: Tensor, other: Any) -> Tensor:
        return self._compare("greater", other)

    def __ge__(self: Tensor, other: Any) -> Tensor:
        return self._compare("greater_equal", other)

    def __and__(self: Tensor, other: Any) -> Tensor:
        return self._compare("logical_and", other)

    def __or__(self: Tensor, other: Any) -> Tensor:
        return self._compare("logical_or", other)

    def __invert__(self: Tensor) -> Tensor:
        return self._wrap(self.backend.logical_not(self.data), self.backend)

    def __abs__(self: Tensor) -> Tensor:
        return self.abs()

    def abs(self: Tensor) -> Tensor:
        """|x|."""
        return apply(P["abs"], self)  # type: ignore[no-any-return]

    def sign(self: Tensor) -> Tensor:
        """-1, 0 or 1."""
        return apply(P["sign"], self)  # type: ignore[no-any-return]

    def floor(self: Tensor) -> Tensor:
        """The largest integer not above x."""
        return self._unary("floor")

    def exp(self: Tensor) -> Tensor:
        """e^x."""
        return self._unary("exp")

    def expm1(self: Tensor) -> Tensor:
        """e^x - 1."""
        return self._unary("expm1")

    def log(self: Tensor) -> Tensor:
        """Natural logarithm."""
        return self._unary("log")

    def log1p(self: Tensor) -> Tensor:
        """ln(1 + x)."""
        return self._unary("log1p")

    def sqrt(self: Tensor) -> Tensor:
        """Square root."""
        return self._unary("sqrt")

    def sin(self: Tensor) -> Tensor:
        """Sine of radians."""
        return self._unary("sin")

    def cos(self: Tensor) -> Tensor:
        """Cosine of radians."""
        return self._unary("cos")

    def tanh(self: Tensor) -> Tensor:
        """Hyperbolic tangent."""
        return self._unary("tanh")

    def sigmoid(self: Tensor) -> Tensor:
        """1 / (1 + e^-x)."""
        return self._unary("sigmoid")

    def relu(self: Tensor) -> Tensor:
        """max(x, 0)."""
        return apply(P["relu"], self)  # type: ignore[no-any-return]

    def softplus(self: Tensor) -> Tensor:
        """ln(1 + e^x)."""
        return self._unary("softplus")

    def square(self: Tensor) -> Tensor:
        """x * x."""
        return self * self

    def pow(self: Tensor, exponent: Any) -> Tensor:
        """x to a power."""
        return self.__pow__(exponent)

    def isfinite(self: Tensor) -> Tensor:
        """Whether each element is neither NaN nor infinite."""
        return self._wrap(self.backend.isfinite(self.data), self.backend)

    def clamp(self: Tensor, min: Any = None, max: Any = None) -> Tensor:
        """Limit the elements to [min, max]; the gradient is zero where the limit acts."""
        result = self
        if min is not None:
            limit = result._operand("clamp", min).astype(self.dtype)
            result = apply(P["where"], result < limit, limit, result)
        if max is not None:
            limit = result._operand("clamp", max).astype(self.dtype)
            result = apply(P["where"], result > limit, limit, result)
        return result

    def masked_fill(self: Tensor, mask: Tensor, value: Number) -> Tensor:
        """Return the tensor with `value` where the mask is true."""
        filler = self._operand("masked_fill", value).astype(self.dtype)
        return apply(P["where"], mask.astype(bool_), filler, self)  # type: ignore[no-any-return]

    # Reductions

    def sum(self: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Sum over all axes or some."""
        axis = self._axes("sum", dim)
        if axis == ():
            return self
        return apply(P["sum"], self, axis=axis, keepdims=keepdim)  # type: ignore[no-any-return]

    def mean(self: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Arithmetic mean over all axes or some."""
        axis = self._axes("mean", dim)
        count = math.prod(self.shape if axis is None else [self.shape[a] for a in axis])
        x = self if is_float(self.dtype) else self.astype(DEFAULT_FLOAT)
        return x.sum(dim, keepdim) / (count if count else math.nan)

    def var(
        self: Tensor, dim: Dims = None, *, correction: int = 1, keepdim: bool = False
    ) -> Tensor:
        """Variance: squared distances from the mean over (count - correction)."""
        axis = self._axes("var", dim)
        count = math.prod(self.shape if axis is None else [self.shape[a] for a in axis])
        distances = self - self.mean(dim, keepdim=True)
        freedom = count - correction
        return (distances * distances).sum(dim, keepdim) / (freedom if freedom > 0 else math.nan)

    def std(
        self: Tensor, dim: Dims = None, *, correction: int = 1, keepdim: bool = False
    ) -> Tensor:
        """Square root of the variance."""
        return self.var(dim, correction=correction, keepdim=keepdim).sqrt()

    def amax(self: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Largest elements; equal ones share the gradient."""
        return self._extreme("max", dim, keepdim)

    def amin(self: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Smallest elements; equal ones share the gradient."""
        return self._extreme("min", dim, keepdim)

    def _extreme(self: Tensor, op: str, dim: Dims, keepdim: bool) -> Tensor:
        axis = self._axes(op, dim)
        sizes = self.shape if axis is None else [self.shape[a] for a in axis]
        if math.prod(sizes) == 0:
            raise ValueError(
                f"[{op}] expected at least one element to choose from, got shape {self.shape}. Check "
                "for empty input."
            )
        return apply(P[op], self, axis=axis, keepdims=keepdim)  # type: ignore[no-any-return]

    def max(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
        """The largest element, or with `dim` (values, indices) along it; the first of equals."""
        return self.amax() if dim is None else self._along("argmax", dim, keepdim)

    def min(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
        """The smallest element, or with `dim` (values, indices) along it; the first of equals."""
        return self.amin() if dim is None else self._along("argmin", dim, keepdim)

    def _along(self: Tensor, op: str, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
        axis = self._axis(op, dim)
        positions = getattr(self, op)(dim, keepdim=True)
        index = list(np.ogrid[tuple(slice(size) for size in positions.shape)])
        place = tuple(
            positions.data if i == axis else self.backend.asarray(grid)
            for i, grid in enumerate(index)
        )
        values: Tensor = apply(P["getitem"], self, index=place)
        return (values, positions) if keepdim else (values.squeeze(axis), positions.squeeze(axis))

    def argmax(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Position of the first largest element, int64."""
        axis = None if dim is None else self._axis("argmax", dim)
        return self._wrap(self.backend.argmax(self.data, axis=axis, keepdims=keepdim), self.backend)

    def argmin(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Position of the first smallest element, int64."""
        axis = None if dim is None else self._axis("argmin", dim)
        return self._wrap(self.backend.argmin(self.data, axis=axis, keepdims=keepdim), self.backend)

    def all(self: Tensor) -> Tensor:
        """Whether every element is nonzero."""
        return self.astype(bool_).long().sum() == self.numel()

    def any(self: Tensor) -> Tensor:
        """Whether some element is nonzero."""
        return self.astype(bool_).long().sum() > 0

    def norm(self: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Euclidean norm: the square root of the sum of squares."""
        return (self * self).sum(dim, keepdim).sqrt()

    # Shape and products

    def _axis(self: Tensor, op: str, dim: int) -> int:
        if not -self.ndim <= dim < max(self.ndim, 1):
            raise ValueError(
                f"[{op}] expected dim from {-self.ndim} to {self.ndim - 1} for shape {self.shape}, got "
                f"{dim}. Choose an axis that exists."
            )
        return dim % max(self.ndim, 1)

    def _axes(self: Tensor, op: str, dim: Dims) -> tuple[int, ...] | None:
        if dim is None:
            return None
        axes = tuple(self._axis(op, d) for d in ((dim,) if isinstance(dim, int) else dim))
        if len(set(axes)) != len(axes):
            raise ValueError(f"[{op}] expected different dims, got {dim}. Name each once.")
        return axes

    def reshape(self: Tensor, *shape: int | Sequence[int]) -> Tensor:
        """The same elements in another shape; one size may be -1."""
        wanted = resolve_shape(self.shape, _flat(shape))
        return self if wanted == self.shape else apply(P["reshape"], self, shape=wanted)

    def view(self: Tensor, *shape: int | Sequence[int]) -> Tensor:
        """The same as reshape."""
        return self.reshape(*shape)

    def permute(self: Tensor, *dims: int | Sequence[int]) -> Tensor:
        """The axes in another order."""
        axes = tuple(self._axis("permute", d) for d in _flat(dims))
        if sorted(axes) != list(range(self.ndim)):
            raise ValueError(
                f"[permute] expected each of {self.ndim} axes once, got {axes}. Name all axes."
            )
        return apply(P["transpose"], self, axes=axes)  # type: ignore[no-any-return]

    def transpose(self: Tensor, dim0: int, dim1: int) -> Tensor:
        """Two axes exchanged."""
        axes = list(range(self.ndim))
        a, b = self._axis("transpose", dim0), self._axis("transpose", dim1)
        axes[a], axes[b] = b, a
        return self.permute(*axes)

    def flatten(self: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Axes start_dim to end_dim joined into one."""
        if self.ndim == 0:
            return self.reshape(1)
        first, last = self._axis("flatten", start_dim), self._axis("flatten", end_dim)
        joined = math.prod(self.shape[first : last + 1])
        return self.reshape(*self.shape[:first], joined, *self.shape[last + 1 :])

    def squeeze(self: Tensor, dim: int | None = None) -> Tensor:
        """Without axes of size one, or without axis `dim` if its size is one."""
        if dim is None:
            return self.reshape(tuple(size for size in self.shape if size != 1))
        axis = self._axis("squeeze", dim)
        if self.shape[axis] != 1:
            return self
        return self.reshape(self.shape[:axis] + self.shape[axis + 1 :])

    def unsqueeze(self: Tensor, dim: int) -> Tensor:
        """With a new axis of size one at `dim`."""
        if not -self.ndim - 1 <= dim <= self.ndim:
            raise ValueError(
                f"[unsqueeze] expected dim from {-self.ndim - 1} to {self.ndim}, got {dim}."
            )
        axis = dim % (self.ndim + 1)
        return self.reshape((*self.shape[:axis], 1, *self.shape[axis:]))

    def expand(self: Tensor, *shape: int | Sequence[int]) -> Tensor:
        """Repeat along axes of size one; -1 keeps a size."""
        wanted = _flat(shape)
        extra = len(wanted) - self.ndim
        sizes = tuple(
            self.shape[i - extra] if size == -1 else size for i, size in enumerate(wanted)
        )
        fits = extra >= 0 and all(
            size in (1, wanted) for size, wanted in zip(self.shape, sizes[extra:], strict=True)
        )
        if not fits:
            raise ValueError(
                f"[expand] expected a shape that {self.shape} broadcasts to, got {wanted}. Only axes of "
                "size one repeat."
            )
        return apply(P["broadcast_to"], self, shape=sizes)  # type: ignore[no-any-return]

    def __getitem__(self: Tensor, index: Any) -> Tensor:
        plain = plain_index(self, index)
        try:
            return apply(P["getitem"], self, index=plain)  # type: ignore[no-any-return]
        except IndexError as error:
            raise IndexError(
                f"[getitem] expected an index within shape {self.shape}: {error}. Check the index."
            ) from None

    def matmul(self: Tensor, other: Tensor) -> Tensor:
        """Matrix product over the last two axes; vectors as in NumPy, batches broadcast."""
        if not hasattr(other, "backend"):
            raise TypeError(
                f"[matmul] expected a tensor, got {type(other).__name__}. Make it one: trine.tensor(x)."
            )
        x, y = self._pair("matmul", other)
        if x.ndim == 0 or y.ndim == 0 or x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
            raise ValueError(
                f"[matmul] expected inner sizes to agree, got {self.shape} @ {other.shape}. Transpose "
                "one of them?"
            )
        a = x.unsqueeze(0) if x.ndim == 1 else x
        b = y.unsqueeze(1) if y.ndim == 1 else y
        out: Tensor = apply(P["matmul"], a, b, trans_a=False, trans_b=False)
        if x.ndim == 1:
            out = out.squeeze(-2)
        return out.squeeze(-1) if y.ndim == 1 else out


def _flat(items: Sequence[int | Sequence[int]]) -> tuple[int, ...]:
    if len(items) == 1 and not isinstance(items[0], (int, np.integer)):
        items = items[0]
    return tuple(int(cast("int", item)) for item in items)


def plain_index(x: Tensor, index: Any) -> Any:
    """Return an index with tensors replaced by their arrays, after checking where they live."""

    def plain(part: Any) -> Any:
        if hasattr(part, "backend"):
            if part.backend is not x.backend:
                raise ValueError(
                    f"[getitem] expected an index on {x.backend.name!r}, got one on "
                    f"{part.backend.name!r}. Move it: index.to({x.backend.name!r})."
                )
            return part.data
        if isinstance(part, (list, np.ndarray)):
            return x.backend.asarray(np.asarray(part))
        if isinstance(part, np.integer):
            return int(part)
        return part

    return tuple(plain(p) for p in index) if isinstance(index, tuple) else plain(index)


def result_dtype(x: Tensor, y: Tensor) -> DType:
    if x.dtype == y.dtype:
        return x.dtype
    if x.ndim != 0 and y.ndim == 0 and promote(x.dtype, y.dtype).kind == x.dtype.kind:
        return x.dtype  # a tensor without axes widens only into a higher category
    if y.ndim != 0 and x.ndim == 0 and promote(x.dtype, y.dtype).kind == y.dtype.kind:
        return y.dtype
    return promote(x.dtype, y.dtype)


def _check_broadcast(op: str, x: Tensor, y: Tensor) -> None:
    if x.shape == y.shape or not x.shape or not y.shape:
        return
    for a, b in zip(reversed(x.shape), reversed(y.shape), strict=False):
        if a != b and a != 1 and b != 1:
            raise ValueError(
                f"[{op}] expected shapes that broadcast, got {x.shape} and {y.shape}: sizes {a} and "
                f"{b} differ. Reshape one of them."
            )
