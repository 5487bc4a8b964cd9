"""What a run comes to."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Summary:
    """The result of `Trainer.fit`; values that were not measured are None.

    Metrics beside the accuracy stand in `metrics`. `seconds` leaves out `compile_seconds`, which
    is what kernels took to compile or load. `stopped` says why training ended early.
    """

    epochs: int = 0
    steps: int = 0
    train_loss: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    seconds: float = 0.0
    samples_per_second: float = 0.0
    compile_seconds: float = 0.0
    stopped: str | None = None
    best: float | None = None
    best_epoch: int | None = None
    fallbacks: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
