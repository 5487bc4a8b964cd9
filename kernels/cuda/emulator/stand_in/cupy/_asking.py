"""What arrays are: shapes, types, whose they are, with CuPy's signatures and CuPy's refusals."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._array import arrays_in, host, ndarray


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
