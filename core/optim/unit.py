"""Descent by steps of one length."""

from __future__ import annotations

from typing import Any

from trine.backends import Backend
from trine.dtypes import Array
from trine.optim.flat import Run
from trine.optim.optimizer import Optimizer, Params


class UnitDescent(Optimizer):
    """Descent by steps of length lr: dx = -lr grad / norm(grad), the norm over all parameters.

    Where the gradient is zero there is no step.
    """

    def __init__(self, params: Params, lr: float = 1e-2) -> None:
        super().__init__(params, {"lr": lr})

    def _states(self, options: dict[str, Any]) -> dict[str, float]:
        return {}

    def _prepare(self, runs: list[Run]) -> None:
        self._length = self._norm(runs)

    def _update(self, backend: Backend, run: Run, lr: Array, options: dict[str, Any]) -> None:
        backend.unit_step(run.param, run.grad, self._length, lr, self.scale)
