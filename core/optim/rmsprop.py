"""RMSprop."""

from __future__ import annotations

from typing import Any

from trine.backends import Backend
from trine.dtypes import Array
from trine.optim.flat import Run
from trine.optim.optimizer import Optimizer, Params


class RMSprop(Optimizer):
    """RMSprop (Hinton, 2012): s = alpha s + (1 - alpha) g^2; p -= lr g / (sqrt(s) + eps).

    `centered` subtracts the squared running mean of g from s; with momentum the quotient goes
    through v = mu v + quotient, p -= lr v. Weight decay: g += wd p. PyTorch's rule and defaults.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "alpha": alpha,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "centered": centered,
            },
        )

    def _check(self, options: dict[str, Any]) -> None:
        for name in ("alpha", "eps", "weight_decay", "momentum"):
            self._need(options[name] >= 0, name, ">= 0", options)

    def _states(self, options: dict[str, Any]) -> dict[str, float]:
        states = {"square_avg": 0.0}
        if options["momentum"]:
            states["momentum_buffer"] = 0.0
        if options["centered"]:
            states["grad_avg"] = 0.0
        return states

    def _update(self, backend: Backend, run: Run, lr: Array, options: dict[str, Any]) -> None:
        backend.rmsprop_step(
            run.param,
            run.grad,
            run.states["square_avg"],
            run.states.get("momentum_buffer"),
            run.states.get("grad_avg"),
            lr,
            self.scale,
            alpha=options["alpha"],
            eps=options["eps"],
            momentum=options["momentum"],
            weight_decay=options["weight_decay"],
        )
