"""What a run comes to, and the clock that measures it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from trine.backends import Backend


@dataclass
class Summary:
    """The result of `Trainer.fit`; values that were not measured are None.

    Metrics beside the accuracy stand in `metrics`; test results are those of the weights that the
    model has now. `seconds` leaves out `compile_seconds`, which is what kernels took to compile or
    load; both are of this process. `samples_per_second` is that of training steps alone. `stopped`
    says why training ended early, `interrupted` that a signal did it; `replayed_steps` counts those
    that a captured step did; `data_on_device` is whether the data sets stayed on the device, so that
    no batch was copied there; `precision` is that of products (`trine.precision`). `fallbacks` counts
    by op and reason how often the reference ran although kernels are registered.
    """

    epochs: int = 0
    steps: int = 0
    replayed_steps: int = 0
    train_loss: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    seconds: float = 0.0
    samples_per_second: float = 0.0
    compile_seconds: float = 0.0
    stopped: str | None = None
    interrupted: bool = False
    data_on_device: bool = False
    best: float | None = None
    best_epoch: int | None = None
    precision: str = "fp32"
    fallbacks: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


class Clock:
    """Times of a run, compilation apart, and what the backend counted since it began."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.compiles = hasattr(backend, "compile_seconds")
        self._started = time.perf_counter()
        self._compiled_before = self._compile_total()
        self._fallbacks_before = Counter(backend.counters.fallbacks)
        self._samples = 0
        self._train_seconds = 0.0

    def _compile_total(self) -> float:
        return float(self.backend.compile_seconds()) if self.compiles else 0.0  # type: ignore[attr-defined]

    def compile_seconds(self) -> float:
        """Return how long kernels took to compile or load since the start."""
        return self._compile_total() - self._compiled_before

    @contextmanager
    def training(self, samples: int) -> Iterator[None]:
        """Count the block as training on so many samples."""
        started, compiled = time.perf_counter(), self._compile_total()
        yield
        spent = time.perf_counter() - started - (self._compile_total() - compiled)
        self._train_seconds += max(spent, 0.0)
        self._samples += samples

    def samples_per_second(self) -> float:
        """Return the samples trained on in a second of training steps."""
        return self._samples / self._train_seconds if self._train_seconds > 0 else 0.0

    def report(self) -> dict[str, float]:
        """Return the numbers for timing.jsonl."""
        return {
            "samples_per_second": round(self.samples_per_second(), 1),
            "compile_seconds": round(self.compile_seconds(), 4),
        }

    def summary(self) -> dict[str, Any]:
        """Return the fields of a summary that are measured here."""
        compiling = self.compile_seconds()
        fallbacks = self.backend.counters.fallbacks - self._fallbacks_before
        return {
            "seconds": max(time.perf_counter() - self._started - compiling, 0.0),
            "samples_per_second": self.samples_per_second(),
            "compile_seconds": compiling,
            "precision": self.backend.precision,
            "fallbacks": {f"{op}: {reason}": n for (op, reason), n in fallbacks.items()},
        }
