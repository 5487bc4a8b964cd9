"""Launches of cross_entropy.cu: the loss of rows of logits against labels, and its gradient."""

from __future__ import annotations

from trine.dtypes import Array
from trine.kernels.cuda.launch import Launch, Launches, Scratch
from trine.kernels.cuda.rows import row_team
from trine.kernels.registry import cuda_kernel

SOURCE = "cross_entropy.cu"
NONE, MEAN = 0, 1
"""Positions among the reductions."""

ONE_BLOCK = 512


def _cross_entropy(
    logits: Array,
    target: Array,
    weight: Array | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: int,
    loss: Array,
    log_probs: Array,
) -> Launches:
    rows, classes = logits.shape
    losses = loss if reduction == NONE else Scratch((rows,), logits.dtype)
    weights = Scratch((rows,), logits.dtype) if reduction == MEAN else None
    launches = []
    if rows:
        team = row_team(rows, classes)
        arguments = (logits, target, weight, log_probs, losses, weights, rows, classes,
                     ignore_index, 1 - label_smoothing, label_smoothing / classes)  # fmt: skip
        name = f"cross_entropy<{{T}}, {team.name}>"
        launches.append(Launch(team.grid, team.block, arguments, function=name))
    if reduction != NONE:
        join = (losses, weights, loss, rows, reduction)
        launches.append(Launch((1,), (ONE_BLOCK,), join, function="total_loss<{T}>"))
    return launches


def _cross_entropy_backward(
    grad_out: Array,
    log_probs: Array,
    target: Array,
    weight: Array | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: int,
    grad_logits: Array,
) -> Launches:
    rows, classes = log_probs.shape
    if not log_probs.size:
        return ()
    launches, total = [], None
    if reduction == MEAN:
        total = Scratch((1,), log_probs.dtype)
        labels = (target, weight, total, rows, classes, ignore_index)
        launches.append(Launch((1,), (ONE_BLOCK,), labels, function="total_weight<{T}>"))
    team = row_team(rows, classes)
    every = 1 if grad_out.ndim else 0  # one gradient a row, or one for all
    arguments = (grad_out, log_probs, target, weight, total, grad_logits, rows, classes,
                 ignore_index, 1 - label_smoothing, label_smoothing / classes, every)  # fmt: skip
    name = f"cross_entropy_backward<{{T}}, {team.name}>"
    return [*launches, Launch(team.grid, team.block, arguments, function=name)]


cuda_kernel(
    "cross_entropy",
    name="rows",
    source=SOURCE,
    function="cross_entropy<{T}, WarpRow>",
    launch=_cross_entropy,
)
cuda_kernel(
    "cross_entropy_backward",
    name="rows",
    source=SOURCE,
    function="cross_entropy_backward<{T}, WarpRow>",
    launch=_cross_entropy_backward,
)
