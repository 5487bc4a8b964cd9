"""The device array: a type of its own over a NumPy array, so that nothing mixes by accident."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ._memory import DEVICE_BYTES, Memory, MemoryPointer, alloc
from ._operators import Operators, check_operand
from ._streams import (
    Stream,
    capture_under_way,
    get_current_stream,
    machine,
    refuse_in_capture,
    submit,
)

Host = npt.NDArray[Any]
BASIC = (int, np.integer, slice, type(None), type(Ellipsis))


class ndarray(Operators):  # noqa: N801  CuPy's name
    """An array on the device."""

    __array_priority__ = 100

    def __init__(
        self,
        shape: Any,
        dtype: Any = float,
        memptr: MemoryPointer | None = None,
        strides: tuple[int, ...] | None = None,
        order: str = "C",
    ) -> None:
        kind = np.dtype(dtype)
        sizes = (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(map(int, shape))
        nbytes = kind.itemsize
        for size in sizes:
            nbytes *= size
        pointer = alloc(nbytes) if memptr is None else memptr
        self._memory: Memory = pointer.mem
        self.base: ndarray | None = None
        layout: Any = "F" if order in ("F", b"F") else "C"
        self._a: Host = np.ndarray(
            sizes, kind, pointer.mem.bytes, pointer.offset, strides, order=layout
        )

    # --- what it is

    @property
    def block(self) -> Any:
        """The pool's block that its memory lies in."""
        return self._memory.block

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self._a.shape

    @shape.setter
    def shape(self, value: tuple[int, ...]) -> None:
        self._a = self._a.reshape(value, copy=False)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its element type."""
        return self._a.dtype

    @property
    def ndim(self) -> int:
        """The number of directions."""
        return self._a.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._a.size

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self._a.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self._a.nbytes

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next in each direction."""
        return self._a.strides

    @property
    def flags(self) -> Any:
        """How it lies in memory."""
        return self._a.flags

    @property
    def data(self) -> MemoryPointer:
        """Where it begins."""
        return MemoryPointer(self._memory, self._a.ctypes.data - self._memory.ptr)

    @property
    def device(self) -> Any:
        """The device that it lies on."""
        from .cuda import Device  # noqa: PLC0415  cuda is above arrays

        return Device(0)

    @property
    def T(self) -> ndarray:  # noqa: N802
        """The array with its directions reversed."""
        return self._view(self._a.T)

    def _view(self, a: Host) -> ndarray:
        """Return an array over some of this one's memory."""
        made = ndarray.__new__(ndarray)
        made._a, made._memory = a, self._memory
        made.base = self if self.base is None else self.base
        return made

    # --- to and from the host

    def get(
        self,
        stream: Stream | None = None,
        order: Any = "C",
        out: Host | None = None,
        blocking: bool = True,
    ) -> Host:
        """Return a copy on the host."""
        refuse_in_capture("a copy to the host")
        machine.downloads += 1
        if out is not None:
            out[...] = self._a
            return out
        return np.array(self._a, order=order)

    def set(self, arr: Host, stream: Stream | None = None) -> None:
        """Copy an array of the host here."""
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        refuse_in_capture("a copy from the host")
        machine.uploads += 1
        self._a[...] = arr

    def item(self) -> Any:
        """Return the one element."""
        machine.read_implicitly("ndarray.item")
        return self._a.item()

    def tolist(self) -> Any:
        """Return the elements as lists."""
        machine.read_implicitly("ndarray.tolist")
        return self._a.tolist()

    def tobytes(self, order: Any = "C") -> bytes:
        """Return the elements' bytes."""
        machine.read_implicitly("ndarray.tobytes")
        return self._a.tobytes(order)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Host:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct "
            "a NumPy array explicitly."
        )

    def __bool__(self) -> bool:
        machine.read_implicitly("bool(array)")
        return bool(self._a)

    def __int__(self) -> int:
        machine.read_implicitly("int(array)")
        return int(self._a.item())

    def __float__(self) -> float:
        machine.read_implicitly("float(array)")
        return float(self._a.item())

    def __index__(self) -> int:
        machine.read_implicitly("an array as an index")
        return self._a.__index__()

    def __repr__(self) -> str:
        return repr(self._a)

    def __str__(self) -> str:
        return str(self._a)

    def __format__(self, form: str) -> str:
        return format(self._a.item() if form else self._a, form)

    def __len__(self) -> int:
        return len(self._a)

    def __iter__(self) -> Any:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    __hash__ = None  # type: ignore[assignment]

    # --- NumPy's functions on it go to this package's

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        mine = getattr(sys.modules[__package__ or "cupy"], ufunc.__name__, None)
        if method != "__call__" or mine is None:
            return NotImplemented
        if "out" in kwargs and isinstance(kwargs["out"], tuple):
            (kwargs["out"],) = kwargs["out"]
        return mine(*inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        mine = getattr(sys.modules[__package__ or "cupy"], func.__name__, None)
        if mine is None or func.__module__ not in ("numpy", "numpy.linalg"):
            return NotImplemented
        return mine(*args, **kwargs)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "stream": 1,
            "version": 3,
            "strides": None if self._a.flags.c_contiguous else self.strides,
            "data": (self._a.ctypes.data, False),
        }

    # --- views and copies

    def __getitem__(self, index: Any) -> ndarray:
        plain, advanced = prepare_index(index, self.shape)
        if not advanced:
            return self._view(np.asarray(self._a[plain]))
        shape, where = self.shape, host(index)
        return compute(lambda a: a[plain_index(where, shape)], self, touching=index)

    def __setitem__(self, index: Any, value: Any) -> None:
        prepare_index(index, self.shape)
        check_operand(value)

        target, shape, where, what = self._a, self.shape, host(index), host(value)

        def write() -> None:
            target[plain_index(where, shape)] = what

        submit(write, self, *arrays_in((index, value)))

    def reshape(self, *shape: Any, order: Any = "C", copy: bool | None = None) -> ndarray:
        """Return the elements in another shape; a view where the memory allows it."""
        sizes = shape[0] if len(shape) == 1 else shape
        return self._rearranged(lambda a: a.reshape(sizes, order=order), copy)

    def ravel(self, order: Any = "C") -> ndarray:
        """Return the elements in one direction; a view where the memory allows it."""
        return self._rearranged(lambda a: a.ravel(order))

    def _rearranged(self, change: Callable[[Host], Host], copy: bool | None = None) -> ndarray:
        shaped = change(self._a)
        if copy is not True and np.shares_memory(shaped, self._a):
            return self._view(shaped)
        if self.size == 0:
            return self._view(shaped)
        return compute(change, self)

    def flatten(self, order: Any = "C") -> ndarray:
        """Return a copy in one direction."""
        return compute(lambda a: a.flatten(order), self)

    def copy(self, order: Any = "C") -> ndarray:
        """Return a copy."""
        return compute(lambda a: a.copy(order), self)

    def astype(
        self,
        dtype: Any,
        order: Any = "K",
        casting: Any = None,
        subok: Any = None,
        copy: bool = True,
    ) -> ndarray:
        """Return the elements in another type."""
        if subok is not None:
            raise TypeError("subok is not supported yet")
        if not copy and np.dtype(dtype) == self.dtype:
            return self
        return compute(lambda a: a.astype(dtype, order, casting or "unsafe"), self)

    def view(self, dtype: Any = None, type: Any = None) -> ndarray:
        """Return the same bytes as another type."""
        return self._view(self._a.view() if dtype is None else self._a.view(dtype))

    def transpose(self, *axes: Any) -> ndarray:
        """Return the array with its directions permuted."""
        return self._view(self._a.transpose(*axes))

    def swapaxes(self, axis1: int, axis2: int) -> ndarray:
        """Return the array with two directions exchanged."""
        return self._view(self._a.swapaxes(axis1, axis2))

    def squeeze(self, axis: Any = None) -> ndarray:
        """Return the array without directions of one element."""
        return self._view(self._a.squeeze(axis))

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> ndarray:
        """Return the diagonal."""
        return self._view(self._a.diagonal(offset, axis1, axis2))

    def repeat(self, repeats: Any, axis: int | None = None) -> ndarray:
        """Return each element so many times."""
        return compute(lambda a: a.repeat(repeats, axis), self)

    def take(self, indices: Any, axis: int | None = None, out: ndarray | None = None) -> ndarray:
        """Return elements by index; one out of range wraps around."""
        return compute(lambda a, i: a.take(i, axis, mode="wrap"), self, indices, out=out)

    def fill(self, value: Any) -> None:
        """Set every element."""
        check_operand(value)
        target, what = self._a, host(value)
        submit(lambda: target.fill(what), self, *arrays_in((value,)))

    # --- reductions

    def sum(
        self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False
    ) -> ndarray:
        """Return the sum."""
        return compute(lambda a: a.sum(axis, dtype, keepdims=keepdims), self, out=out)

    def prod(
        self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = None
    ) -> ndarray:
        """Return the product."""
        return compute(lambda a: a.prod(axis, dtype, keepdims=bool(keepdims)), self, out=out)

    def mean(
        self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False
    ) -> ndarray:
        """Return the mean."""
        return compute(lambda a: a.mean(axis, dtype, keepdims=keepdims), self, out=out)

    def var(
        self,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        ddof: int = 0,
        keepdims: bool = False,
    ) -> ndarray:
        """Return the variance."""
        return compute(lambda a: a.var(axis, dtype, ddof=ddof, keepdims=keepdims), self, out=out)

    def std(
        self,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        ddof: int = 0,
        keepdims: bool = False,
    ) -> ndarray:
        """Return the standard deviation."""
        return compute(lambda a: a.std(axis, dtype, ddof=ddof, keepdims=keepdims), self, out=out)

    def max(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        """Return the largest element."""
        return compute(lambda a: a.max(axis, keepdims=keepdims), self, out=out)

    def min(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        """Return the smallest element."""
        return compute(lambda a: a.min(axis, keepdims=keepdims), self, out=out)

    def argmax(
        self, axis: Any = None, out: Any = None, dtype: Any = None, keepdims: bool = False
    ) -> ndarray:
        """Return where the largest element is."""
        return compute(lambda a: a.argmax(axis, keepdims=keepdims), self, out=out, dtype=dtype)

    def argmin(
        self, axis: Any = None, out: Any = None, dtype: Any = None, keepdims: bool = False
    ) -> ndarray:
        """Return where the smallest element is."""
        return compute(lambda a: a.argmin(axis, keepdims=keepdims), self, out=out, dtype=dtype)

    def all(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        """Return whether all elements are true."""
        return compute(lambda a: a.all(axis, keepdims=keepdims), self, out=out)

    def any(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        """Return whether any element is true."""
        return compute(lambda a: a.any(axis, keepdims=keepdims), self, out=out)

    def cumsum(self, axis: Any = None, dtype: Any = None, out: Any = None) -> ndarray:
        """Return the running sum."""
        return compute(lambda a: a.cumsum(axis, dtype), self, out=out)

    def clip(self, min: Any = None, max: Any = None, out: Any = None) -> ndarray:
        """Return the elements within bounds."""
        return compute(lambda a, low, high: a.clip(low, high), self, min, max, out=out)

    def round(self, decimals: int = 0, out: Any = None) -> ndarray:
        """Return the elements rounded."""
        return compute(lambda a: a.round(decimals), self, out=out)

    def dot(self, b: ndarray, out: ndarray | None = None) -> ndarray:
        """Return the product of matrices, by cuBLAS."""
        refuse_in_capture("cuBLAS (ndarray.dot)")
        return compute(np.dot, self, b, out=out)

    def argsort(self, axis: Any = -1, kind: Any = None) -> ndarray:
        """Return the order of the elements; equal ones stay in order."""
        check_sort(kind)
        return compute(lambda a: a.argsort(axis, kind="stable"), self)

    def sort(self, axis: int = -1, kind: Any = None) -> None:
        """Sort in place."""
        check_sort(kind)
        target = self._a
        submit(lambda: target.sort(axis, kind="stable"), self)

    def nonzero(self) -> tuple[ndarray, ...]:
        """Return where the elements are not zero; waits for their number."""
        machine.read_implicitly("nonzero")
        return tuple(adopt(part) for part in self._a.nonzero())

    def searchsorted(self, v: Any, side: Any = "left", sorter: Any = None) -> ndarray:
        """Return where values would keep this array sorted."""
        return compute(lambda a, x: np.searchsorted(a, x, side), self, v)


# --- computing with arrays


def host(value: Any) -> Any:
    """Return the value with device arrays replaced by their storage."""
    if isinstance(value, ndarray):
        return value._a
    if isinstance(value, (tuple, list)):
        return type(value)(host(part) for part in value)
    return value


def arrays_in(value: Any) -> list[ndarray]:
    """Return the device arrays in nested tuples and lists."""
    if isinstance(value, ndarray):
        return [value]
    if isinstance(value, (tuple, list)):
        return [array for part in value for array in arrays_in(part)]
    return []


def check_sort(kind: Any) -> None:
    """Raise for a sort that CuPy has not, and in a capture."""
    if kind not in (None, "stable"):
        raise ValueError(f"kind must be either None or 'stable', got {kind!r}")
    refuse_in_capture("sorting (thrust allocates memory of its own)")


def adopt(result: Any, order: str = "K") -> ndarray:
    """Return a NumPy result as a new array of the device."""
    a = np.asarray(result)
    f_order = order == "K" and a.flags.f_contiguous and not a.flags.c_contiguous
    made = ndarray(a.shape, a.dtype, order="F" if f_order else "C")
    made._a[...] = a
    return made


def compute(
    function: Callable[..., Any],
    *operands: Any,
    out: ndarray | None = None,
    dtype: Any = None,
    touching: Any = (),
) -> ndarray:
    """Return what a NumPy function gives for device arrays, in `out` or a new array.

    In a capture the function runs once to know shape and type; the values come with the graph,
    which, like CUDA's, keeps no array alive: what it holds here is their storage alone.
    """
    check_operand(*operands)
    storage = host(list(operands))

    def run() -> Host:
        with np.errstate(all="ignore"):
            result = np.asarray(function(*storage))
        return result if dtype is None else result.astype(dtype)

    if out is not None:
        if not isinstance(out, ndarray):
            raise TypeError("return arrays must be of ArrayType")
        target = out._a

        def write() -> None:
            result = run()
            if result.shape != target.shape:
                raise ValueError(
                    f"non-broadcastable output operand with shape {target.shape} doesn't match the "
                    f"broadcast shape {result.shape}"
                )
            np.copyto(target, result, casting="same_kind")

        submit(write, out, *arrays_in((operands, touching)))
        return out
    first = run()
    if capture_under_way() is None:
        return adopt(first)
    f_order = first.flags.f_contiguous and not first.flags.c_contiguous
    made = ndarray(first.shape, first.dtype, order="F" if f_order else "C")
    room = made._a
    submit(lambda: np.copyto(room, run()), made, *arrays_in((operands, touching)))
    return made


# --- indices


def prepare_index(index: Any, shape: tuple[int, ...]) -> tuple[Any, bool]:
    """Return the index for NumPy, and whether it is one by arrays; raises as CuPy does."""
    parts = index if isinstance(index, tuple) else (index,)
    advanced = False
    for part in parts:
        if isinstance(part, ndarray):
            advanced = True
            if part.dtype == bool:
                machine.read_implicitly("an index by a mask")
            elif part.dtype.kind not in "iu":
                raise IndexError("arrays used as indices must be of integer or boolean type")
        elif isinstance(part, (np.ndarray, list)):
            refuse_in_capture("an index of the host")
            machine.uploads += 1
            advanced = True
        elif not isinstance(part, (*BASIC, bool)):
            raise IndexError(
                "only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and integer "
                "or boolean arrays are valid indices"
            )
    return index, advanced


def plain_index(index: Any, shape: tuple[int, ...]) -> Any:
    """Return the index for NumPy, with integer arrays wrapped around the direction they index."""
    parts = list(index) if isinstance(index, tuple) else [index]
    taken = sum(_directions(part) for part in parts)
    result, direction = [], 0
    for part in parts:
        values = host(part) if isinstance(part, ndarray) else part
        if part is Ellipsis:
            direction += len(shape) - taken
        if isinstance(values, list):
            values = np.asarray(values)
        if isinstance(values, np.ndarray) and values.dtype.kind in "iu" and direction < len(shape):
            values = values % shape[direction] if shape[direction] else values
        result.append(values)
        direction += _directions(part)
    return tuple(result) if isinstance(index, tuple) else result[0]


def _directions(part: Any) -> int:
    """Return how many of the array's directions a part of an index stands for."""
    if part is None or part is Ellipsis:
        return 0
    values = host(part)
    if isinstance(values, np.ndarray) and values.dtype == bool:
        return values.ndim
    return 1


__all__ = ["DEVICE_BYTES", "get_current_stream", "ndarray"]
