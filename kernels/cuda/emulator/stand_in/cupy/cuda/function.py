"""The stand-in's `cupy.cuda.function`."""

from __future__ import annotations

from .._raw import RawKernel as Function

__all__ = ["Function"]
