"""Launches of reductions.cu: sums and extrema over any axes, and positions of extrema."""

from __future__ import annotations

import math
from collections.abc import Callable

from trine.dtypes import Array
from trine.kernels.cuda.launch import Launch, Launches, Scratch
from trine.kernels.cuda.rows import channel_team
from trine.kernels.registry import cuda_kernel

SOURCE = "reductions.cu"
Axes = tuple[int, ...] | int | None


def reduced_axes(ndim: int, axis: Axes) -> set[int]:
    """Return the axes that are reduced, from 0."""
    if axis is None:
        return set(range(ndim))
    return {a % ndim for a in ((axis,) if isinstance(axis, int) else axis)}


def reduction_steps(shape: tuple[int, ...], axes: set[int]) -> list[tuple[int, int, int, int]]:
    """Return reductions of (outer, count, kept, inner) over count and inner that together do it.

    One for most calls; further ones where reduced axes lie apart, the last axes first.
    """
    groups: list[tuple[int, bool]] = []  # neighbours of one kind, kept and reduced in turn
    for i, size in enumerate(shape):
        if groups and groups[-1][1] == (i in axes):
            groups[-1] = (groups[-1][0] * size, i in axes)
        elif size != 1:
            groups.append((size, i in axes))
    steps = []
    while True:
        inner = groups.pop()[0] if groups and groups[-1][1] else 1
        kept = groups.pop()[0] if groups else 1
        count = groups.pop()[0] if groups else 1
        outer = math.prod(size for size, _ in groups)
        steps.append((outer, count, kept, inner))
        if not any(reduced for _, reduced in groups):
            return steps
        last, _ = groups.pop()
        groups.append((last * kept, False))


def _reduce(op: str, functor: str) -> Callable[..., Launches]:
    def launch(x: Array, axis: Axes, keepdims: bool, out: Array) -> Launches:
        if not out.size:
            return ()
        if not x.size and functor != "Sum":
            raise ValueError(
                f"[{op}] expected elements to reduce, got shape {x.shape} over {axis}. Leave out "
                "axes of size 0."
            )
        steps = reduction_steps(x.shape, reduced_axes(x.ndim, axis))
        if not x.size:
            steps = [(out.size, 0, 1, 1)]
        launches = []
        source: Array | Scratch = x
        for number, (outer, count, kept, inner) in enumerate(steps):
            rows = outer * kept
            team = channel_team(count, kept, inner, outer)
            is_last = number == len(steps) - 1
            target = out if is_last else Scratch((rows,), x.dtype)
            parts = target if team.chunks == 1 else Scratch((team.chunks, rows), x.dtype)
            name = f"reduce<{{T}}, {functor}, {team.name}>"
            arguments = (source, parts, rows, count, kept, inner)
            launches.append(Launch(team.grid, team.block, arguments, function=name))
            if team.chunks > 1:
                join = channel_team(team.chunks, rows, 1)
                grid = (join.grid[0], 1)  # chunks of chunks would be no end of it
                name = f"reduce<{{T}}, {functor}, {join.name}>"
                arguments = (parts, target, rows, team.chunks, rows, 1)
                launches.append(Launch(grid, join.block, arguments, function=name))
            source = target
        return launches

    return launch


def _position(op: str, largest: str) -> Callable[..., Launches]:
    def launch(x: Array, axis: int | None, keepdims: bool, out: Array) -> Launches:
        if not out.size:
            return ()
        if not x.size:
            raise ValueError(
                f"[{op}] expected elements to choose from, got shape {x.shape} along {axis}. Choose "
                "an axis that has some."
            )
        if axis is None:
            outer, count, kept = 1, x.size, 1
        else:
            axis %= x.ndim
            outer, count = math.prod(x.shape[:axis]), x.shape[axis]
            kept = math.prod(x.shape[axis + 1 :])
        team = channel_team(count, kept, 1, outer)
        name = f"position<{{T}}, {largest}, {team.name}>"
        arguments = (x, out, outer * kept, count, kept)
        return Launch((team.grid[0],), team.block, arguments, function=name)

    return launch


for _op, _functor in (("sum", "Sum"), ("max", "Largest"), ("min", "Smallest")):
    cuda_kernel(
        _op,
        name="chunks",
        source=SOURCE,
        function=f"reduce<{{T}}, {_functor}, WarpRow>",
        launch=_reduce(_op, _functor),
        floats_only=True,
    )
for _op, _largest in (("argmax", "true"), ("argmin", "false")):
    cuda_kernel(
        _op,
        name="rows",
        source=SOURCE,
        function=f"position<{{T}}, {_largest}, WarpRow>",
        launch=_position(_op, _largest),
        floats_only=True,
    )
