"""Checks of layers' sizes, made when they are built."""

from __future__ import annotations

from collections.abc import Sequence

Size = int | Sequence[int]


def require_positive(layer: str, **sizes: int) -> None:
    """Raise ValueError unless every size is a whole number above 0."""
    for name, size in sizes.items():
        if isinstance(size, bool) or int(size) != size or size < 1:
            raise ValueError(f"[{layer}] expected {name} >= 1, got {size!r}. Correct it.")


def pair(layer: str, name: str, value: Size, least: int = 1) -> tuple[int, int]:
    """Return one number or two as (height, width); raises ValueError unless all are >= least."""
    items = (value, value) if isinstance(value, int) else tuple(value)
    if len(items) != 2 or any(int(item) != item or item < least for item in items):
        raise ValueError(
            f"[{layer}] expected {name} as an int >= {least} or two of them, got {value!r}. Correct it."
        )
    return int(items[0]), int(items[1])


def require_probability(layer: str, p: float) -> None:
    """Raise ValueError unless 0 <= p <= 1."""
    if not 0 <= p <= 1:
        raise ValueError(
            f"[{layer}] expected p from 0 to 1, got {p}. It is the probability of a zero."
        )
