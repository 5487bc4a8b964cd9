"""Which epoch was best, and whether it is time to give up waiting for a better one."""

from __future__ import annotations

import math
from typing import Any, Literal

Mode = Literal["min", "max"]


class Monitor:
    """Watches one number an epoch. NaN is never best; patience counts epochs without improvement."""

    def __init__(
        self,
        name: str,
        mode: Mode | None = None,
        patience: int | None = None,
        min_delta: float = 0.0,
    ) -> None:
        """Without `mode`, a name that ends in loss shall fall and one that ends in accuracy rise.

        Raises ValueError for other names without a mode, and for values out of range.
        """
        if mode is None and name.endswith(("loss", "accuracy")):
            mode = "min" if name.endswith("loss") else "max"
        if mode not in ("min", "max"):
            raise ValueError(
                f"[monitor] expected mode 'min' or 'max' for {name!r}, got {mode!r}. Say which is better."
            )
        if patience is not None and patience < 1:
            raise ValueError(
                f"[monitor] expected patience >= 1, got {patience}. Or None for never."
            )
        if not min_delta >= 0:
            raise ValueError(f"[monitor] expected min_delta >= 0, got {min_delta}. Change it.")
        self.name, self.mode, self.patience, self.min_delta = name, mode, patience, min_delta
        self.best: float | None = None
        self.best_epoch = 0
        self.best_results: dict[str, float] = {}
        self.waited = 0

    def see(self, results: dict[str, float], epoch: int) -> bool:
        """Take an epoch's results; return whether they are the best so far."""
        value = results.get(self.name, math.nan)
        better = not math.isnan(value) and (
            self.best is None
            or (value < self.best - self.min_delta and self.mode == "min")
            or (value > self.best + self.min_delta and self.mode == "max")
        )
        if better:
            self.best, self.best_epoch = value, epoch
            self.best_results = dict(results)
            self.waited = 0
        else:
            self.waited += 1
        return better

    def exhausted(self) -> str | None:
        """Return why to stop, or None as long as patience lasts."""
        if self.patience is None or self.waited < self.patience:
            return None
        if self.best is None:
            return f"no {self.name} was a number in {self.waited} epochs"
        return f"no better {self.name} than {self.best:.6g} for {self.waited} epochs"

    def state(self) -> dict[str, Any]:
        """Return what `load_state` needs to go on."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_results": self.best_results,
            "waited": self.waited,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for name in self.state():
            setattr(self, name, state[name])
