"""The stand-in's `cupy.cuda.graph`."""

from __future__ import annotations

from .._streams import Graph

__all__ = ["Graph"]
