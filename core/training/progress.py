"""Progress on stderr: a bar on a terminal or in a notebook, plain lines in a log, or nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from trine.errors import suggest

PLAIN_INTERVAL = 10.0
"""Seconds between the lines of a log."""


class Silent:
    """Shows nothing."""

    def start(self, epochs: int, steps: int, epoch: int, step: int) -> None:
        """Begin: so many epochs of so many batches, of which some are done."""

    def note(self, text: str) -> None:
        """Say something once."""

    def advance(self, epoch: int, batch: int, loss: float | None) -> None:
        """A batch is done; `loss` is the epoch's mean so far, when it was read."""

    def epoch_end(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch is done."""

    def stop(self) -> None:
        """Clean up; may be called twice."""


def _line(epoch: int, epochs: int, metrics: Mapping[str, float]) -> str:
    parts = [
        f"{name.replace('_', ' ')} {value:.2%}"
        if "accuracy" in name
        else f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in metrics.items()
    ]
    return f"epoch {epoch + 1}/{epochs}: {', '.join(parts)}"


class Plain(Silent):
    """Lines for logs: one an epoch, and one every few seconds between."""

    def __init__(self, console: Any) -> None:
        self.console = console
        self.epochs = self.steps = 0
        self._spoke = time.monotonic()

    def start(self, epochs: int, steps: int, epoch: int, step: int) -> None:
        self.epochs, self.steps = epochs, steps

    def note(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def advance(self, epoch: int, batch: int, loss: float | None) -> None:
        now = time.monotonic()
        if now - self._spoke >= PLAIN_INTERVAL:
            self._spoke = now
            shown = "" if loss is None else f", train loss {loss:.4f}"
            self.note(f"epoch {epoch + 1}/{self.epochs}, batch {batch}/{self.steps}{shown}")

    def epoch_end(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._spoke = time.monotonic()
        self.note(_line(epoch, self.epochs, metrics))


class Bar(Silent):
    """A Rich bar over all batches of the run, and a line for each epoch above it."""

    def __init__(self, console: Any) -> None:
        from rich.progress import (  # noqa: PLC0415  only where a bar is shown
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            console=console,
            transient=True,
        )
        self.task: Any = None
        self.epochs = self.steps = 0

    def start(self, epochs: int, steps: int, epoch: int, step: int) -> None:
        self.epochs, self.steps = epochs, steps
        self.task = self.progress.add_task(
            f"epoch {epoch + 1}/{epochs}",
            total=epochs * steps,
            completed=epoch * steps + step,
            loss="",
        )
        self.progress.start()

    def note(self, text: str) -> None:
        self.progress.console.print(text, highlight=False, markup=False)

    def advance(self, epoch: int, batch: int, loss: float | None) -> None:
        fields = {} if loss is None else {"loss": f"train loss {loss:.4f}"}
        self.progress.update(
            self.task,
            completed=epoch * self.steps + batch,
            description=f"epoch {epoch + 1}/{self.epochs}",
            **fields,
        )

    def epoch_end(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self.note(_line(epoch, self.epochs, metrics))

    def stop(self) -> None:
        self.progress.stop()


def make_progress(kind: str) -> Silent:
    """Return what "auto" or "none" means here. Raises ValueError for anything else."""
    if kind == "none":
        return Silent()
    if kind != "auto":
        raise suggest("progress", "way to show progress", kind, ("auto", "none"))
    from rich.console import Console  # noqa: PLC0415  only where progress is shown

    console = Console(stderr=True)
    return Bar(console) if console.is_terminal or console.is_jupyter else Plain(console)
