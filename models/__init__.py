"""The systems that Trine trains and explains, each reached by its name.

`trine.models.names()` lists them, `trine.models.get("lenet5")` returns one. A family of systems is
one file here; importing this package imports none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trine.models.explanation import Explanation, Row
from trine.models.figures import Curve, Figure
from trine.models.registry import System, get, names, register, system

if TYPE_CHECKING:
    from trine.models.layers import explain, explain_model

__all__ = [
    "Curve",
    "Explanation",
    "Figure",
    "Row",
    "System",
    "explain",
    "explain_model",
    "get",
    "names",
    "register",
    "system",
]


def __getattr__(name: str) -> Any:
    if name in ("explain", "explain_model"):
        from trine.models import layers  # noqa: PLC0415 (layers import nn, names do not)

        return getattr(layers, name)
    raise AttributeError(f"module 'trine.models' has no attribute {name!r}")
