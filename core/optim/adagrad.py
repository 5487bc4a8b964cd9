"""Adagrad."""

from __future__ import annotations

from typing import Any

from trine.backends import Backend
from trine.dtypes import Array
from trine.optim.flat import Run
from trine.optim.optimizer import Optimizer, Params


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan and Singer, 2011): s += g^2; p -= lr_t g / (sqrt(s) + eps).

    lr_t = lr / (1 + (t - 1) lr_decay); weight decay: g += wd p. PyTorch's rule and defaults.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "eps": eps,
            },
        )

    def _check(self, options: dict[str, Any]) -> None:
        for name in ("lr_decay", "weight_decay", "initial_accumulator_value", "eps"):
            self._need(options[name] >= 0, name, ">= 0", options)

    def _states(self, options: dict[str, Any]) -> dict[str, float]:
        return {"state_sum": options["initial_accumulator_value"]}

    def _update(self, backend: Backend, run: Run, lr: Array, options: dict[str, Any]) -> None:
        backend.adagrad_step(
            run.param,
            run.grad,
            run.states["state_sum"],
            lr,
            run.step,
            self.scale,
            lr_decay=options["lr_decay"],
            eps=options["eps"],
            weight_decay=options["weight_decay"],
        )
