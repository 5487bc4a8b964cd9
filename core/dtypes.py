"""Element types: which ones tensors hold, and how they combine.

Tensors hold float32 (the default), float64 (for checking), int64, int32, uint8 or bool. Types
combine by PyTorch's rules: a tensor's category (bool < integer < float) wins over a lower one, and
a Python number never widens a tensor of its own or a higher category.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = Any
"""An array of some backend (`numpy.ndarray` or `cupy.ndarray`)."""

DType = np.dtype[Any]

float32: DType = np.dtype("float32")
float64: DType = np.dtype("float64")
int64: DType = np.dtype("int64")
int32: DType = np.dtype("int32")
uint8: DType = np.dtype("uint8")
bool_: DType = np.dtype("bool")

SUPPORTED = (float32, float64, int64, int32, uint8, bool_)
DEFAULT_FLOAT = float32

_BY_NAME = {dtype.name: dtype for dtype in SUPPORTED}
_CATEGORY = {"b": 0, "u": 1, "i": 1, "f": 2}


def as_dtype(dtype: npt.DTypeLike | None) -> DType:
    """Return the supported dtype that `dtype` names; float32 for None.

    Raises TypeError for a dtype that tensors don't hold.
    """
    if dtype is None:
        return DEFAULT_FLOAT
    if isinstance(dtype, str) and dtype in _BY_NAME:  # NumPy takes a microsecond
        return _BY_NAME[dtype]
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found not in SUPPORTED:
        names = ", ".join(d.name for d in SUPPORTED)
        raise TypeError(f"[dtype] expected one of {names}, got {dtype!r}. Choose one of them.")
    return found


def is_float(dtype: DType) -> bool:
    """Return whether gradients can flow through elements of this type."""
    return dtype.kind == "f"


def promote(*operands: DType | bool | int | float) -> DType:
    """Return the type in which operands combine: dtypes of tensors, and bare Python numbers.

    Python numbers count by category only: int64 + 0.5 gives the default float, float32 + 0.5
    stays float32, uint8 + 3 stays uint8.
    """
    dtypes = [op for op in operands if isinstance(op, np.dtype)]
    numbers = [op for op in operands if not isinstance(op, np.dtype)]
    result = dtypes[0] if dtypes else None
    for dtype in dtypes[1:]:
        result = _pair(result, dtype) if result is not None else dtype
    category = _CATEGORY[result.kind] if result is not None else -1
    for number in numbers:
        if isinstance(number, bool):
            own, default = 0, bool_
        elif isinstance(number, int):
            own, default = 1, int64
        else:
            own, default = 2, DEFAULT_FLOAT
        if own > category:
            category, result = own, default
    return result if result is not None else DEFAULT_FLOAT


def _pair(a: DType, b: DType) -> DType:
    if a == b:
        return a
    category_a, category_b = _CATEGORY[a.kind], _CATEGORY[b.kind]
    if category_a != category_b:
        return a if category_a > category_b else b
    return np.promote_types(a, b)
