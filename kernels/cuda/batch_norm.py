"""Launches of batch_norm.cu: normalisation over the batch, by its own or given moments."""

from __future__ import annotations

from collections.abc import Callable

from trine.dtypes import Array
from trine.kernels.cuda.launch import Launch, Launches, Scratch, blocks
from trine.kernels.cuda.rows import channel_team
from trine.kernels.registry import cuda_kernel

SOURCE = "batch_norm.cu"
THREADS = 256


def _batch_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    out: Array,
    mean: Array,
    var: Array,
) -> Launches:
    count, channels, inner = x.shape
    if not channels:
        return ()
    team = channel_team(*x.shape)
    name = f"<{{T}}, {team.name}>"
    if team.chunks == 1:
        arguments = (x, weight, bias, out, mean, var, *x.shape, eps)
        return Launch(team.grid, team.block, arguments, function=f"batch_norm{name}")
    sums, deviations = (Scratch((team.chunks, channels), x.dtype) for _ in range(2))
    join = (sums, deviations, mean, var, team.chunks, channels, count * inner)
    apply = (x, weight, bias, mean, var, out, *x.shape, eps)
    return [
        Launch(
            team.grid,
            team.block,
            (x, sums, deviations, *x.shape),
            function=f"batch_moments{name}",
        ),
        Launch(blocks(channels, THREADS), (THREADS,), join, function="join_moments<{T}>"),
        Launch(team.grid, team.block, apply, function=f"batch_norm_eval{name}"),
    ]


def _batch_norm_eval(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    mean: Array,
    var: Array,
    eps: float,
    out: Array,
) -> Launches:
    if not x.size:
        return ()
    team = channel_team(*x.shape)
    arguments = (x, weight, bias, mean, var, out, *x.shape, eps)
    name = f"batch_norm_eval<{{T}}, {team.name}>"
    return Launch(team.grid, team.block, arguments, function=name)


def _backward(training: str) -> Callable[..., Launches]:
    def launch(
        grad_out: Array,
        x: Array,
        weight: Array | None,
        mean: Array,
        var: Array,
        eps: float,
        grad_x: Array,
        grad_weight: Array,
        grad_bias: Array,
    ) -> Launches:
        channels = x.shape[1]
        if not channels:
            return ()
        team = channel_team(*x.shape)
        is_whole = team.chunks == 1
        parts = [
            gradient if is_whole else Scratch((team.chunks, channels), x.dtype)
            for gradient in (grad_weight, grad_bias)
        ]
        given = (grad_out, x, weight, mean, var)
        name = f"<{{T}}, {team.name}, {training}>"
        arguments = (*given, grad_x if is_whole else None, *parts, *x.shape, eps)
        sums = Launch(team.grid, team.block, arguments, function=f"batch_norm_backward{name}")
        if is_whole:
            return sums
        join = (*parts, grad_weight, grad_bias, team.chunks, channels)
        apply = (*given, grad_weight, grad_bias, grad_x, *x.shape, eps)
        return [
            sums,
            Launch(blocks(channels, THREADS), (THREADS,), join, function="join_gradients<{T}>"),
            Launch(team.grid, team.block, apply, function=f"batch_norm_grad_x{name}"),
        ]

    return launch


for _op, _function, _launch in (
    ("batch_norm", "batch_norm<{T}, WarpRow>", _batch_norm),
    ("batch_norm_eval", "batch_norm_eval<{T}, WarpRow>", _batch_norm_eval),
    ("batch_norm_backward", "batch_norm_backward<{T}, WarpRow, true>", _backward("true")),
    ("batch_norm_eval_backward", "batch_norm_backward<{T}, WarpRow, false>", _backward("false")),
):
    cuda_kernel(_op, name="channels", source=SOURCE, function=_function, launch=_launch)
