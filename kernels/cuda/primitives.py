"""Launches of primitives.cu: elementwise primitives on floats, with NumPy's broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from trine.dtypes import Array, bool_
from trine.kernels.cuda.launch import Launch, Launches, blocks
from trine.kernels.registry import cuda_kernel

SOURCE = "primitives.cu"
THREADS = 256
AXES = 4
"""Axes that a kernel indexes, after those that lie alike in all operands have been merged."""

UNARY = {
    "unary": ("neg", "abs", "sign", "floor", "exp", "expm1", "log", "log1p", "sqrt", "softplus"),
    "trigonometric": ("sin", "cos"),
    "test": ("logical_not", "isfinite"),
}
BINARY = {
    "binary": ("add", "sub", "mul", "div", "maximum", "minimum"),
    "floor_div": ("floor_div",),
    "power": ("pow",),
    "comparison": ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal",
                   "logical_and", "logical_or"),
}  # fmt: skip
"""Kernel -> its ops, in the order of its enumeration."""


def merge_axes(
    shape: tuple[int, ...], operands: tuple[tuple[int, ...], ...]
) -> tuple[list[int], list[list[int]]]:
    """Return the sizes of a broadcast result's axes, merged where possible, and operands' strides.

    Operands are contiguous; strides count elements, 0 along axes that an operand repeats.
    """
    sizes: list[int] = []
    strides: list[list[int]] = [[] for _ in operands]
    padded = [(1,) * (len(shape) - len(o)) + tuple(o) for o in operands]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        steps = [0 if o[axis] == 1 else math.prod(o[axis + 1 :]) for o in padded]
        if sizes and all(s[-1] == size * step for s, step in zip(strides, steps, strict=True)):
            sizes[-1] *= size
            for own, step in zip(strides, steps, strict=True):
                own[-1] = step
        else:
            sizes.append(size)
            for own, step in zip(strides, steps, strict=True):
                own.append(step)
    return sizes or [1], strides if sizes else [[0] for _ in operands]


def _broadcast(
    kernel: str, options: tuple[int, ...], operands: tuple[Array, ...], out: Array
) -> Launches:
    """Return the launches of a kernel over broadcast operands: one, for up to four merged axes."""
    if not out.size:
        return ()
    sizes, strides = merge_axes(out.shape, tuple(o.shape for o in operands))
    outer, sizes = sizes[:-AXES], sizes[-AXES:]
    lacking = [0] * (AXES - len(sizes))
    steps = [step for own in strides for step in (*lacking, *own[-AXES:])]
    n = math.prod(sizes)
    flat, target = [o.reshape(-1) for o in operands], out.reshape(-1)
    launches = []
    for number, place in enumerate(np.ndindex(*outer)):
        starts = [sum(i * s for i, s in zip(place, own, strict=False)) for own in strides]
        arrays = [a[start:] for a, start in zip(flat, starts, strict=True)]
        arguments = (*arrays, target[number * n :], n, *options, *lacking, *sizes[1:], *steps)
        launches.append(
            Launch(blocks(n, THREADS), (THREADS,), arguments, function=f"{kernel}<{{T}}>")
        )
    return launches


def _unary(kernel: str, function: int) -> Callable[..., Launches]:
    def launch(x: Array, out: Array) -> Launches:
        if not x.size:
            return ()
        name = f"{kernel}<{{T}}>"
        return Launch(
            blocks(x.size, THREADS), (THREADS,), (x, out, x.size, function), function=name
        )

    return launch


def _binary(kernel: str, options: tuple[int, ...]) -> Callable[..., Launches]:
    def launch(x: Array, y: Array, out: Array) -> Launches:
        return _broadcast(kernel, options, (x, y), out)

    return launch


def _where(condition: Array, x: Array, y: Array, out: Array) -> Launches:
    return _broadcast("choose", (), (condition, x, y), out)


def _register(op: str, kernel: str, launch: Callable[..., Launches], serves: Any = None) -> None:
    cuda_kernel(
        op,
        name="grid",
        source=SOURCE,
        function=f"{kernel}<{{T}}>",
        launch=launch,
        supports=serves,
        floats_only=True,
    )


for _kernel, _ops in UNARY.items():
    for _number, _op in enumerate(_ops):
        _register(_op, _kernel, _unary(_kernel, _number))
for _kernel, _ops in BINARY.items():
    for _number, _op in enumerate(_ops):
        _options = (_number,) if len(_ops) > 1 else ()
        _register(_op, _kernel, _binary(_kernel, _options), lambda x, y, **_: x.dtype == y.dtype)
_register(
    "where",
    "choose",
    _where,
    lambda condition, x, y, **_: condition.dtype == bool_ and x.dtype == y.dtype,
)
