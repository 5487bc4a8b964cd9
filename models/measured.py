"""What came of training every system: the lines that `make models` writes and `trine models` shows."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Measured:
    """One system's run: where, how long, what it reached, and what fell short if anything did.

    `cpu_seconds` are those of all its threads together, 0.0 where they were not taken.
    """

    name: str
    family: str
    data: str
    data_hash: str
    parameters: int
    backend: str
    epochs: int
    seconds: float
    result: str
    short: str
    source: str
    commit: str
    cpu_seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the line as plain values."""
        return dataclasses.asdict(self)


def read(file: Path = FILE) -> list[Measured]:
    """Return the lines of a file; those that ship with Trine by default."""
    return [Measured(**line) for line in json.loads(file.read_text(encoding="utf-8"))]
