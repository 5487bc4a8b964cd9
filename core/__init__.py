"""Trine: neural networks with one layer code on NumPy, Numba and CuPy.

    import trine
    import trine.functional as F

    x = trine.tensor([[0.05, 0.10]])
    trine.use("numpy")  # or "numba", or "cupy"

Importing the package loads none of the backends; numba and cupy come in when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trine.autograd import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from trine.backends import available, default_backend, get_backend, precision, use
from trine.capture import capture
from trine.creation import (
    arange,
    as_tensor,
    eye,
    from_dlpack,
    from_numpy,
    full,
    linspace,
    ones,
    ones_like,
    rand,
    randn,
    tensor,
    zeros,
    zeros_like,
)
from trine.dtypes import bool_, float32, float64, int32, int64, uint8
from trine.errors import (
    BackendError,
    CaptureError,
    CheckpointError,
    DataError,
    DivergenceError,
    GraphError,
)
from trine.gradcheck import gradcheck  # not lazily: the module's name would hide the function's
from trine.joining import cat, maximum, minimum, stack, where
from trine.random import Generator, seed
from trine.tensor import Tensor, grad

if TYPE_CHECKING:
    from trine import bench, data, functional, models, nn, optim, training
    from trine.define import define_op
    from trine.models import explain
    from trine.profiler import profile
    from trine.training import Trainer

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "CaptureError",
    "CheckpointError",
    "DataError",
    "DivergenceError",
    "Generator",
    "GraphError",
    "Tensor",
    "Trainer",
    "arange",
    "as_tensor",
    "available",
    "bench",
    "bool_",
    "capture",
    "cat",
    "data",
    "default_backend",
    "define_op",
    "enable_grad",
    "explain",
    "eye",
    "float32",
    "float64",
    "from_dlpack",
    "from_numpy",
    "full",
    "functional",
    "get_backend",
    "grad",
    "gradcheck",
    "int32",
    "int64",
    "is_grad_enabled",
    "linspace",
    "maximum",
    "minimum",
    "models",
    "nn",
    "no_grad",
    "ones",
    "ones_like",
    "optim",
    "precision",
    "profile",
    "rand",
    "randn",
    "seed",
    "set_grad_enabled",
    "stack",
    "tensor",
    "training",
    "uint8",
    "use",
    "where",
    "zeros",
    "zeros_like",
]

# Loaded when first named, so that `import trine` stays quick.
_MODULES = ("bench", "data", "functional", "models", "nn", "optim", "training")
_NAMES = {
    "Trainer": "trine.training",
    "define_op": "trine.define",
    "explain": "trine.models",
    "profile": "trine.profiler",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"trine.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'trine' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
