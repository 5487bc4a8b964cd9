"""The functions on arrays that Trine may use, with CuPy's signatures and CuPy's refusals."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._array import adopt, arrays_in, check_operand, check_sort, compute, host, ndarray
from ._streams import machine, refuse_in_capture, submit

Shape = Any
DType = Any
Out = ndarray | None
untyped: Any = np  # where NumPy's types list every combination of arguments


def _filled(shape: Shape, dtype: DType, order: Any, value: Any) -> ndarray:
    made = ndarray(shape, dtype, order=order)
    room, what = made._a, host(value)
    submit(lambda: room.fill(what), made, *arrays_in((value,)))
    return made


# --- creation


def empty(shape: Shape, dtype: DType = float, order: Any = "C") -> ndarray:
    """Return an array that holds nothing yet: NaN, or -1, here."""
    return ndarray(shape, dtype, order=order)


def zeros(shape: Shape, dtype: DType = float, order: Any = "C") -> ndarray:
    """Return zeros."""
    return _filled(shape, dtype, order, 0)


def ones(shape: Shape, dtype: DType = float, order: Any = "C") -> ndarray:
    """Return ones."""
    return _filled(shape, dtype, order, 1)


def full(shape: Shape, fill_value: Any, dtype: DType = None, order: Any = "C") -> ndarray:
    """Return an array of one value."""
    check_operand(fill_value)
    if dtype is None:
        known = isinstance(fill_value, ndarray)
        dtype = fill_value.dtype if known else np.array(fill_value).dtype
    return _filled(shape, dtype, order, fill_value)


def _like(a: ndarray, dtype: DType, order: Any, subok: Any, shape: Shape) -> tuple[Any, Any, str]:
    if subok is not None:
        raise TypeError("subok is not supported yet")
    if not isinstance(a, ndarray):
        raise TypeError(f"Unsupported type {type(a)}")
    fortran = order in ("K", "A") and a.flags.f_contiguous and not a.flags.c_contiguous
    layout = "F" if fortran or order == "F" else "C"
    return a.shape if shape is None else shape, a.dtype if dtype is None else dtype, layout


def empty_like(
    prototype: ndarray,
    dtype: DType = None,
    order: Any = "K",
    subok: None = None,
    shape: Shape = None,
) -> ndarray:
    """Return an array of the same shape and type that holds nothing yet."""
    sizes, kind, layout = _like(prototype, dtype, order, subok, shape)
    return ndarray(sizes, kind, order=layout)


def zeros_like(
    a: ndarray, dtype: DType = None, order: Any = "K", subok: None = None, shape: Shape = None
) -> ndarray:
    """Return zeros of the same shape and type."""
    return _filled(*_like(a, dtype, order, subok, shape), 0)


def ones_like(
    a: ndarray, dtype: DType = None, order: Any = "K", subok: None = None, shape: Shape = None
) -> ndarray:
    """Return ones of the same shape and type."""
    return _filled(*_like(a, dtype, order, subok, shape), 1)


def full_like(
    a: ndarray,
    fill_value: Any,
    dtype: DType = None,
    order: Any = "K",
    subok: None = None,
    shape: Shape = None,
) -> ndarray:
    """Return an array of one value, of the same shape and type."""
    return _filled(*_like(a, dtype, order, subok, shape), fill_value)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: DType = None) -> ndarray:
    """Return evenly spaced numbers."""
    low, high = (0, start) if stop is None else (start, stop)
    return compute(lambda: untyped.arange(low, high, 1 if step is None else step, dtype))


def linspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: DType = None,
    axis: int = 0,
) -> ndarray:
    """Return so many evenly spaced numbers."""
    if retstep:
        raise NotImplementedError("retstep is not in the stand-in")
    return compute(lambda: np.linspace(start, stop, num, endpoint, dtype=dtype, axis=axis))


def eye(
    N: int, M: int | None = None, k: int = 0, dtype: DType = float, order: Any = "C"
) -> ndarray:
    """Return a matrix with ones on a diagonal."""
    return compute(lambda: np.eye(N, M, k, dtype, order))


def array(
    obj: Any,
    dtype: DType = None,
    copy: Any = True,
    order: Any = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> ndarray:
    """Return an array of the device: a copy of one there, or an upload."""
    if isinstance(obj, ndarray):
        kind = obj.dtype if dtype is None else np.dtype(dtype)
        laid_out = order in ("K", "A") or (order == "C" and obj.flags.c_contiguous)
        if not copy and kind == obj.dtype and obj.ndim >= ndmin and laid_out:
            return obj
        return compute(lambda a: np.array(a, kind, order=order, ndmin=ndmin), obj)
    if isinstance(obj, (list, tuple)) and arrays_in(obj):
        return compute(lambda a: np.array(a, dtype, order=order, ndmin=ndmin), list(obj))
    refuse_in_capture("a copy from the host")
    machine.uploads += 1
    return adopt(np.array(obj, dtype, order=order, ndmin=ndmin), order)


def asarray(
    a: Any, dtype: DType = None, order: Any = None, *, copy: Any = None, blocking: bool = False
) -> ndarray:
    """Return an array of the device; an upload unless it is there already."""
    return array(a, dtype, copy is True, "K" if order is None else order)


def asanyarray(
    a: Any, dtype: DType = None, order: Any = None, *, blocking: bool = False
) -> ndarray:
    """Return an array of the device; an upload unless it is there already."""
    return asarray(a, dtype, order)


def ascontiguousarray(a: Any, dtype: DType = None) -> ndarray:
    """Return an array whose elements lie one behind the other; at least 1-d, as CuPy's."""
    return array(a, dtype, False, "C", ndmin=1)


