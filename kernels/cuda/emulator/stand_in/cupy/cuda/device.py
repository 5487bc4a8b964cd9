"""The stand-in's `cupy.cuda.device`."""

from __future__ import annotations

__all__ = ["get_compute_capability"]


def get_compute_capability() -> str:
    """Return what kernels are compiled for."""
    return "90"
