"""Launches of elementwise.cu: activations by themselves and their gradients."""

from __future__ import annotations

from collections.abc import Callable

from trine.dtypes import Array
from trine.kernels.cuda.launch import Launch, Launches, blocks
from trine.kernels.registry import cuda_kernel

THREADS = 256
SOURCE = "elementwise.cu"
ACTIVATIONS = {"relu": 1, "sigmoid": 2, "tanh": 3}
"""Op -> its position among activations."""


def _act(activation: int) -> Callable[..., Launches]:
    def launch(x: Array, out: Array) -> Launches:
        if not x.size:
            return ()
        return Launch(blocks(x.size, THREADS), (THREADS,), (x, out, x.size, activation))

    return launch


for _op, _activation in ACTIVATIONS.items():
    cuda_kernel(_op, name="grid", source=SOURCE, function="act<{T}>", launch=_act(_activation))


def _act_backward(grad_out: Array, out: Array, activation: int, grad_x: Array) -> Launches:
    if not out.size:
        return ()
    arguments = (grad_out, out, grad_x, out.size, activation)
    return Launch(blocks(out.size, THREADS), (THREADS,), arguments)


cuda_kernel(
    "act_backward",
    name="grid",
    source=SOURCE,
    function="act_backward<{T}>",
    launch=_act_backward,
)
