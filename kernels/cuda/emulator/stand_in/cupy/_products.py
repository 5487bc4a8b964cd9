"""Products of matrices by cuBLAS, which CuPy refuses in a capture; CuPy's signatures."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._array import compute, ndarray
from ._streams import refuse_in_capture

DType = Any
Out = ndarray | None


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
