"""Reductions, and comparisons of whole arrays, with CuPy's signatures and CuPy's refusals."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._array import compute, ndarray

DType = Any
Out = ndarray | None


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