def asnumpy(
    a: Any, stream: Any = None, order: Any = "C", out: Any = None, *, blocking: bool = True
) -> Any:
    """Return a copy on the host."""
    if isinstance(a, ndarray):
        return a.get(stream, order, out, blocking)
    return np.asarray(a, order=order)


def copy(a: ndarray, order: Any = "K") -> ndarray:
    """Return a copy."""
    return compute(lambda x: np.array(x, order=order), a)


def copyto(dst: ndarray, src: Any, casting: Any = "same_kind", where: Any = None) -> None:
    """Copy into an array."""
    check_operand(src)
    target, source, mask = dst._a, host(src), host(True if where is None else where)
    submit(lambda: np.copyto(target, source, casting, where=mask), dst, *arrays_in((src, where)))


def from_dlpack(array: Any, *, device: Any = None, copy: Any = None) -> ndarray:
    """Return a view of another array of the device."""
    if not isinstance(array, ndarray):
        raise TypeError("from_dlpack of the stand-in takes its own arrays only")
    return array._view(array._a)


# --- shape


def reshape(a: ndarray, newshape: Shape, order: Any = "C", *, copy: Any = None) -> ndarray:
    """Return the elements in another shape."""
    return a.reshape(newshape, order=order, copy=copy)


def ravel(a: ndarray, order: Any = "C") -> ndarray:
    """Return the elements in one direction."""
    return a.ravel(order)


def transpose(a: ndarray, axes: Any = None) -> ndarray:
    """Return the array with its directions permuted."""
    return a.transpose(axes)


def swapaxes(a: ndarray, axis1: int, axis2: int) -> ndarray:
    """Return the array with two directions exchanged."""
    return a.swapaxes(axis1, axis2)


def moveaxis(a: ndarray, source: Any, destination: Any) -> ndarray:
    """Return the array with directions moved."""
    return a._view(np.moveaxis(a._a, source, destination))


def squeeze(a: ndarray, axis: Any = None) -> ndarray:
    """Return the array without directions of one element."""
    return a.squeeze(axis)


def expand_dims(a: ndarray, axis: Any) -> ndarray:
    """Return the array with directions of one element."""
    return a._view(np.expand_dims(a._a, axis))


def broadcast_to(array: ndarray, shape: Shape) -> ndarray:
    """Return a view in which elements repeat."""
    return array._view(np.broadcast_to(array._a, shape))


