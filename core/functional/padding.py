"""Padding of images, and the rules VALID and SAME."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any, Literal

from trine.autograd import apply
from trine.functional.checks import require_tensor
from trine.primitives import PRIMITIVES as P
from trine.tensor import Tensor

Pair = tuple[int, int]
Sides = tuple[Pair, Pair]
"""(before, after) along the height and along the width."""

PadMode = Literal["constant", "reflect"]


def pad(
    input: Tensor, pad: Sequence[int], mode: PadMode = "constant", value: float | None = None
) -> Tensor:
    """Add elements around a tensor; the last axis comes first in `pad`, as (before, after) pairs.

    mode "constant" adds `value` (None is 0), "reflect" mirrors the inside without its edge. Raises
    ValueError for anything but pairs of numbers >= 0, too many, or a reflection wider than the
    inside.
    """
    require_tensor("pad", "input", input)
    sides = whole_numbers(pad)
    if not sides or len(sides) % 2 or len(sides) > 2 * input.ndim or any(p < 0 for p in sides):
        raise ValueError(
            f"[pad] expected pairs of numbers >= 0 for at most {input.ndim} axes, got {pad!r}. "
            "Give (left, right, top, bottom)."
        )
    if mode not in ("constant", "reflect"):
        raise ValueError(
            f'[pad] expected mode "constant" or "reflect", got {mode!r}. Choose one of them.'
        )
    widths = [(0, 0)] * input.ndim
    for i in range(len(sides) // 2):
        widths[-1 - i] = (sides[2 * i], sides[2 * i + 1])
    if mode == "reflect":
        for size, (before, after) in zip(input.shape, widths, strict=True):
            if max(before, after) >= max(size, 1):
                raise ValueError(
                    f"[pad] expected reflections narrower than the axes of {input.shape}, got "
                    f"{pad!r}. Pad less."
                )
    if not any(before or after for before, after in widths):
        return input
    return apply(  # type: ignore[no-any-return]
        P["pad"], input, widths=tuple(widths), mode=mode, value=float(value or 0)
    )


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> Pair:
    """Return (left, right) such that the output has ceil(size / stride) elements.

    N_pad = max(0, (W' - 1) S + F - W) with W' = ceil(W / S) and F the kernel's extent;
    left = floor(N_pad / 2), right the rest. (Source notes 003, 3-2 to 3-4; TensorFlow's rule.)
    """
    extent = dilation * (kernel - 1) + 1
    total = max(0, (-(-size // stride) - 1) * stride + extent - size)
    return total // 2, total - total // 2


def whole_numbers(items: Any) -> tuple[int, ...]:
    """Return a sequence of ints of any kind as a tuple; an empty one if it is anything else."""
    try:
        numbers = tuple(items)
        return () if any(isinstance(n, bool) for n in numbers) else tuple(map(index, numbers))
    except TypeError:
        return ()


def pair(op: str, name: str, value: int | Sequence[int], least: int) -> Pair:
    """Return a number or two as a pair (height, width); raises unless all are >= `least`."""
    if type(value) is tuple and len(value) == 2:  # as layers keep it: each step comes this way
        a, b = value
        if type(a) is int and type(b) is int and a >= least and b >= least:
            return value
    numbers = whole_numbers(value) or whole_numbers((value, value))
    if len(numbers) != 2 or min(numbers) < least:
        raise ValueError(
            f"[{op}] expected {name} as an int >= {least} or two of them, got {value!r}. Correct {name}."
        )
    return numbers[0], numbers[1]


def resolve_padding(
    op: str,
    padding: int | str | Sequence[int],
    size: Pair,
    kernel: Pair,
    stride: Pair,
    dilation: Pair,
) -> Sides:
    """Return what to add on each side for a number, a pair, or "valid" / "same" in either case."""
    if isinstance(padding, str):
        rule = padding.lower()
        if rule == "valid":
            return (0, 0), (0, 0)
        if rule == "same":
            rows, columns = (
                same_padding(size[i], kernel[i], stride[i], dilation[i]) for i in (0, 1)
            )
            return rows, columns
        raise ValueError(
            f'[{op}] expected padding as numbers, "valid" or "same", got {padding!r}. Choose one.'
        )
    a, b = pair(op, "padding", padding, 0)
    return (a, a), (b, b)
