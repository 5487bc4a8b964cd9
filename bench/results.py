"""What a benchmark found: one row for each kernel, peer or training step, and the whole report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trine.bench.limits import Roofs

SAMPLES = 201
"""A file keeps at most so many quantiles of a row's times."""


@dataclass
class BenchResult:
    """The times of one candidate on one shape, in seconds a call; or why there are none."""

    op: str
    backend: str
    kernel: str
    dtype: str
    shape: str
    arrays: tuple[str, ...] = ()
    """The inputs' shapes."""
    side: str = "trine"
    """ "trine", or the peer's name."""
    rounds: list[list[float]] = field(default_factory=list)
    """The times of each round that counts."""
    rejected: int = 0
    """Rounds that others spoiled and that do not count."""
    disturbed: bool = False
    """Whether too few rounds were quiet, so that spoiled ones had to count."""
    faults: float = 0.0
    """Page faults a call."""
    flops: float = 0
    """Arithmetic of the op by its definition."""
    work: float = 0
    """Arithmetic that the kernel does, where it declares less."""
    bytes: float = 0
    roof: float | None = None
    """The least time that the machine allows, in seconds; None where that was not measured."""
    bound: str = ""
    peak_memory: int | None = None
    """Bytes of a process that does only this (training steps)."""
    error: str = ""

    @property
    def times(self) -> list[float]:
        """All times that count."""
        return [t for times in self.rounds for t in times]

    @property
    def round_medians(self) -> list[float]:
        """The median of each round: the independent observations, as slow phases last."""
        return [float(np.median(times)) for times in self.rounds]

    def percentile(self, q: float) -> float:
        """Return a percentile of the times."""
        return float(np.percentile(self.times, q))

    @property
    def median(self) -> float:
        """The median time."""
        return self.percentile(50)

    @property
    def gflops(self) -> float:
        """Arithmetic of the op a second, in 1e9."""
        return self.flops / self.median / 1e9

    @property
    def gbytes(self) -> float:
        """Bytes of inputs and outputs a second, in 1e9."""
        return self.bytes / self.median / 1e9

    @property
    def percent(self) -> float | None:
        """The roof's time in percent of the median."""
        return None if self.roof is None or not self.roof else 100 * self.roof / self.median

    def fail(self, why: str) -> None:
        """Take the times away and say why."""
        self.error = why
        self.rounds.clear()

    @property
    def key(self) -> tuple[str, str, str]:
        """What rows that compete share."""
        return self.op, self.shape, self.dtype

    @property
    def name(self) -> str:
        """Backend and kernel, as people read them."""
        return self.backend if not self.kernel else f"{self.backend} {self.kernel}"


@dataclass
class Report:
    """All rows of a run, with what they depend on."""

    results: list[BenchResult]
    environment: dict[str, Any]
    roofs: Roofs | None
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[BenchResult]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    @property
    def peers(self) -> list[str]:
        """The peers that have a time."""
        found = {r.side: None for r in self.results if r.side != "trine" and r.rounds}
        return list(found)

    def ratio(self, row: BenchResult, peer: str) -> float | None:
        """Return how many times as fast as a peer a row is; None without both times."""
        if not row.rounds:
            return None
        other = next(
            (r for r in self.results if r.side == peer and r.key == row.key and r.rounds), None
        )
        return None if other is None else other.median / row.median
