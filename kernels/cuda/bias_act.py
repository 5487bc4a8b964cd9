"""Launches of bias_act.cu: bias and activation, and both gradients."""

from __future__ import annotations

import math

from trine.dtypes import Array
from trine.kernels.cuda.launch import Launch, Launches, Scratch, blocks
from trine.kernels.cuda.rows import channel_team
from trine.kernels.registry import cuda_kernel

SOURCE = "bias_act.cu"
THREADS = 256


def _bias_act(x: Array, bias: Array | None, activation: int, out: Array) -> Launches:
    if not x.size:
        return ()
    channels = x.shape[1] if bias is not None else 1
    arguments = (x, bias, out, x.size, channels, math.prod(x.shape[2:]), activation)
    return Launch(blocks(x.size, THREADS), (THREADS,), arguments)


def _bias_act_backward(
    grad_out: Array, out: Array, activation: int, grad_x: Array, grad_bias: Array
) -> Launches:
    rows, channels, inner = out.shape[0], out.shape[1], math.prod(out.shape[2:])
    if not channels:
        return ()
    team = channel_team(rows, channels, inner)
    parts = grad_bias if team.chunks == 1 else Scratch((team.chunks, channels), out.dtype)
    arguments = (grad_out, out, grad_x, parts, rows, channels, inner, activation)
    name = f"bias_act_backward<{{T}}, {team.name}>"
    launch = Launch(team.grid, team.block, arguments, function=name)
    if team.chunks == 1:
        return launch
    join = (parts, grad_bias, team.chunks, channels)
    return [
        launch,
        Launch(blocks(channels, THREADS), (THREADS,), join, function="grad_bias<{T}>"),
    ]


cuda_kernel("bias_act", name="grid", source=SOURCE, function="bias_act<{T}>", launch=_bias_act)
cuda_kernel(
    "bias_act_backward",
    name="channels",
    source=SOURCE,
    function="bias_act_backward<{T}, WarpRow>",
    launch=_bias_act_backward,
)
