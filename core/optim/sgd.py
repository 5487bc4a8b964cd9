"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from trine.backends import Backend
from trine.dtypes import Array
from trine.optim.flat import Run
from trine.optim.optimizer import Optimizer, Params


class SGD(Optimizer):
    """Gradient descent with momentum: g += wd p; v = mu v + (1 - dampening) g; p -= lr v.

    The first update sets v = g. With `nesterov`, p -= lr (g + mu v). PyTorch's rule and defaults.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
            },
        )

    def _check(self, options: dict[str, Any]) -> None:
        self._need(options["momentum"] >= 0, "momentum", ">= 0", options)
        self._need(options["weight_decay"] >= 0, "weight_decay", ">= 0", options)
        usable = options["momentum"] > 0 and options["dampening"] == 0
        self._need(
            not options["nesterov"] or usable,
            "nesterov",
            "False unless momentum > 0 and dampening == 0",
            options,
        )

    def _states(self, options: dict[str, Any]) -> dict[str, float]:
        return {"momentum_buffer": 0.0} if options["momentum"] else {}

    def _update(self, backend: Backend, run: Run, lr: Array, options: dict[str, Any]) -> None:
        backend.sgd_step(
            run.param,
            run.grad,
            run.states.get("momentum_buffer"),
            lr,
            run.step,
            self.scale,
            momentum=options["momentum"],
            dampening=options["dampening"],
            nesterov=options["nesterov"],
            weight_decay=options["weight_decay"],
        )
