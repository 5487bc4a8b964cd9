"""The stand-in's `cupy.cuda.memory`."""

from __future__ import annotations

from .._errors import OutOfMemoryError
from .._memory import Memory, MemoryPointer, MemoryPool, UnownedMemory

__all__ = ["Memory", "MemoryPointer", "MemoryPool", "OutOfMemoryError", "UnownedMemory"]
