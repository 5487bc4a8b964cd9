"""The stand-in's `cupy.cuda.nvrtc`."""

from __future__ import annotations

__all__ = ["getVersion"]


def getVersion() -> tuple[int, int]:  # noqa: N802
    """Return the compiler's version."""
    return 13, 0
