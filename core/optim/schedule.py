"""Learning-rate schedules: pure functions of the step or epoch.

A schedule has no state, so there is nothing to save: `lr_at(t)` is the rate at step (or epoch) t,
counted from 0, and `apply(optimizer, t)` sets it. Values are PyTorch's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

from trine.errors import suggest
from trine.optim.optimizer import Optimizer, check_lr

Interval = Literal["step", "epoch"]
Base = float | Sequence[float] | Optimizer


class Schedule(ABC):
    """A learning rate as a function of time, for each parameter group."""

    def __init__(self, base: Base, *, interval: Interval = "step") -> None:
        """Take the rates at which the groups start: a number, one for each group, or an optimiser.

        `interval` says what `t` counts; a Trainer reads it.
        """
        if interval not in ("step", "epoch"):
            raise suggest("schedule", "interval", interval, ("step", "epoch"))
        self.interval = interval
        if isinstance(base, Optimizer):
            groups = base.param_groups
            self.base_lrs = [float(g.setdefault("initial_lr", g["lr"])) for g in groups]
        elif isinstance(base, Sequence):
            self.base_lrs = [check_lr(lr) for lr in base]
        else:
            self.base_lrs = [check_lr(base)]

    @abstractmethod
    def _value(self, base: float, t: int) -> float:
        """Return the rate at time t of a group that starts with `base`."""

    def lr_at(self, step: int, group: int = 0) -> float:
        """Return the learning rate at a step or epoch >= 0."""
        if step < 0:
            raise ValueError(f"[schedule] expected a step >= 0, got {step}. Count from 0.")
        return self._value(self.base_lrs[group], step)

    def apply(self, optimizer: Optimizer, step: int) -> None:
        """Set the learning rates of an optimiser's groups for a step or epoch."""
        groups = optimizer.param_groups
        if len(self.base_lrs) not in (1, len(groups)):
            raise ValueError(
                f"[schedule] expected {len(self.base_lrs)} parameter groups, got {len(groups)}. "
                "Build the schedule from this optimiser."
            )
        for index, options in enumerate(groups):
            options["lr"] = self.lr_at(step, index if len(self.base_lrs) > 1 else 0)


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"[schedule] expected {name} >= 1, got {value}. Change it.")
    return value


class StepLR(Schedule):
    """lr = base gamma^floor(t / step_size)."""

    def __init__(
        self, base: Base, step_size: int, gamma: float = 0.1, *, interval: Interval = "step"
    ) -> None:
        super().__init__(base, interval=interval)
        self.step_size, self.gamma = _positive("step_size", step_size), gamma

    def _value(self, base: float, t: int) -> float:
        return float(base * self.gamma ** (t // self.step_size))


class CosineAnnealingLR(Schedule):
    """lr = eta_min + (base - eta_min) (1 + cos(pi t / T_max)) / 2; it rises again after T_max."""

    def __init__(
        self, base: Base, T_max: int, eta_min: float = 0.0, *, interval: Interval = "step"
    ) -> None:
        super().__init__(base, interval=interval)
        self.T_max, self.eta_min = _positive("T_max", T_max), eta_min

    def _value(self, base: float, t: int) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * t / self.T_max)) / 2


class LinearWarmup(Schedule):
    """lr rises linearly from start_factor base at t = 0 to base at t = warmup_steps.

    PyTorch's LinearLR with end_factor 1 and total_iters = warmup_steps.
    """

    def __init__(
        self,
        base: Base,
        warmup_steps: int,
        start_factor: float = 1 / 3,
        *,
        interval: Interval = "step",
    ) -> None:
        super().__init__(base, interval=interval)
        self.warmup_steps = _positive("warmup_steps", warmup_steps)
        self.start_factor = start_factor

    def _value(self, base: float, t: int) -> float:
        rise = (1 - self.start_factor) * min(t, self.warmup_steps) / self.warmup_steps
        return base * (self.start_factor + rise)


class WarmupCosine(Schedule):
    """Linear warm-up over warmup_steps, then a cosine down to eta_min at total_steps, where it stays."""

    def __init__(
        self,
        base: Base,
        warmup_steps: int,
        total_steps: int,
        eta_min: float = 0.0,
        start_factor: float = 1 / 3,
        *,
        interval: Interval = "step",
    ) -> None:
        super().__init__(base, interval=interval)
        if total_steps <= warmup_steps:
            raise ValueError(
                f"[schedule] expected total_steps > warmup_steps, got {total_steps} <= "
                f"{warmup_steps}. Train longer or warm up shorter."
            )
        self.warmup = LinearWarmup(1.0, warmup_steps, start_factor)
        self.cosine = CosineAnnealingLR(1.0, total_steps - warmup_steps, eta_min)

    def _value(self, base: float, t: int) -> float:
        after = t - self.warmup.warmup_steps
        if after < 0:
            return self.warmup._value(base, t)
        return self.cosine._value(base, min(after, self.cosine.T_max))


class LambdaLR(Schedule):
    """lr = base lr_lambda(t)."""

    def __init__(
        self, base: Base, lr_lambda: Callable[[int], float], *, interval: Interval = "step"
    ) -> None:
        super().__init__(base, interval=interval)
        self.lr_lambda = lr_lambda

    def _value(self, base: float, t: int) -> float:
        return base * self.lr_lambda(t)