def broadcast_arrays(*args: ndarray) -> list[ndarray]:
    """Return views of a common shape."""
    shape = np.broadcast_shapes(*(a.shape for a in args))
    return [broadcast_to(a, shape) for a in args]


def flip(a: ndarray, axis: Any = None) -> ndarray:
    """Return a view with a direction reversed."""
    return a._view(np.flip(a._a, axis))


def concatenate(
    tup: Any, axis: Any = 0, out: Out = None, *, dtype: DType = None, casting: Any = "same_kind"
) -> ndarray:
    """Return arrays one behind the other."""
    return compute(
        lambda *parts: np.concatenate(parts, axis, dtype=dtype, casting=casting), *tup, out=out
    )


def stack(
    tup: Any, axis: int = 0, out: Out = None, *, dtype: DType = None, casting: Any = "same_kind"
) -> ndarray:
    """Return arrays along a new direction."""
    return compute(
        lambda *parts: np.stack(parts, axis, dtype=dtype, casting=casting), *tup, out=out
    )


def split(ary: ndarray, indices_or_sections: Any, axis: int = 0) -> list[ndarray]:
    """Return views of an array's parts."""
    return [ary._view(part) for part in np.split(ary._a, indices_or_sections, axis)]


def pad(array: ndarray, pad_width: Any, mode: Any = "constant", **kwargs: Any) -> ndarray:
    """Return the array with a border."""
    return compute(lambda a: np.pad(a, pad_width, mode, **kwargs), array)


def repeat(a: ndarray, repeats: Any, axis: int | None = None) -> ndarray:
    """Return each element so many times."""
    return a.repeat(repeats, axis)


def tile(A: ndarray, reps: Any) -> ndarray:
    """Return the array so many times."""
    return compute(lambda a: np.tile(a, reps), A)


def roll(a: ndarray, shift: Any, axis: Any = None) -> ndarray:
    """Return the array with its elements moved around."""
    return compute(lambda x: np.roll(x, shift, axis), a)


def tril(m: ndarray, k: int = 0) -> ndarray:
    """Return the lower triangle."""
    return compute(lambda a: np.tril(a, k), m)


def triu(m: ndarray, k: int = 0) -> ndarray:
    """Return the upper triangle."""
    return compute(lambda a: np.triu(a, k), m)


def atleast_1d(*arys: ndarray) -> Any:
    """Return arrays with at least one direction."""
    made = [a._view(np.atleast_1d(a._a)) for a in arys]
    return made[0] if len(made) == 1 else made


# --- choosing


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """Return elements of x or y; with a condition alone, where it holds."""
    if (x is None) != (y is None):
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    if x is None:
        return condition.nonzero()
    if not isinstance(condition, ndarray):
        raise TypeError(f"Unsupported type {type(condition)}")
    return compute(np.where, condition, x, y)


def take(a: ndarray, indices: Any, axis: int | None = None, out: Out = None) -> ndarray:
    """Return elements by index; one out of range wraps around."""
    return a.take(indices, axis, out)


def take_along_axis(a: ndarray, indices: ndarray, axis: Any) -> ndarray:
    """Return elements by index along a direction; one out of range wraps around."""

    def gather(x: Any, i: Any) -> Any:
        size = x.size if axis is None else x.shape[axis]
        return np.take_along_axis(x, i % size if size else i, axis)

    return compute(gather, a, indices)


def put_along_axis(arr: ndarray, indices: ndarray, values: Any, axis: Any) -> None:
    """Set elements by index along a direction."""
    check_operand(values)
    target, chosen, what = arr._a, indices._a, host(values)

    def scatter() -> None:
        np.put_along_axis(target, chosen % target.shape[axis], what, axis)

    submit(scatter, *arrays_in((arr, indices, values)))


def nonzero(a: ndarray) -> tuple[ndarray, ...]:
    """Return where the elements are not zero; waits for their number."""
    return a.nonzero()


def flatnonzero(a: ndarray) -> ndarray:
    """Return where the flat elements are not zero; waits for their number."""
    return a.ravel().nonzero()[0]


