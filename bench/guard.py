"""Rounds of timing, and which of them other processes spoiled.

A foreign process on one of two cores halves a parallel kernel, and nothing in the figure shows it.
Linux says how long all CPUs were busy (/proc/stat, with time stolen by the host of a virtual
machine) and how long this process was: the difference is the others'. It ticks in 10 ms, so rounds
shorter than some ticks are judged by whole ticks. Other virtual machines on the host stay unseen,
except through stolen time.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

STAT = Path("/proc/stat")
SHARE = 0.15
"""A round is spoiled if others used more than this share of a core."""
TICKS = 2
"""Ticks of /proc/stat that mean nothing."""


def _cpus() -> frozenset[int]:
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ())


def busy_seconds() -> float | None:
    """Return how long the CPUs of this process were busy since boot; None off Linux."""
    try:
        lines = STAT.read_text().splitlines()
        tick = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    total, ours = 0, _cpus()
    for line in lines:
        name, *fields = line.split() or [""]
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in ours:
            user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
            total += user + nice + system + irq + softirq + steal
    return total / tick


def page_faults() -> int:
    """Return how many pages this process was given so far; 0 where nobody counts."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt if resource is not None else 0


@dataclass(frozen=True)
class Usage:
    """What a stretch of time used."""

    wall: float
    own: float
    """CPU seconds of this process."""
    foreign: float | None
    """CPU seconds of all others on the same CPUs; None where that is unknown."""
    faults: int

    @property
    def spoiled(self) -> bool:
        """Whether others used enough of the CPUs to matter."""
        if self.foreign is None:
            return False
        return self.foreign > max(SHARE * self.wall, TICKS / os.sysconf("SC_CLK_TCK"))


class Watch:
    """Measures what is used from its making to `stop`."""

    def __init__(self) -> None:
        self._busy = busy_seconds()
        self._faults = page_faults()
        self._own = time.process_time()
        self._wall = time.perf_counter()

    def stop(self) -> Usage:
        """Return what was used since."""
        wall = time.perf_counter() - self._wall
        own = time.process_time() - self._own
        faults = page_faults() - self._faults
        busy = busy_seconds()
        foreign = None if busy is None or self._busy is None else busy - self._busy - own
        return Usage(wall, own, foreign, faults)
