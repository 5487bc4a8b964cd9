"""How a call of a CUDA kernel is launched: what a kernel's launch function returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trine.dtypes import DType


@dataclass(frozen=True, eq=False)
class Scratch:
    """Uninitialised memory for one call, handed to its launches as an argument.

    The same object in several launches is the same memory.
    """

    shape: tuple[int, ...]
    dtype: DType


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel."""

    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[Any, ...]
    """Arrays, None, numbers and `Scratch`, in the order of the kernel's parameters."""
    shared_bytes: int = 0
    function: str | None = None
    """The kernel, such as "sum<{T}>", if it is not the one that was registered."""
    source: str | None = None
    """The `.cu` that has it, if it is another one beside that which was registered."""


Launches = Launch | Sequence[Launch]
"""What a launch function returns; none for a call with nothing to do."""

MAX_BLOCKS = 2**31 - 1
"""Blocks along x that a grid can have."""


def blocks(work: int, per_block: int) -> tuple[int]:
    """Return the grid of one axis whose blocks each do `per_block` of `work`; at least one block."""
    return (max(1, min(-(-work // per_block), MAX_BLOCKS)),)
