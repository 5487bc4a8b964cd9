"""Launches of optimiser.cu: one launch a step over the flat buffers of a parameter group."""

from __future__ import annotations

from collections.abc import Callable

from trine.dtypes import Array, float64
from trine.kernels.cuda.launch import Launch, Launches, Scratch, blocks
from trine.kernels.registry import cuda_kernel

SOURCE = "optimiser.cu"
THREADS = 256
MOST_BLOCKS = 2048
"""What a thread prepares before its loop is worth several elements each."""

CHUNK = 4096
"""Elements whose squares one block adds, as the reference does."""


def _over(n: int, arguments: tuple[object, ...]) -> Launches:
    """Return a launch over n elements."""
    if not n:
        return ()
    return Launch((min(blocks(n, THREADS)[0], MOST_BLOCKS),), (THREADS,), arguments)


def _sgd_step(
    param: Array,
    grad: Array,
    momentum_buffer: Array | None,
    lr: Array,
    step: Array,
    scale: Array,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
) -> Launches:
    arguments = (param, grad, momentum_buffer, lr, step, scale, param.size, momentum,
                 1 - dampening, nesterov, weight_decay)  # fmt: skip
    return _over(param.size, arguments)


def _adam_step(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    lr: Array,
    step: Array,
    scale: Array,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> Launches:
    arguments = (param, grad, exp_avg, exp_avg_sq, lr, step, scale, param.size, beta1, beta2,
                 1 - beta1, 1 - beta2, eps, weight_decay, decoupled)  # fmt: skip
    return _over(param.size, arguments)


def _rmsprop_step(
    param: Array,
    grad: Array,
    square_avg: Array,
    momentum_buffer: Array | None,
    grad_avg: Array | None,
    lr: Array,
    scale: Array,
    alpha: float,
    eps: float,
    momentum: float,
    weight_decay: float,
) -> Launches:
    arguments = (param, grad, square_avg, momentum_buffer, grad_avg, lr, scale, param.size, alpha,
                 1 - alpha, eps, momentum, weight_decay)  # fmt: skip
    return _over(param.size, arguments)


def _adagrad_step(
    param: Array,
    grad: Array,
    state_sum: Array,
    lr: Array,
    step: Array,
    scale: Array,
    lr_decay: float,
    eps: float,
    weight_decay: float,
) -> Launches:
    arguments = (param, grad, state_sum, lr, step, scale, param.size, lr_decay, eps, weight_decay)
    return _over(param.size, arguments)


def _unit_step(param: Array, grad: Array, norm: Array, lr: Array, scale: Array) -> Launches:
    return _over(param.size, (param, grad, norm, lr, scale, param.size))


def _sum_squares(x: Array, out: Array) -> Launches:
    chunks = -(-x.size // CHUNK)
    if chunks == 1:
        return Launch((1,), (THREADS,), (x, out, x.size, 1, CHUNK))
    parts = Scratch((chunks,), float64)
    launches = []
    if chunks:
        arguments = (x, parts, x.size, chunks, CHUNK)
        launches.append(Launch(blocks(chunks, 1), (THREADS,), arguments))
    join = (parts, out, chunks)
    return [*launches, Launch((1,), (THREADS,), join, function="add_parts<{T}>")]


_STEPS: dict[str, Callable[..., Launches]] = {
    "sgd_step": _sgd_step,
    "adam_step": _adam_step,
    "rmsprop_step": _rmsprop_step,
    "adagrad_step": _adagrad_step,
    "unit_step": _unit_step,
}
for _op, _launch in _STEPS.items():
    cuda_kernel(_op, name="flat", source=SOURCE, function=f"{_op}<{{T}}>", launch=_launch)
cuda_kernel(
    "sum_squares", name="chunks", source=SOURCE, function="sum_squares<{T}>", launch=_sum_squares
)
