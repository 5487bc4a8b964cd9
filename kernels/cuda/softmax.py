"""Launches of softmax.cu: softmax, its logarithm and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

from trine.dtypes import Array
from trine.kernels.cuda.launch import Launch, Launches
from trine.kernels.cuda.rows import row_team
from trine.kernels.registry import cuda_kernel

SOURCE = "softmax.cu"


def _launch(function: str, log: str, arrays: tuple[Array, ...], axis: int) -> Launches:
    shape = arrays[0].shape
    if not arrays[0].size:
        return ()
    axis %= len(shape)
    classes, inner = shape[axis], math.prod(shape[axis + 1 :])
    rows = arrays[0].size // classes
    team = row_team(rows, classes, inner)
    name = f"{function}<{{T}}, {team.name}, {log}>"
    return Launch(team.grid, team.block, (*arrays, rows, classes, inner), function=name)


def _forward(log: str) -> Callable[..., Launches]:
    def launch(x: Array, axis: int, out: Array) -> Launches:
        return _launch("softmax", log, (x, out), axis)

    return launch


def _backward(log: str) -> Callable[..., Launches]:
    def launch(grad_out: Array, out: Array, axis: int, grad_x: Array) -> Launches:
        return _launch("softmax_backward", log, (grad_out, out, grad_x), axis)

    return launch


for _op, _log in (("softmax", "false"), ("log_softmax", "true")):
    cuda_kernel(
        _op,
        name="rows",
        source=SOURCE,
        function=f"softmax<{{T}}, WarpRow, {_log}>",
        launch=_forward(_log),
    )
    cuda_kernel(
        f"{_op}_backward",
        name="rows",
        source=SOURCE,
        function=f"softmax_backward<{{T}}, WarpRow, {_log}>",
        launch=_backward(_log),
    )
