"""Adam and AdamW."""

from __future__ import annotations

from typing import Any

from trine.backends import Backend
from trine.dtypes import Array
from trine.optim.flat import Run
from trine.optim.optimizer import Optimizer, Params


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015): p -= lr m^ / (sqrt(v^) + eps).

    m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, m^ = m / (1 - b1^t), v^ = v / (1 - b2^t);
    weight decay is added to the gradient: g += wd p. PyTorch's rule and defaults.
    """

    decoupled = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        )

    def _check(self, options: dict[str, Any]) -> None:
        betas = options["betas"]
        self._need(
            len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
            "betas",
            "as two numbers from 0 to 1, 1 excluded",
            options,
        )
        self._need(options["eps"] >= 0, "eps", ">= 0", options)
        self._need(options["weight_decay"] >= 0, "weight_decay", ">= 0", options)

    def _states(self, options: dict[str, Any]) -> dict[str, float]:
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}

    def _update(self, backend: Backend, run: Run, lr: Array, options: dict[str, Any]) -> None:
        beta1, beta2 = options["betas"]
        backend.adam_step(
            run.param,
            run.grad,
            run.states["exp_avg"],
            run.states["exp_avg_sq"],
            lr,
            run.step,
            self.scale,
            beta1=beta1,
            beta2=beta2,
            eps=options["eps"],
            weight_decay=options["weight_decay"],
            decoupled=self.decoupled,
        )


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters themselves: p -= lr wd p, then Adam's step.

    Loshchilov and Hutter, "Decoupled weight decay regularization", 2019. PyTorch's defaults.
    """

    decoupled = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