def searchsorted(a: ndarray, v: Any, side: Any = "left", sorter: Any = None) -> ndarray:
    """Return where values would keep an array sorted."""
    return a.searchsorted(v, side, sorter)


def argsort(a: ndarray, axis: Any = -1, kind: Any = None) -> ndarray:
    """Return the order of the elements; equal ones stay in order."""
    return a.argsort(axis, kind)


def sort(a: ndarray, axis: Any = -1, kind: Any = None) -> ndarray:
    """Return the elements in order."""
    check_sort(kind)
    return compute(lambda x: np.sort(x, axis, kind="stable"), a)


def unique(
    ar: ndarray,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: Any = None,
    *,
    equal_nan: bool = True,
) -> Any:
    """Return the different elements; waits for their number."""
    machine.read_implicitly("unique")
    found = untyped.unique(
        ar._a, return_index, return_inverse, return_counts, axis, equal_nan=equal_nan
    )
    return tuple(map(adopt, found)) if isinstance(found, tuple) else adopt(found)


def bincount(x: ndarray, weights: Any = None, minlength: int | None = None) -> ndarray:
    """Return how often each number occurs; waits for the largest."""
    machine.read_implicitly("bincount")
    return compute(lambda a, w: np.bincount(a, w, minlength or 0), x, weights)


def clip(a: ndarray, a_min: Any, a_max: Any, out: Out = None) -> ndarray:
    """Return the elements within bounds."""
    return a.clip(a_min, a_max, out)


def nan_to_num(
    x: ndarray, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None
) -> ndarray:
    """Return the elements with numbers for NaN and Inf."""
    out = None if copy else x
    return compute(lambda a: np.nan_to_num(a, True, nan, posinf, neginf), x, out=out)


# --- reductions


def sum(
    a: ndarray, axis: Any = None, dtype: DType = None, out: Out = None, keepdims: bool = False
) -> ndarray:
    """Return the sum."""
    return a.sum(axis, dtype, out, keepdims)


def prod(
    a: ndarray, axis: Any = None, dtype: DType = None, out: Out = None, keepdims: bool = False
) -> ndarray:
    """Return the product."""
    return a.prod(axis, dtype, out, keepdims)


def mean(
    a: ndarray, axis: Any = None, dtype: DType = None, out: Out = None, keepdims: bool = False
) -> ndarray:
    """Return the mean."""
    return a.mean(axis, dtype, out, keepdims)


def var(
    a: ndarray,
    axis: Any = None,
    dtype: DType = None,
    out: Out = None,
    ddof: int = 0,
    keepdims: bool = False,
) -> ndarray:
    """Return the variance."""
    return a.var(axis, dtype, out, ddof, keepdims)


def std(
    a: ndarray,
    axis: Any = None,
    dtype: DType = None,
    out: Out = None,
    ddof: int = 0,
    keepdims: bool = False,
) -> ndarray:
    """Return the standard deviation."""
    return a.std(axis, dtype, out, ddof, keepdims)


def max(a: ndarray, axis: Any = None, out: Out = None, keepdims: bool = False) -> ndarray:
    """Return the largest element."""
    return a.max(axis, out, keepdims)


def min(a: ndarray, axis: Any = None, out: Out = None, keepdims: bool = False) -> ndarray:
    """Return the smallest element."""
    return a.min(axis, out, keepdims)


amax, amin = max, min


def argmax(
    a: ndarray, axis: Any = None, dtype: DType = None, out: Out = None, keepdims: bool = False
) -> ndarray:
    """Return where the largest element is."""
    return a.argmax(axis, out, dtype, keepdims)


def argmin(
    a: ndarray, axis: Any = None, dtype: DType = None, out: Out = None, keepdims: bool = False
) -> ndarray:
    """Return where the smallest element is."""
    return a.argmin(axis, out, dtype, keepdims)


def all(a: ndarray, axis: Any = None, out: Out = None, keepdims: bool = False) -> ndarray:
    """Return whether all elements are true."""
    return a.all(axis, out, keepdims)


