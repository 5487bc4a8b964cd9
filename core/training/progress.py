"""Progress for people, on stderr: a bar on a terminal or in a notebook, plain lines in a log.

stdout is left to results.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

from trine.errors import suggest

KINDS = ("auto", "bar", "notebook", "lines", "none")

BAR_EVERY = 0.1
NOTEBOOK_EVERY = 0.25
LINE_EVERY = 5.0
COMPILE_NOTE_AFTER = 0.7
"""Seconds. A first step that takes longer is compiling; loading from the cache is quicker."""


class Progress(Protocol):
    """What a trainer tells."""

    def start(self, epochs: int, steps: int) -> None:
        """The run begins: `steps` of an epoch."""

    def due(self) -> bool:
        """Whether enough time has passed for the next `step` to show."""

    def step(self, epoch: int, step: int, results: Mapping[str, float], rate: float) -> None:
        """`step` steps of an epoch (counted from 1) are done, at so many samples a second."""

    def epoch(self, epoch: int, results: Mapping[str, float], seconds: float) -> None:
        """An epoch is done."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def close(self) -> None:
        """The run is over."""


def shown(results: Mapping[str, float]) -> str:
    """Return results as text for a line."""
    return "  ".join(
        f"{name.replace('_', ' ')} {value:.2%}"
        if name.endswith("accuracy") and not math.isnan(value)
        else f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in results.items()
    )


class Silent:
    """Shows nothing."""

    def start(self, epochs: int, steps: int) -> None:
        """Nothing."""

    def due(self) -> bool:
        """Never."""
        return False

    def step(self, epoch: int, step: int, results: Mapping[str, float], rate: float) -> None:
        """Nothing."""

    def epoch(self, epoch: int, results: Mapping[str, float], seconds: float) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """A plain line every few seconds and after each epoch: what a log file can hold."""

    every = LINE_EVERY

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream
        self.epochs = self.steps = 0
        self._shown = 0.0

    def start(self, epochs: int, steps: int) -> None:
        """Remember the totals."""
        self.epochs, self.steps = epochs, steps
        self._shown = time.monotonic()

    def due(self) -> bool:
        """Every few seconds."""
        return time.monotonic() - self._shown >= self.every

    def step(self, epoch: int, step: int, results: Mapping[str, float], rate: float) -> None:
        """Show a line."""
        self._shown = time.monotonic()
        self.note(f"{self._place(epoch, step)}  {shown(results)}  {rate:,.0f} samples/s")

    def _place(self, epoch: int, step: int) -> str:
        return f"epoch {epoch}/{self.epochs}  step {step}/{self.steps}"

    def epoch(self, epoch: int, results: Mapping[str, float], seconds: float) -> None:
        """Show an epoch's results."""
        self._shown = time.monotonic()
        self.note(f"epoch {epoch}/{self.epochs}  {shown(results)}  {seconds:.1f} s")

    def note(self, text: str) -> None:
        """Show a line; the stream is looked up late, since tests and notebooks replace it."""
        print(text, file=self.stream or sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is open."""


class Notebook(Lines):
    """One line of a notebook's output that is rewritten in place."""

    every = NOTEBOOK_EVERY
    width = 30

    def __init__(self) -> None:
        super().__init__()
        self._handle: Any = None

    def step(self, epoch: int, step: int, results: Mapping[str, float], rate: float) -> None:
        """Rewrite the bar."""
        self._shown = time.monotonic()
        full = self.width * step // max(self.steps, 1)
        bar = "█" * full + "░" * (self.width - full)
        self._write(f"{bar} {self._place(epoch, step)}  {shown(results)}  {rate:,.0f} samples/s")

    def _write(self, text: str) -> None:
        from IPython.display import display  # noqa: PLC0415  there is one where this class is used

        data = {"text/plain": text}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


class Bar:
    """A bar on a terminal, by Rich."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415  not needed for logs
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self.console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[results]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._task: Any = None
        self.epochs = self.steps = 0
        self._shown = 0.0

    def start(self, epochs: int, steps: int) -> None:
        """Show the bar: it spans all steps of all epochs."""
        self.epochs, self.steps = epochs, steps
        self._task = self._bar.add_task("", total=epochs * steps, results="")
        self._bar.start()

    def due(self) -> bool:
        """Ten times a second."""
        return time.monotonic() - self._shown >= BAR_EVERY

    def step(self, epoch: int, step: int, results: Mapping[str, float], rate: float) -> None:
        """Move the bar."""
        self._shown = time.monotonic()
        self._bar.update(
            self._task,
            description=f"epoch {epoch}/{self.epochs}",
            completed=(epoch - 1) * self.steps + step,
            results=f"{shown(results)}  {rate:,.0f} samples/s",
        )

    def epoch(self, epoch: int, results: Mapping[str, float], seconds: float) -> None:
        """Leave a line above the bar."""
        self.note(f"epoch {epoch}/{self.epochs}  {shown(results)}  {seconds:.1f} s")
        self._bar.update(self._task, completed=epoch * self.steps)

    def note(self, text: str) -> None:
        """Show a line above the bar."""
        self.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def in_notebook() -> bool:
    """Return whether a Jupyter kernel runs this process."""
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def make_progress(kind: str) -> Progress:
    """Return the progress of a kind; "auto" looks where stderr goes. Raises ValueError."""
    if kind not in KINDS:
        raise suggest("progress", "kind", kind, KINDS)
    if kind == "auto":
        kind = "notebook" if in_notebook() else "bar" if sys.stderr.isatty() else "lines"
    if kind == "none":
        return Silent()
    if kind == "bar":
        return Bar()
    return Notebook() if kind == "notebook" else Lines()


class CompileNote:
    """Around the first step: says once that kernels are being compiled, if it takes so long."""

    def __init__(self, progress: Progress, after: float = COMPILE_NOTE_AFTER) -> None:
        self._timer = threading.Timer(after, progress.note, ["compiling CPU kernels (once)..."])
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *exc: object) -> None:
        self._timer.cancel()
        self._timer.join()  # so that it does not speak into what follows
