"""Launches of row_norm.cu: layer and group normalisation and their gradients."""

from __future__ import annotations

import math

from trine.dtypes import Array
from trine.kernels.cuda.launch import Launch, Launches, Scratch, blocks
from trine.kernels.cuda.rows import channel_team, row_team
from trine.kernels.registry import cuda_kernel

SOURCE = "row_norm.cu"
THREADS = 256


def _forward(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    groups: int,
    eps: float,
    out: Array,
    mean: Array,
    rstd: Array,
) -> Launches:
    rows, per_group, inner = x.shape[0] * groups, x.shape[1] // groups, math.prod(x.shape[2:])
    if not rows:
        return ()
    team = row_team(rows, per_group * inner)
    arguments = (x, weight, bias, out, mean, rstd, rows, groups, per_group, inner, eps)
    return Launch(team.grid, team.block, arguments, function=f"row_norm<{{T}}, {team.name}>")


def _backward(
    grad_out: Array,
    x: Array,
    weight: Array | None,
    mean: Array,
    rstd: Array,
    groups: int,
    grad_x: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> Launches:
    count, channels, inner = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    if not channels:
        return ()
    rows, per_group = count * groups, channels // groups
    launches = []
    if rows:
        team = row_team(rows, per_group * inner)
        arguments = (grad_out, x, weight, mean, rstd, grad_x, rows, groups, per_group, inner)
        name = f"row_norm_grad_x<{{T}}, {team.name}>"
        launches.append(Launch(team.grid, team.block, arguments, function=name))
    team = channel_team(count, channels, inner)
    parts = [
        gradient if team.chunks == 1 else Scratch((team.chunks, channels), x.dtype)
        for gradient in (grad_weight, grad_bias)
    ]
    arguments = (grad_out, x, mean, rstd, *parts, count, groups, per_group, inner)
    name = f"row_norm_grad_affine<{{T}}, {team.name}>"
    launches.append(Launch(team.grid, team.block, arguments, function=name))
    if team.chunks > 1:
        join = (*parts, grad_weight, grad_bias, team.chunks, channels)
        launches.append(
            Launch(blocks(channels, THREADS), (THREADS,), join, function="join_gradients<{T}>")
        )
    return launches


def _layer_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    out: Array,
    mean: Array,
    rstd: Array,
) -> Launches:
    return _forward(x, weight, bias, 1, eps, out, mean, rstd)


def _layer_norm_backward(
    grad_out: Array,
    x: Array,
    weight: Array | None,
    mean: Array,
    rstd: Array,
    grad_x: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> Launches:
    return _backward(grad_out, x, weight, mean, rstd, 1, grad_x, grad_weight, grad_bias)


for _op, _function, _launch in (
    ("layer_norm", "row_norm", _layer_norm),
    ("group_norm", "row_norm", _forward),
    ("layer_norm_backward", "row_norm_grad_x", _layer_norm_backward),
    ("group_norm_backward", "row_norm_grad_x", _backward),
):
    cuda_kernel(
        _op, name="rows", source=SOURCE, function=f"{_function}<{{T}}, WarpRow>", launch=_launch
    )
