"""The tensor: an array of some backend, and how it came about."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from trine import autograd
from trine.autograd import Node, apply
from trine.backends import NAMES, Backend, get_backend
from trine.backends.reference.rules import resolve_shape
from trine.dtypes import DEFAULT_FLOAT, Array, DType, as_dtype, bool_, is_float, promote
from trine.errors import GraphError
from trine.primitives import PRIMITIVES as P

Number = bool | int | float
Dims = int | Sequence[int] | None


class Version:
    """How often an array was changed in place; views share it with their base."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class RemovableHandle:
    """Takes a hook away again."""

    def __init__(self, hooks: list[Callable[..., Any]], hook: Callable[..., Any]) -> None:
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        """Remove the hook; does nothing the second time."""
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)


class Tensor:
    """An n-dimensional array on a backend that can record what is computed from it.

    Made by `trine.tensor` and its relatives. Names and semantics follow PyTorch's.
    """

    __slots__ = (
        "__weakref__", "_grad_view", "backend", "data", "grad", "hooks", "index", "node",
        "requires_grad", "version",
    )  # fmt: skip
    __array_ufunc__ = None  # numpy_array + tensor asks the tensor, which says what to do

    data: Array
    backend: Backend
    requires_grad: bool
    grad: Tensor | None
    node: Node | None
    index: int
    version: Version
    hooks: list[Callable[..., Any]] | None
    _grad_view: Array | None

    def __init__(self, data: Array, backend: Backend, requires_grad: bool = False) -> None:
        self.data = data
        self.backend = backend
        self.grad = self.node = self.hooks = self._grad_view = None
        self.index = 0
        self.version = Version()
        self.requires_grad = False
        if requires_grad:
            self.requires_grad_()

    @staticmethod
    def _wrap(array: Array, backend: Backend) -> Tensor:
        return Tensor(array, backend)

    # What it is

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.data.shape  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.data.shape)

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.data.dtype  # type: ignore[no-any-return]

    @property
    def device(self) -> str:
        """The backend's device, "cpu" or "cuda:N"."""
        return self.backend.device

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded op made it."""
        return self.node is None

    @property
    def grad_fn(self) -> Node | None:
        """The node that made it."""
        return self.node

    @property
    def T(self) -> Tensor:  # noqa: N802  the field's name
        """The axes in reverse order."""
        return self.permute(*reversed(range(self.ndim)))

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one axis."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Number of axes."""
        return self.ndim

    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("[len] expected at least one axis, got a tensor without axes.")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        values = np.array2string(
            self.backend.to_numpy(self.data), separator=", ", threshold=100, prefix="tensor("
        )
        extra = "" if self.dtype in (DEFAULT_FLOAT, bool_) else f", dtype={self.dtype.name}"
        extra += "" if self.backend.name == "numpy" else f", backend={self.backend.name!r}"
        if self.node is not None:
            extra += f", grad_fn=<{self.node.op.name}>"
        elif self.requires_grad:
            extra += ", requires_grad=True"
        return f"tensor({values}{extra})"

    __hash__ = object.__hash__

    # Out of the tensor

    def numpy(self) -> npt.NDArray[Any]:
        """Return the elements as a NumPy array; on the CPU it shares memory.

        Raises GraphError if the tensor requires a gradient.
        """
        if self.requires_grad:
            raise GraphError(
                "[numpy] expected a tensor outside the graph, got one that requires a gradient. Call "
                "x.detach().numpy()."
            )
        return self.backend.to_numpy(self.data)

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        if self.device != "cpu":
            raise TypeError(
                f"[numpy] expected a tensor on the CPU, got one on {self.device}. Copy it explicitly: "
                "x.numpy()."
            )
        host = self.numpy()
        return np.array(host, dtype=dtype, copy=copy) if copy else np.asarray(host, dtype=dtype)

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self.requires_grad:
            raise GraphError(
                "[dlpack] expected a tensor outside the graph, got one that requires a gradient. Pass "
                "x.detach()."
            )
        return self.data.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self.data.__dlpack_device__()

    def item(self) -> Any:
        """Return the only element as a Python number; waits for the device.

        Raises ValueError if there is not exactly one element.
        """
        if self.numel() != 1:
            raise ValueError(
                f"[item] expected one element, got shape {self.shape}. Index or reduce first."
            )
        return self.backend.to_numpy(self.data).item()

    def tolist(self) -> Any:
        """Return the elements as nested lists."""
        return self.backend.to_numpy(self.data).tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        if self.node is not None:
            raise GraphError(
                "[deepcopy] expected a leaf, got the result of a recorded op. Copy x.detach()."
            )
        copy = type(self).__new__(type(self))
        Tensor.__init__(copy, self.backend.copy(self.data), self.backend, self.requires_grad)
        if self.grad is not None:
            copy.grad = Tensor(self.backend.copy(self.grad.data), self.backend)
        if hasattr(self, "__dict__"):  # subclasses may carry more, such as a name
            vars(copy).update(vars(self))
        memo[id(self)] = copy
        return copy

    # Moving and converting

    def to(self, target: str | Any = None, dtype: npt.DTypeLike | None = None) -> Tensor:
        """Return the tensor on another backend ("numpy", "numba", "cupy") or in another dtype.

        Gradients flow through a change of dtype. A leaf moved to another backend is a new leaf.
        Raises GraphError for moving the result of a recorded op to another backend.
        """
        if isinstance(target, Tensor):
            target, dtype = target.backend.name, target.dtype
        elif target is not None and target not in NAMES:
            target, dtype = None, target
        result = self
        if target is not None and target != self.backend.name:
            if self.node is not None:
                raise GraphError(
                    f"[to] expected a leaf to move to {target!r}, got the result of a recorded op: "
                    "gradients do not cross backends. Move x.detach(), or the inputs."
                )
            backend = get_backend(target)
            array = backend.asarray(self.backend.to_numpy(self.data))
            if array is self.data:  # two backends on the CPU: the copy keeps them apart
                array = backend.copy(array)
            result = Tensor(array, backend, self.requires_grad)
        return result if dtype is None else result.astype(dtype)

    def astype(self, dtype: npt.DTypeLike) -> Tensor:
        """Return the elements in another dtype."""
        wanted = as_dtype(dtype)
        return self if wanted == self.dtype else apply(P["astype"], self, dtype=wanted)

    def float(self) -> Tensor:
        """Return the elements as float32."""
        return self.astype("float32")

    def double(self) -> Tensor:
        """Return the elements as float64."""
        return self.astype("float64")

    def long(self) -> Tensor:
        """Return the elements as int64."""
        return self.astype("int64")

    def contiguous(self) -> Tensor:
        """Return the tensor with its elements in row-major order in memory."""
        return self if self.data.flags.c_contiguous else self.clone()

    # Autograd

    def backward(
        self,
        gradient: Tensor | None = None,
        *,
        retain_graph: bool = False,
        create_graph: bool = False,
    ) -> None:
        """Add d self / d leaf, times `gradient`, to `.grad` of every leaf that requires it.

        Raises GraphError if nothing was recorded, ValueError if a gradient is needed or misshapen.
        """
        autograd.backward(
            [self],
            [_seed_gradient(self, gradient)],
            create_graph=create_graph,
            retain_graph=retain_graph,
        )

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set whether gradients are kept for this leaf.

        Raises TypeError for integer and bool tensors, GraphError for results of recorded ops.
        """
        if requires_grad and not is_float(self.dtype):
            raise TypeError(
                f"[requires_grad_] expected float32 or float64, got {self.dtype.name}: only these have "
                "gradients. Convert with x.float()."
            )
        if self.node is not None and not requires_grad:
            raise GraphError(
                "[requires_grad_] expected a leaf, got the result of a recorded op. Use x.detach()."
            )
        self.requires_grad = requires_grad
        return self

    def detach(self) -> Tensor:
        """Return a tensor that shares the elements but not the graph."""
        result = Tensor(self.data, self.backend)
        result.version = self.version
        return result

    def clone(self) -> Tensor:
        """Return a copy through which gradients flow."""
        return apply(P["clone"], self)  # type: ignore[no-any-return]

    def retain_grad(self) -> None:
        """Keep `.grad` of this tensor although it is not a leaf."""
        if self.node is not None:
            import weakref  # noqa: PLC0415  rarely used

            if self.node.retained is None:
                self.node.retained = {}
            self.node.retained[self.index] = weakref.ref(self)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call `hook(grad)` when this tensor's gradient is known; what it returns replaces it.

        Raises GraphError if the tensor does not require a gradient.
        """
        if not self.requires_grad:
            raise GraphError(
                "[register_hook] expected a tensor that requires a gradient, got one that does not. "
                "Call requires_grad_() first."
            )
        if self.node is None:
            hooks = self.hooks = self.hooks if self.hooks is not None else []
        else:
            if self.node.hooks is None:
                self.node.hooks = {}
            hooks = self.node.hooks.setdefault(self.index, [])
        hooks.append(hook)
        return RemovableHandle(hooks, hook)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    # In place

    def _bump(self) -> None:
        self.version.count += 1

    def _change(self, op: str, array: Array) -> Self:
        if autograd.is_grad_enabled() and self.requires_grad:
            kind = "a leaf that requires a gradient" if self.node is None else "part of the graph"
            raise GraphError(
                f"[{op}] expected a tensor that may be changed in place, got {kind}. Use the op without "
                "underscore, or change it inside `with trine.no_grad():`."
            )
        if np.broadcast_shapes(array.shape, self.shape) != self.shape:
            raise ValueError(
                f"[{op}] expected a value that broadcasts to {self.shape}, got {array.shape}. Reshape "
                "it first."
            )
        self.backend.assign(self.data, array)
        self._bump()
        return self

    def _operand_array(self, op: str, other: Tensor | Number) -> Array:
        other = self._operand(op, other)
        if other.backend is not self.backend:
            raise ValueError(
                f"[{op}] expected a tensor on {self.backend.name!r}, got one on "
                f"{other.backend.name!r}. Move it: x.to({self.backend.name!r})."
            )
        return self.backend.astype(other.data, dtype=self.dtype)

    def add_(self, other: Tensor | Number, *, alpha: Number = 1) -> Self:
        """self += alpha * other."""
        array = self._operand_array("add_", other)
        if alpha != 1:
            array = self.backend.mul(array, self.backend.constant(alpha, self.dtype))
        return self._change("add_", self.backend.add(self.data, array))

    def sub_(self, other: Tensor | Number, *, alpha: Number = 1) -> Self:
        """self -= alpha * other."""
        return self.add_(other, alpha=-alpha)

    def mul_(self, other: Tensor | Number) -> Self:
        """self *= other."""
        return self._change("mul_", self.backend.mul(self.data, self._operand_array("mul_", other)))

    def div_(self, other: Tensor | Number) -> Self:
        """self /= other."""
        return self._change("div_", self.backend.div(self.data, self._operand_array("div_", other)))

    def copy_(self, other: Tensor) -> Self:
        """Take over the elements of another tensor, in this one's dtype."""
        return self._change("copy_", self._operand_array("copy_", other))

    def fill_(self, value: Number) -> Self:
        """Set every element."""
        return self._change("fill_", self.backend.constant(value, self.dtype))

    def zero_(self) -> Self:
        """Set every element to zero."""
        return self.fill_(0)

    __iadd__ = add_
    __isub__ = sub_
    __imul__ = mul_
    __itruediv__ = div_

    def __setitem__(self, index: Any, value: Tensor | Number) -> None:
        array = self._operand_array("setitem", value)
        if autograd.is_grad_enabled() and (
            self.requires_grad or (isinstance(value, Tensor) and value.requires_grad)
        ):
            raise GraphError(
                "[setitem] expected tensors outside the graph, got one that requires a gradient. Use "
                "trine.where or trine.cat, or `with trine.no_grad():`."
            )
        self.data[_plain_index(self, index)] = array
        self._bump()

    # Elementwise

    def _operand(self, op: str, other: Any) -> Tensor:
        """Return the other operand as a tensor here; a number in the type that the pair gets."""
        if isinstance(other, Tensor):
            return other
        if isinstance(other, (bool, int, float)) or (
            isinstance(other, np.generic) and other.dtype.kind in "biuf"
        ):
            number = other.item() if isinstance(other, np.generic) else other
            return Tensor(self.backend.constant(number, promote(self.dtype, number)), self.backend)
        raise TypeError(
            f"[{op}] expected a tensor or a number, got {type(other).__name__}. Make it a tensor: "
            "trine.tensor(x)."
        )

    def _pair(self, op: str, other: Any, *, reverse: bool = False, floats: bool = False) -> Any:
        other = self._operand(op, other)
        dtype = _result_dtype(self, other)
        if floats and not is_float(dtype):
            dtype = DEFAULT_FLOAT
        x, y = self.astype(dtype), other.astype(dtype)
        return (y, x) if reverse else (x, y)

    def _binary(self, op: str, other: Any, *, reverse: bool = False, floats: bool = False) -> Any:
        x, y = self._pair(op, other, reverse=reverse, floats=floats)
        _check_broadcast(op, x, y)
        return apply(P[op], x, y)

    def _compare(self, op: str, other: Any) -> Tensor:
        x, y = self._pair(op, other)
        _check_broadcast(op, x, y)
        if x.backend is not y.backend:
            apply(P["add"], x, y)  # words the error
        return Tensor(getattr(self.backend, op)(x.data, y.data), self.backend)

    def _unary(self, op: str) -> Tensor:
        x = self if is_float(self.dtype) else self.astype(DEFAULT_FLOAT)
        return apply(P[op], x)  # type: ignore[no-any-return]

    def __add__(self, other: Any) -> Tensor:
        return self._binary("add", other)  # type: ignore[no-any-return]

    def __radd__(self, other: Any) -> Tensor:
        return self._binary("add", other, reverse=True)  # type: ignore[no-any-return]

    def __sub__(self, other: Any) -> Tensor:
        return self._binary("sub", other)  # type: ignore[no-any-return]

    def __rsub__(self, other: Any) -> Tensor:
        return self._binary("sub", other, reverse=True)  # type: ignore[no-any-return]

    def __mul__(self, other: Any) -> Tensor:
        return self._binary("mul", other)  # type: ignore[no-any-return]

    def __rmul__(self, other: Any) -> Tensor:
        return self._binary("mul", other, reverse=True)  # type: ignore[no-any-return]

    def __truediv__(self, other: Any) -> Tensor:
        return self._binary("div", other, floats=True)  # type: ignore[no-any-return]

    def __rtruediv__(self, other: Any) -> Tensor:
        return self._binary("div", other, reverse=True, floats=True)  # type: ignore[no-any-return]

    def __pow__(self, other: Any) -> Tensor:
        return self._binary("pow", other)  # type: ignore[no-any-return]

    def __rpow__(self, other: Any) -> Tensor:
        return self._binary("pow", other, reverse=True)  # type: ignore[no-any-return]

    def __floordiv__(self, other: Any) -> Tensor:
        x, y = self._pair("floor_div", other)
        return Tensor(self.backend.floor_div(x.data, y.data), self.backend)

    def __neg__(self) -> Tensor:
        return apply(P["neg"], self)  # type: ignore[no-any-return]

    def __matmul__(self, other: Any) -> Tensor:
        return self.matmul(other)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._compare("equal", other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._compare("not_equal", other)

    def __lt__(self, other: Any) -> Tensor:
        return self._compare("less", other)

    def __le__(self, other: Any) -> Tensor:
        return self._compare("less_equal", other)

    def __gt__(self, other: Any) -> Tensor:
        return self._compare("greater", other)

    def __ge__(self, other: Any) -> Tensor:
        return self._compare("greater_equal", other)

    def __and__(self, other: Any) -> Tensor:
        return self._compare("logical_and", other)

    def __or__(self, other: Any) -> Tensor:
        return self._compare("logical_or", other)

    def __invert__(self) -> Tensor:
        return Tensor(self.backend.logical_not(self.data), self.backend)

    def __abs__(self) -> Tensor:
        return self.abs()

    def abs(self) -> Tensor:
        """|x|."""
        return apply(P["abs"], self)  # type: ignore[no-any-return]

    def sign(self) -> Tensor:
        """-1, 0 or 1."""
        return apply(P["sign"], self)  # type: ignore[no-any-return]

    def floor(self) -> Tensor:
        """The largest integer not above x."""
        return self._unary("floor")

    def exp(self) -> Tensor:
        """e^x."""
        return self._unary("exp")

    def expm1(self) -> Tensor:
        """e^x - 1."""
        return self._unary("expm1")

    def log(self) -> Tensor:
        """Natural logarithm."""
        return self._unary("log")

    def log1p(self) -> Tensor:
        """ln(1 + x)."""
        return self._unary("log1p")

    def sqrt(self) -> Tensor:
        """Square root."""
        return self._unary("sqrt")

    def sin(self) -> Tensor:
        """Sine of radians."""
        return self._unary("sin")

    def cos(self) -> Tensor:
        """Cosine of radians."""
        return self._unary("cos")

    def tanh(self) -> Tensor:
        """Hyperbolic tangent."""
        return self._unary("tanh")

    def sigmoid(self) -> Tensor:
        """1 / (1 + e^-x)."""
        return self._unary("sigmoid")

    def relu(self) -> Tensor:
        """max(x, 0)."""
        return apply(P["relu"], self)  # type: ignore[no-any-return]

    def softplus(self) -> Tensor:
        """ln(1 + e^x)."""
        return self._unary("softplus")

    def square(self) -> Tensor:
        """x * x."""
        return self * self

    def pow(self, exponent: Any) -> Tensor:
        """x to a power."""
        return self**exponent

    def isfinite(self) -> Tensor:
        """Whether each element is neither NaN nor infinite."""
        return Tensor(self.backend.isfinite(self.data), self.backend)

    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """Limit the elements to [min, max]; the gradient is zero where the limit acts."""
        result = self
        if min is not None:
            result = where(result < min, result._operand("clamp", min).astype(self.dtype), result)
        if max is not None:
            result = where(result > max, result._operand("clamp", max).astype(self.dtype), result)
        return result

    def masked_fill(self, mask: Tensor, value: Number) -> Tensor:
        """Return the tensor with `value` where the mask is true."""
        return where(mask, self._operand("masked_fill", value).astype(self.dtype), self)

    # Reductions

    def sum(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Sum over all axes or some."""
        axis = self._axes("sum", dim)
        if axis == ():
            return self
        return apply(P["sum"], self, axis=axis, keepdims=keepdim)  # type: ignore[no-any-return]

    def mean(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Arithmetic mean over all axes or some."""
        axis = self._axes("mean", dim)
        count = math.prod(self.shape if axis is None else [self.shape[a] for a in axis])
        x = self if is_float(self.dtype) else self.astype(DEFAULT_FLOAT)
        return x.sum(dim, keepdim) / (count if count else math.nan)

    def var(self, dim: Dims = None, *, correction: int = 1, keepdim: bool = False) -> Tensor:
        """Variance: squared distances from the mean over (count - correction)."""
        axis = self._axes("var", dim)
        count = math.prod(self.shape if axis is None else [self.shape[a] for a in axis])
        distances = self - self.mean(dim, keepdim=True)
        freedom = count - correction
        return (distances * distances).sum(dim, keepdim) / (freedom if freedom > 0 else math.nan)

    def std(self, dim: Dims = None, *, correction: int = 1, keepdim: bool = False) -> Tensor:
        """Square root of the variance."""
        return self.var(dim, correction=correction, keepdim=keepdim).sqrt()

    def amax(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Largest elements; equal ones share the gradient."""
        return self._extreme("max", dim, keepdim)

    def amin(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Smallest elements; equal ones share the gradient."""
        return self._extreme("min", dim, keepdim)

    def _extreme(self, op: str, dim: Dims, keepdim: bool) -> Tensor:
        axis = self._axes(op, dim)
        sizes = self.shape if axis is None else [self.shape[a] for a in axis]
        if math.prod(sizes) == 0:
            raise ValueError(
                f"[{op}] expected at least one element to choose from, got shape {self.shape}. Check "
                "for empty input."
            )
        return apply(P[op], self, axis=axis, keepdims=keepdim)  # type: ignore[no-any-return]

    def max(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The largest element, or with `dim` (values, indices) along it; the first of equals."""
        return self.amax() if dim is None else self._along("argmax", dim, keepdim)

    def min(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The smallest element, or with `dim` (values, indices) along it; the first of equals."""
        return self.amin() if dim is None else self._along("argmin", dim, keepdim)

    def _along(self, op: str, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
        axis = self._axis(op, dim)
        positions = getattr(self, op)(dim, keepdim=True)
        index = list(np.ogrid[tuple(slice(size) for size in positions.shape)])
        place = tuple(
            positions.data if i == axis else self.backend.asarray(grid)
            for i, grid in enumerate(index)
        )
        values: Tensor = apply(P["getitem"], self, index=place)
        return (values, positions) if keepdim else (values.squeeze(axis), positions.squeeze(axis))

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Position of the first largest element, int64."""
        axis = None if dim is None else self._axis("argmax", dim)
        return Tensor(self.backend.argmax(self.data, axis=axis, keepdims=keepdim), self.backend)

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Position of the first smallest element, int64."""
        axis = None if dim is None else self._axis("argmin", dim)
        return Tensor(self.backend.argmin(self.data, axis=axis, keepdims=keepdim), self.backend)

    def all(self) -> Tensor:
        """Whether every element is nonzero."""
        return self.astype(bool_).long().sum() == self.numel()

    def any(self) -> Tensor:
        """Whether some element is nonzero."""
        return self.astype(bool_).long().sum() > 0

    def norm(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Euclidean norm: the square root of the sum of squares."""
        return (self * self).sum(dim, keepdim).sqrt()

    # Shape and products

    def _axis(self, op: str, dim: int) -> int:
        if not -self.ndim <= dim < max(self.ndim, 1):
            raise ValueError(
                f"[{op}] expected dim from {-self.ndim} to {self.ndim - 1} for shape {self.shape}, got "
                f"{dim}. Choose an axis that exists."
            )
        return dim % max(self.ndim, 1)

    def _axes(self, op: str, dim: Dims) -> tuple[int, ...] | None:
        if dim is None:
            return None
        axes = tuple(self._axis(op, d) for d in ((dim,) if isinstance(dim, int) else dim))
        if len(set(axes)) != len(axes):
            raise ValueError(f"[{op}] expected different dims, got {dim}. Name each once.")
        return axes

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """The same elements in another shape; one size may be -1."""
        wanted = resolve_shape(self.shape, _flat(shape))
        return self if wanted == self.shape else apply(P["reshape"], self, shape=wanted)

    def view(self, *shape: int | Sequence[int]) -> Tensor:
        """The same as reshape."""
        return self.reshape(*shape)

    def permute(self, *dims: int | Sequence[int]) -> Tensor:
        """The axes in another order."""
        axes = tuple(self._axis("permute", d) for d in _flat(dims))
        if sorted(axes) != list(range(self.ndim)):
            raise ValueError(
                f"[permute] expected each of {self.ndim} axes once, got {axes}. Name all axes."
            )
        return apply(P["transpose"], self, axes=axes)  # type: ignore[no-any-return]

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Two axes exchanged."""
        axes = list(range(self.ndim))
        a, b = self._axis("transpose", dim0), self._axis("transpose", dim1)
        axes[a], axes[b] = b, a
        return self.permute(*axes)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Axes start_dim to end_dim joined into one."""
        if self.ndim == 0:
            return self.reshape(1)
        first, last = self._axis("flatten", start_dim), self._axis("flatten", end_dim)
        joined = math.prod(self.shape[first : last + 1])
        return self.reshape(*self.shape[:first], joined, *self.shape[last + 1 :])

    def squeeze(self, dim: int | None = None) -> Tensor:
        """Without axes of size one, or without axis `dim` if its size is one."""
        if dim is None:
            return self.reshape(tuple(size for size in self.shape if size != 1))
        axis = self._axis("squeeze", dim)
        if self.shape[axis] != 1:
            return self
        return self.reshape(self.shape[:axis] + self.shape[axis + 1 :])

    def unsqueeze(self, dim: int) -> Tensor:
        """With a new axis of size one at `dim`."""
        if not -self.ndim - 1 <= dim <= self.ndim:
            raise ValueError(
                f"[unsqueeze] expected dim from {-self.ndim - 1} to {self.ndim}, got {dim}."
            )
        axis = dim % (self.ndim + 1)
        return self.reshape((*self.shape[:axis], 1, *self.shape[axis:]))

    def expand(self, *shape: int | Sequence[int]) -> Tensor:
        """Repeat along axes of size one; -1 keeps a size."""
        wanted = _flat(shape)
        extra = len(wanted) - self.ndim
        sizes = tuple(
            self.shape[i - extra] if size == -1 else size for i, size in enumerate(wanted)
        )
        if extra < 0 or np.broadcast_shapes(self.shape, sizes) != sizes:
            raise ValueError(
                f"[expand] expected a shape that {self.shape} broadcasts to, got {wanted}. Only axes of "
                "size one repeat."
            )
        return apply(P["broadcast_to"], self, shape=sizes)  # type: ignore[no-any-return]

    def __getitem__(self, index: Any) -> Tensor:
        plain = _plain_index(self, index)
        try:
            return apply(P["getitem"], self, index=plain)  # type: ignore[no-any-return]
        except IndexError as error:
            raise IndexError(
                f"[getitem] expected an index within shape {self.shape}: {error}. Check the index."
            ) from None

    def matmul(self, other: Tensor) -> Tensor:
        """Matrix product over the last two axes; vectors as in NumPy, batches broadcast."""
        if not isinstance(other, Tensor):
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
        items = items[0]  # type: ignore[assignment]
    return tuple(int(item) for item in items)  # type: ignore[arg-type]


def _plain_index(x: Tensor, index: Any) -> Any:
    """Return an index with tensors replaced by their arrays, after checking where they live."""

    def plain(part: Any) -> Any:
        if isinstance(part, Tensor):
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


def _result_dtype(x: Tensor, y: Tensor) -> DType:
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


def _seed_gradient(tensor: Tensor, gradient: Tensor | None) -> Tensor:
    if not tensor.requires_grad:
        raise GraphError(
            "[backward] expected a tensor that requires a gradient, got one that does not. Was it "
            "computed under no_grad, or from inputs without requires_grad?"
        )
    if gradient is None:
        if tensor.numel() != 1:
            raise ValueError(
                f"[backward] expected a scalar, got shape {tensor.shape}. Reduce it, or pass a gradient "
                "of that shape."
            )
        return Tensor(tensor.backend.full(tensor.shape, 1, tensor.dtype), tensor.backend)
    if gradient.shape != tensor.shape:
        raise ValueError(
            f"[backward] expected a gradient of shape {tensor.shape}, got {gradient.shape}. Reshape it."
        )
    return gradient.astype(tensor.dtype)


def where(condition: Tensor, x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """Return x where the condition holds and y elsewhere, broadcast."""
    anchor = x if isinstance(x, Tensor) else y if isinstance(y, Tensor) else condition
    first, second = anchor._operand("where", x), anchor._operand("where", y)
    dtype = _result_dtype(first, second)
    return apply(  # type: ignore[no-any-return]
        P["where"], condition.astype(bool_), first.astype(dtype), second.astype(dtype)
    )


def maximum(x: Tensor, y: Tensor | Number) -> Tensor:
    """The larger of each pair."""
    return x._binary("maximum", y)  # type: ignore[no-any-return]


def minimum(x: Tensor, y: Tensor | Number) -> Tensor:
    """The smaller of each pair."""
    return x._binary("minimum", y)  # type: ignore[no-any-return]


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors along an axis.

    Raises ValueError for no tensors or shapes that differ elsewhere.
    """
    if not tensors:
        raise ValueError("[cat] expected at least one tensor, got none. Pass a list of tensors.")
    first = tensors[0]
    axis = first._axis("cat", dim)
    for other in tensors[1:]:
        if other.ndim != first.ndim or any(
            a != b
            for i, (a, b) in enumerate(zip(first.shape, other.shape, strict=True))
            if i != axis
        ):
            raise ValueError(
                f"[cat] expected shapes that agree except at dim {axis}, got {first.shape} and "
                f"{other.shape}. Reshape one of them."
            )
    dtype = promote(*(t.dtype for t in tensors))
    return apply(  # type: ignore[no-any-return]
        P["concat"], *(t.astype(dtype) for t in tensors), axis=axis
    )


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis."""
    return cat([t.unsqueeze(dim) for t in tensors], dim)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Sequence[Tensor] | None = None,
    *,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of outputs with respect to inputs; `.grad` of leaves stays as it is.

    None stands for an input that the outputs do not depend on.
    """
    outs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    given = grad_outputs if grad_outputs is not None else [None] * len(outs)
    seeds = [_seed_gradient(t, g) for t, g in zip(outs, given, strict=True)]
    return tuple(
        autograd.backward(
            outs, seeds, create_graph=create_graph, retain_graph=retain_graph, wanted=wanted
        )
    )
