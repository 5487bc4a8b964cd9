"""Taking the times: candidates in turns, round after round, with the other side at rest.

Three things make two candidates unequal though each is timed rightly. Slow phases of the machine:
so they take turns within each round. Caches, page tables and clocks that the other left behind: the
first call after each change is dropped. Thread pools that spin on after their last call: a pause
lies between candidates of different pools. Rounds in which other processes used the CPU are taken
again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from trine.bench.guard import Usage, Watch
from trine.bench.results import BenchResult

ROUNDS = 7
"""Quiet rounds that are wanted."""
MOST = 2 * ROUNDS
"""Rounds after which the quiet ones must do."""
FEWEST = 3
"""Quiet rounds that are enough; with fewer, all rounds count and the row says so."""
PAUSE = 0.02
"""Seconds between candidates of different thread pools: idle OpenMP threads spin up to about ten
milliseconds, and each side waits as it does in its users' hands."""
PAUSES = {"blas": 0.15}
"""After a pool that spins longer: OpenBLAS's idle threads use the CPU for about 110 ms, and whoever
shares it with them in that time takes ten times as long."""


def pool_of(backend: str, kernel: str = "") -> str:
    """Return whose threads a backend's kernel runs on: its own, or BLAS's."""
    return "blas" if backend == "numpy" or kernel in ("reference", "blas") else backend


class Timed(Protocol):
    """What can be timed."""

    pool: str
    """Whose threads it runs on."""
    result: BenchResult

    def ready(self) -> AbstractContextManager[None]:
        """Return a context in which `call` runs what is to be timed."""

    def call(self) -> object:
        """Do the work once and wait until it is done."""


Tick = Callable[[], None]


def time_together(candidates: Sequence[Timed], seconds: float, tick: Tick = lambda: None) -> None:
    """Time candidates in turns and leave the rounds that count in their results."""
    taken: list[list[tuple[list[float], Usage]]] = [[] for _ in candidates]
    pool = "blas"  # where what they are checked against was computed
    for number in range(MOST):
        for candidate, rounds in zip(candidates, taken, strict=True):
            if candidate.pool != pool:
                time.sleep(PAUSES.get(pool, PAUSE))
                pool = candidate.pool
            with candidate.ready():
                rounds.append(_round(candidate, seconds / ROUNDS))
            tick()
        quiet = min((sum(not u.spoiled for _, u in rounds) for rounds in taken), default=ROUNDS)
        if number + 1 >= ROUNDS and quiet >= ROUNDS:
            break
    for candidate, rounds in zip(candidates, taken, strict=True):
        _keep(candidate.result, rounds)


def _round(candidate: Timed, seconds: float) -> tuple[list[float], Usage]:
    candidate.call()  # caches and thread pools change hands here
    times: list[float] = []
    watch = Watch()
    end = time.perf_counter() + seconds
    while True:
        before = time.perf_counter()
        candidate.call()
        after = time.perf_counter()
        times.append(after - before)
        if after >= end:
            return times, watch.stop()


def _keep(result: BenchResult, rounds: Sequence[tuple[list[float], Usage]]) -> None:
    quiet = [(times, usage) for times, usage in rounds if not usage.spoiled]
    result.disturbed = len(quiet) < min(FEWEST, len(rounds))
    kept = list(rounds) if result.disturbed else quiet
    result.rejected = len(rounds) - len(kept)
    result.rounds = [times for times, _ in kept]
    calls = sum(len(times) for times, _ in kept)
    result.faults = sum(usage.faults for _, usage in kept) / max(calls, 1)
