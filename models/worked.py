"""The formulas of an anatomy's ops with one sample's numbers put in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.models.anatomy import Part
from trine.models.formulas import ACTS, number

Array = npt.NDArray[Any]

TERMS = 8
"""A sum is written out up to so many terms, and so many of its units."""
WINDOWS = 4
"""Windows that are written out of a layer with more than SMALL of them: some from its middle."""
SMALL = 64
PRODUCTS = 25
"""Products of a window that are written out."""

SLOPES: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda a: a * (1.0 - a),
    "tanh": lambda a: 1.0 - a * a,
    "relu": lambda a: (a > 0).astype(a.dtype),
}
"""act'(z) from a = act(z)."""


def signed(value: float) -> str:
    """Return a number as a factor: in brackets if it is negative."""
    text = number(value)
    return f"({text})" if text.startswith("-") else text


def sum_of_products(factors: Array, others: Array, shown: int = TERMS) -> str:
    """Return a sum of products with numbers: the first ones, and how many there are more."""
    pairs = list(zip(factors.ravel(), others.ravel(), strict=True))
    terms = [f"{signed(a)}·{signed(b)}" for a, b in pairs[:shown]]
    left = len(pairs) - len(terms)
    return " + ".join(terms) + (f" + ({left} more)" if left else "")


def slope(part: Part) -> Array | None:
    """Return act'(z) of an activation, also of one that is fused into its layer."""
    act = part.op if part.op in SLOPES else part.attrs.get("activation", "none")
    return SLOPES[act](part.output) if act in SLOPES else None


def worked(part: Part, sample: int = 0) -> list[str]:
    """Return the formula with one sample's numbers: whole for small layers, else its first units.

    The numbers are those that the backend computed; a line's right side is the output itself.
    """
    write = {
        "linear": _linear, "conv2d": _conv2d, "max_pool2d": _max_pool2d, "avg_pool2d": _avg_pool2d,
    }.get(part.op)  # fmt: skip
    if write is None and part.op in ACTS:
        write = _activation
    if write is None or part.output.ndim < 2 or not part.by_sample:
        return []
    return list(write(part, sample))


def _linear(part: Part, sample: int) -> Iterator[str]:
    x, weight = part.inputs[0].value, part.inputs[1].value
    if x.shape[-1] > TERMS:
        return
    x = x[sample]
    for j in range(min(len(weight), TERMS)):
        bias = f" + {signed(part.inputs[2].value[j])}" if len(part.inputs) > 2 else ""
        out = number(part.output[sample, j])
        yield f"{part.symbol}[{j + 1}] = {sum_of_products(weight[j], x)}{bias} = {out}"


def _activation(part: Part, sample: int) -> Iterator[str]:
    z, a = part.inputs[0].value[sample], part.output[sample]
    if a.size > TERMS:
        return
    shown, factor = ACTS[part.op]
    for j, (before, after) in enumerate(zip(z.ravel(), a.ravel(), strict=True), 1):
        value = shown.split(" = ")[-1].format(z=signed(before))
        line = f"{part.symbol}[{j}] = {value} = {number(after)}"
        slope = float(SLOPES[part.op](np.asarray(after)))
        middle = "" if part.op == "relu" else f"{factor.format(a=signed(after))} = "
        yield f"{line};  act' = {middle}{number(slope)}"


def shown_windows(maps: Array) -> list[tuple[int, int, int]]:
    """Return the (k, i, j) of maps (K, H, W) that are written out: all, or some in the middle."""
    if maps.size <= SMALL:
        return [(k, i, j) for k, i, j in np.ndindex(*maps.shape)]
    height, width = maps.shape[1:]
    first = max(0, (width - WINDOWS) // 2)
    return [(0, height // 2, j) for j in range(first, min(width, first + WINDOWS))]


def window(part: Part, sample: int, place: tuple[int, int, int]) -> Array:
    """Return the window (C, R, S) that a convolution weighs by W[k] for its output (k, i, j).

    Zeros stand where the window reaches into the padding.
    """
    x, weight = part.inputs[0].value[sample], part.inputs[1].value
    stride, padding = part.attrs.get("stride", (1, 1)), part.attrs.get("padding", (0, 0))
    dilation = part.attrs.get("dilation", (1, 1))
    filters, channels, rows, columns = weight.shape
    groups = x.shape[0] // channels
    padded = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2))
    k, i, j = place
    first = (k // (filters // groups)) * channels
    top, left = i * stride[0], j * stride[1]
    seen: Array = padded[
        first : first + channels,
        top : top + (rows - 1) * dilation[0] + 1 : dilation[0],
        left : left + (columns - 1) * dilation[1] + 1 : dilation[1],
    ]
    return seen


def _conv2d(part: Part, sample: int) -> Iterator[str]:
    bias = part.inputs[2].value if len(part.inputs) > 2 else None
    for k, i, j in shown_windows(part.output[sample]):
        seen = window(part, sample, (k, i, j))
        products = sum_of_products(part.inputs[1].value[k], seen, PRODUCTS)
        end = f" + {signed(bias[k])}" if bias is not None else ""
        value = number(part.output[sample, k, i, j])
        yield f"{part.symbol}[{k + 1},{i},{j}] = {products}{end} = {value}"


def winners(part: Part, sample: int) -> Array:
    """Return row and column of the winner of each window of a max pool, (C, H, W, 2)."""
    x = part.inputs[0].value[sample]
    size, stride = part.attrs["kernel_size"], part.attrs["stride"]
    padding, dilation = part.attrs.get("padding", (0, 0)), part.attrs.get("dilation", (1, 1))
    found = np.empty((*part.output.shape[1:], 2), dtype=np.int64)
    for c, i, j in np.ndindex(*part.output.shape[1:]):
        best = None
        for r, s in product(range(size[0]), range(size[1])):
            h = i * stride[0] - padding[0] + r * dilation[0]
            w = j * stride[1] - padding[1] + s * dilation[1]
            if 0 <= h < x.shape[1] and 0 <= w < x.shape[2]:
                value = x[c, h, w]
                if best is None or value > best:
                    best, found[c, i, j] = value, (h, w)
    return found


def _max_pool2d(part: Part, sample: int) -> Iterator[str]:
    where = winners(part, sample)
    for c, i, j in shown_windows(part.output[sample]):
        h, w = where[c, i, j]
        value = number(part.output[sample, c, i, j])
        yield f"{part.symbol}[{c + 1},{i},{j}] = {part.inputs[0].symbol}[{c + 1},{h},{w}] = {value}"


def _avg_pool2d(part: Part, sample: int) -> Iterator[str]:
    size, stride = part.attrs["kernel_size"], part.attrs["stride"]
    if part.attrs.get("padding", (0, 0)) != (0, 0) or part.attrs.get("ceil_mode"):
        return  # what a window at the border is divided by is another matter
    for c, i, j in shown_windows(part.output[sample]):
        top, left = i * stride[0], j * stride[1]
        seen = part.inputs[0].value[sample, c, top : top + size[0], left : left + size[1]]
        terms = " + ".join(map(signed, seen.ravel()[:PRODUCTS]))
        more = f" + ({seen.size - PRODUCTS} more)" if seen.size > PRODUCTS else ""
        value = number(part.output[sample, c, i, j])
        yield f"{part.symbol}[{c + 1},{i},{j}] = ({terms}{more}) / {seen.size} = {value}"
