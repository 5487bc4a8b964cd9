"""Choosing, sorting and searching elements, with CuPy's signatures and CuPy's refusals."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._array import adopt, arrays_in, check_sort, compute, host, ndarray
from ._operators import check_operand
from ._streams import machine, submit

Out = ndarray | None
untyped: Any = np  # where NumPy's types list every combination of arguments


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
