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
from trine.dtypes import DEFAULT_FLOAT, Array, DType, as_dtype, bool_, is_float
from trine.errors import GraphError
from trine.primitives import PRIMITIVES as P
from trine.tensor_methods import Number, TensorMethods, plain_index


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


class Tensor(TensorMethods):
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

    def to(self, target: Any = None, dtype: npt.DTypeLike | None = None) -> Tensor:
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
            if backend.device == self.backend.device == "cpu":  # a copy keeps the two apart
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
        self.data[plain_index(self, index)] = array
        self._bump()


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
