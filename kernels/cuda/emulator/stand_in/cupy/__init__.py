"""A stand-in for the part of CuPy that Trine uses, for machines without a GPU.

With the folder above first on the path, `import cupy` takes this package: arrays lie in the host's
memory, elementwise functions run by NumPy, and CUDA C++ by Trine's emulator. It gives only names
that are listed here, with CuPy's signatures, so that code which runs here finds them on a GPU as
well; a test compares both. `_streams.machine` counts what crosses between host and device.
"""

from __future__ import annotations

import types as _types

import numpy as _numpy

from . import _asking, _choosing, _creation, _products, _reducing, _shaping, cuda
from ._array import ndarray
from ._memory import get_default_memory_pool, get_default_pinned_memory_pool
from ._raw import RawKernel, RawModule
from ._ufuncs import UFUNCS as _UFUNCS
from ._ufuncs import ufunc

__version__ = "14.2.0"

__all__ = [
    "RawKernel",
    "RawModule",
    "cuda",
    "get_default_memory_pool",
    "get_default_pinned_memory_pool",
    "ndarray",
    "ufunc",
]

# The allow-list: the functions of these modules, the ufuncs, and the types and constants of NumPy.
_routines = (_asking, _choosing, _creation, _products, _reducing, _shaping)
_listed: dict[str, object] = {
    name: value
    for module in _routines
    for name, value in vars(module).items()
    if isinstance(value, _types.FunctionType)
    and value.__module__ == module.__name__
    and not name.startswith("_")
}
_listed |= _UFUNCS
_from_numpy = [
    "bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "dtype", "finfo", "iinfo", "issubdtype",
    "inf", "nan", "newaxis", "pi", "e",
]  # fmt: skip
_listed |= {name: getattr(_numpy, name) for name in _from_numpy}
globals().update(_listed)
__all__ += list(_listed)
