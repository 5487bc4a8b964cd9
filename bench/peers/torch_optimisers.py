"""PyTorch's fused optimiser steps: one call for all parameters, the fastest form that it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from trine.bench.peers import PeerCall
from trine.bench.peers.torch_calls import host, tensor


def _in_place(run: Any, *changed: Any) -> PeerCall:
    """Make a call whose result is what it changed."""

    def call() -> Any:
        with torch.no_grad():
            run()
        return changed

    return PeerCall(call, lambda result: [host(r) for r in result])


def adam_step(
    param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, lr: Any, step: Any, scale: Any,
    beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool,
) -> PeerCall | None:  # fmt: skip
    """Adam and AdamW."""
    if float(scale[0]) != 1:
        return None
    p, g, m, v = (tensor(a) for a in (param, grad, exp_avg, exp_avg_sq))
    steps = torch.tensor(float(step[0]))
    function = torch._fused_adamw_ if decoupled else torch._fused_adam_

    def run() -> None:
        function(
            [p], [g], [m], [v], [], [steps], lr=float(lr[0]), beta1=beta1, beta2=beta2,
            weight_decay=weight_decay, eps=eps, amsgrad=False, maximize=False, grad_scale=None,
            found_inf=None,
        )  # fmt: skip

    return _in_place(run, p, m, v)


def sgd_step(
    param: Any, grad: Any, momentum_buffer: Any, lr: Any, step: Any, scale: Any, momentum: float,
    dampening: float, nesterov: bool, weight_decay: float,
) -> PeerCall | None:  # fmt: skip
    """Gradient descent, with momentum if there is a buffer."""
    if float(scale[0]) != 1:
        return None
    p, g, b = (tensor(a) for a in (param, grad, momentum_buffer))

    def run() -> None:
        torch._fused_sgd_(
            [p], [g], [] if b is None else [b], lr=float(lr[0]), momentum=momentum,
            dampening=dampening, weight_decay=weight_decay, nesterov=nesterov, maximize=False,
            is_first_step=bool(np.all(step == 1)), grad_scale=None, found_inf=None,
        )  # fmt: skip

    return _in_place(run, *(t for t in (p, b) if t is not None))


FUNCTIONS: dict[str, Callable[..., PeerCall | None]] = {
    "adam_step": adam_step,
    "sgd_step": sgd_step,
}
"""By op name."""
