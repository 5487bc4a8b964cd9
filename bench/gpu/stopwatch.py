"""Times on a GPU: CUDA events, both sides in turns, with a cold cache or in a row.

Ours and PyTorch both work in the default stream, so the same events time both. A cold call finds
the L2 cache full of something else: a buffer larger than it is written before each. That work also
keeps the device busy while the host prepares the call, so what is timed is the device's part. Steps
of training are timed in a row instead, where a host that is too slow counts, as it does for users.
Clocks are read before and after under load; where they moved by more than 3 % it is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from trine.bench.gpu import machine
from trine.bench.gpu.session import Session

Call = Callable[[], Any]

FLUSH = 256 << 20
"""Bytes, several times the L2 cache of any GPU."""
ROUNDS = 4
IN_A_ROW = 20
DRIFT = 0.03
BUSY = 400
"""Buffers written to bring the clocks up: some tens of milliseconds."""


@dataclass(frozen=True)
class Timed:
    """What can be timed, and a context in which it is to be called."""

    call: Call
    ready: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(frozen=True)
class Times:
    """Microseconds a call."""

    median: float
    low: float
    """The tenth percentile."""
    high: float
    """The ninetieth."""
    calls: int
    clock: float | None
    """MHz of the multiprocessors afterwards."""
    drifted: bool
    """Whether the clocks kept moving."""


class Stopwatch:
    """Times calls on the session's device."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._cuda = session.cuda
        self._dry = session.dry_run
        xp = session.backend.xp
        self._buffer = xp.zeros(4096 if self._dry else FLUSH, dtype=np.uint8)

    def cold(self, calls: Mapping[str, Timed], seconds: float = 0.1) -> dict[str, Times]:
        """Return the times of single calls, the cache cold; `seconds` for each."""
        return self._stable(calls, lambda call: self._cold_round(call, seconds / ROUNDS))

    def in_a_row(self, calls: Mapping[str, Timed], seconds: float = 0.4) -> dict[str, Times]:
        """Return the times a call of many that follow each other."""
        return self._stable(calls, lambda call: self._row_round(call, seconds / ROUNDS))

    def _stable(
        self, calls: Mapping[str, Timed], one_round: Callable[[Call], list[float]]
    ) -> dict[str, Times]:
        for _ in range(3):
            before = self._clock()
            taken: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(1 if self._dry else ROUNDS):
                for name, timed in calls.items():
                    with timed.ready():
                        taken[name] += one_round(timed.call)
            after = self._clock()
            drifted = (
                before is not None
                and after is not None
                and (abs(after - before) > DRIFT * max(after, before))
            )
            if not drifted:
                break
        return {name: _summary(times, after, drifted) for name, times in taken.items()}

    def _clock(self) -> float | None:
        """Return the clock under load; None where nobody tells."""
        if self._dry:
            return None
        for _ in range(BUSY):
            self._buffer.fill(1)
        return machine.clocks().get("clocks.sm")

    def _cold_round(self, call: Call, seconds: float) -> list[float]:
        call()  # caches change hands here
        once = self._timed([call])[0]
        count = 1 if self._dry else int(np.clip(seconds / (2e-6 * once + 2e-4), 5, 200))
        return self._timed([call] * count)

    def _timed(self, calls: list[Call]) -> list[float]:
        """Return the microseconds of each call."""
        pairs = []
        for call in calls:
            for _ in range(2):  # long enough for the host to be ahead
                self._buffer.fill(0)
            pairs.append(self._between(call))
        self._cuda.get_current_stream().synchronize()
        return [1e3 * self._cuda.get_elapsed_time(start, end) for start, end in pairs]

    def _row_round(self, call: Call, seconds: float) -> list[float]:
        count = 1 if self._dry else IN_A_ROW

        def several() -> None:
            for _ in range(count):
                call()

        several()
        found: list[float] = []
        while not found or (sum(found) * count < 1e6 * seconds and not self._dry):
            start, end = self._between(several)
            end.synchronize()
            found.append(1e3 * self._cuda.get_elapsed_time(start, end) / count)
        return found

    def _between(self, call: Call) -> tuple[Any, Any]:
        start, end = self._cuda.Event(), self._cuda.Event()
        start.record()
        call()
        end.record()
        return start, end


def _summary(times: list[float], clock: float | None, drifted: bool) -> Times:
    low, median, high = (float(v) for v in np.percentile(times, (10, 50, 90)))
    return Times(median, low, high, len(times), clock, drifted)
