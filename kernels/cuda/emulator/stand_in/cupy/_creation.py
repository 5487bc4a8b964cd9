"""Making arrays, with CuPy's signatures and CuPy's refusals."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._array import adopt, arrays_in, compute, host, ndarray
from ._operators import check_operand
from ._streams import machine, refuse_in_capture, submit

Shape = Any
DType = Any
untyped: Any = np  # where NumPy's types list every combination of arguments


def _filled(shape: Shape, dtype: DType, order: Any, value: Any) -> ndarray:
    made = ndarray(shape, dtype, order=order)
    room, what = made._a, host(value)
    submit(lambda: room.fill(what), made, *arrays_in((value,)))
    return made


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
