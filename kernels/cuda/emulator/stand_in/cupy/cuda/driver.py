"""The stand-in's `cupy.cuda.driver`."""

from __future__ import annotations

from .._errors import CUDADriverError

__all__ = ["CUDADriverError"]
