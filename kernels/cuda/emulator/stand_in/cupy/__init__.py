"""A stand-in for the part of CuPy that Trine uses, for machines without a GPU.

With the folder above first on the path, `import cupy` takes this package: arrays lie in the host's
memory, elementwise functions run by NumPy, and CUDA C++ by Trine's emulator. It gives only names
that are listed here, with CuPy's signatures, so that code which runs here finds them on a GPU as
well; a test compares both. `_streams.machine` counts what crosses between host and device.
"""

from __future__ import annotations

import types as _types

import numpy as _numpy

from . import _routines, cuda
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

# The allow-list: the functions of `_routines`, the ufuncs, and the types and constants of NumPy.
for _name, _value in vars(_routines).items():
    if isinstance(_value, _types.FunctionType) and _value.__module__ == _routines.__name__:
        globals()[_name] = _value
globals().update(_UFUNCS)
for _name in (
    "bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 dtype finfo "
    "iinfo inf nan newaxis pi e issubdtype"
).split():
    globals()[_name] = getattr(_numpy, _name)
