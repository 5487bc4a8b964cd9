"""Shapes: the same elements in another arrangement, with CuPy's signatures and CuPy's refusals."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._array import compute, ndarray

Shape = Any
DType = Any
Out = ndarray | None


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
