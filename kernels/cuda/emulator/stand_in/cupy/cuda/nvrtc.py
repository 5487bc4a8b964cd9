"""The stand-in's `cupy.cuda.nvrtc`."""

from __future__ import annotations


def getVersion() -> tuple[int, int]:  # noqa: N802
    """Return the compiler's version."""
    return 13, 0
