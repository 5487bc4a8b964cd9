"""The stand-in's `cupy.cuda.compiler`."""

from __future__ import annotations

from .._errors import CompileException

__all__ = ["CompileException"]