def any(a: ndarray, axis: Any = None, out: Out = None, keepdims: bool = False) -> ndarray:
    """Return whether any element is true."""
    return a.any(axis, out, keepdims)


def count_nonzero(a: ndarray, axis: Any = None) -> ndarray:
    """Return how many elements are not zero."""
    return compute(lambda x: np.count_nonzero(x, axis), a)


def cumsum(a: ndarray, axis: Any = None, dtype: DType = None, out: Out = None) -> ndarray:
    """Return the running sum."""
    return a.cumsum(axis, dtype, out)


def round(a: ndarray, decimals: int = 0, out: Out = None) -> ndarray:
    """Return the elements rounded."""
    return a.round(decimals, out)


def array_equal(a1: ndarray, a2: ndarray, equal_nan: bool = False) -> ndarray:
    """Return whether two arrays are equal, on the device."""
    return compute(lambda x, y: np.array_equal(x, y, equal_nan), a1, a2)


def allclose(
    a: Any, b: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> ndarray:
    """Return whether two arrays are close, on the device."""
    return compute(lambda x, y: np.allclose(x, y, rtol, atol, equal_nan), a, b)


def isclose(
    a: Any, b: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> ndarray:
    """Return where two arrays are close."""
    return compute(lambda x, y: np.isclose(x, y, rtol, atol, equal_nan), a, b)


# --- products: cuBLAS, which CuPy refuses in a capture


def matmul(
    *args: Any,
    axes: Any = None,
    axis: Any = None,
    keepdims: bool = False,
    casting: Any = "same_kind",
    dtype: DType = None,
    signature: Any = None,
    order: Any = "K",
    out: Out = None,
) -> ndarray:
    """Return the product of matrices."""
    if axes is not None or axis is not None or keepdims or signature is not None:
        raise TypeError("axes, axis, keepdims and signature are not in the stand-in")
    refuse_in_capture("cuBLAS (matmul)")
    return compute(lambda x, y: np.matmul(x, y, dtype=dtype, casting=casting), *args, out=out)


def dot(a: ndarray, b: ndarray, out: Out = None) -> ndarray:
    """Return the product of matrices."""
    return a.dot(b, out)


def tensordot(a: ndarray, b: ndarray, axes: Any = 2) -> ndarray:
    """Return the product over chosen directions."""
    refuse_in_capture("cuBLAS (tensordot)")
    return compute(lambda x, y: np.tensordot(x, y, axes), a, b)


def outer(a: ndarray, b: ndarray, out: Out = None) -> ndarray:
    """Return all products of two vectors' elements."""
    return compute(np.outer, a, b, out=out)


def einsum(*operands: Any, **kwargs: Any) -> ndarray:
    """Return a sum of products by its subscripts."""
    subscripts, *arrays = operands
    refuse_in_capture("cuBLAS (einsum)")
    return compute(lambda *parts: np.einsum(subscripts, *parts, **kwargs), *arrays)


# --- asking


def shape(a: Any) -> tuple[int, ...]:
    """Return the shape."""
    return a.shape if isinstance(a, ndarray) else np.shape(a)


def ndim(a: Any) -> int:
    """Return the number of directions."""
    return a.ndim if isinstance(a, ndarray) else np.ndim(a)


def size(a: Any, axis: int | None = None) -> int:
    """Return the number of elements."""
    return np.size(host(a), axis)


def result_type(*arrays_and_dtypes: Any) -> np.dtype[Any]:
    """Return the type that an operation on these would give."""
    return np.result_type(*host(arrays_and_dtypes))


def may_share_memory(a: ndarray, b: ndarray, max_work: Any = None) -> bool:
    """Return whether two arrays may overlap."""
    return np.may_share_memory(a._a, b._a)


def get_array_module(*args: Any) -> Any:
    """Return this package if one of the arguments is an array of the device, else NumPy."""
    import sys  # noqa: PLC0415

    return sys.modules[__package__ or "cupy"] if arrays_in(args) else np
