"""Callbacks: what a user may hang into training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trine.training.trainer import Trainer


class Callback:
    """Override what is of interest; every method does nothing by default.

    A method may set `trainer.stop_reason` to end training after the current step or epoch.
    """

    def on_train_start(self, trainer: Trainer) -> None:
        """Before the first step, after resuming."""

    def on_step_end(self, trainer: Trainer) -> None:
        """After each optimiser step; `trainer.step` counts them."""

    def on_evaluate(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """After each evaluation."""

    def on_epoch_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """After each epoch, before its checkpoint is written."""

    def on_train_end(self, trainer: Trainer) -> None:
        """At the end, however it came about, unless an error is on its way."""


class StopAt(Callback):
    """Stop when a metric reaches a value: at least for accuracies, at most for losses."""

    def __init__(self, metric: str, value: float) -> None:
        self.metric = metric
        self.value = value

    def on_epoch_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Compare and stop."""
        if self.metric not in metrics:
            raise ValueError(
                f"[StopAt] expected a metric among {', '.join(metrics)}, got {self.metric!r}. Correct it."
            )
        reached = metrics[self.metric]
        if reached <= self.value if self.metric.endswith("loss") else reached >= self.value:
            trainer.stop_reason = f"{self.metric} reached {self.value:g}"
