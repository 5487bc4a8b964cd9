"""What came of training every system: the lines that `make models` writes and `trine models` shows."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Reached:
    """One figure of a run, what it is and what it is to reach; `wanted` is "" where nothing is asked."""

    what: str
    value: str
    wanted: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.value}" + (f" ({self.wanted})" if self.wanted else "")


@dataclass(frozen=True)
class Measured:
    """One system's run: where, how long, what it reached, and what fell short if anything did.

    `cpu_seconds` are those of all its threads together, 0.0 where they were not taken. `failed` is
    the end of what a run wrote that did not come to its end; it has reached nothing then.
    """

    name: str
    family: str
    data: str
    data_hash: str
    parameters: int
    backend: str
    epochs: int
    seconds: float
    reached: tuple[Reached, ...]
    short: str
    source: str
    commit: str
    cpu_seconds: float = 0.0
    failed: str = ""

    @property
    def result(self) -> str:
        """All figures as one line of text."""
        return "; ".join(map(str, self.reached)) if not self.failed else f"failed: {self.failed}"

    def as_dict(self) -> dict[str, Any]:
        """Return the line as plain values."""
        return dataclasses.asdict(self)


def read(file: Path = FILE) -> list[Measured]:
    """Return the lines of a file; those that ship with Trine by default."""
    lines = json.loads(file.read_text(encoding="utf-8"))
    return [Measured(**line | {"reached": _reached(line["reached"])}) for line in lines]


def _reached(figures: list[dict[str, str]]) -> tuple[Reached, ...]:
    return tuple(Reached(**figure) for figure in figures)
