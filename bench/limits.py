"""What the machine can do at most, measured in this very process, and which time is too good.

A roof is the lower bound of a call's time: its multiplications at the peak of FMAs, or its bytes at
the bandwidth of the caches and the memory that can hold them, whichever takes longer. A kernel that
reports less than its roof did not do the work, or was not timed; it gets no number.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trine.backends import probe

MARGIN = 1.15
"""How far above the measured limit a rate may lie: clocks vary, and the measuring ends late."""

Rate = Callable[[], float]


@dataclass(frozen=True)
class Level:
    """A level of memory: how many bytes it holds for all threads, and its bytes a second."""

    name: str
    capacity: float
    bandwidth: float
    """Measured, with all threads or with one if that is more: starting them takes time."""
    limit: float
    """At least `bandwidth`: what threads reach that do not stand in each other's way."""


@dataclass(frozen=True)
class Roofs:
    """The measured limits of some threads."""

    threads: int
    peak: dict[str, float]
    """dtype -> operations a second, an FMA counting two."""
    peak_limit: dict[str, float]
    """At least `peak`: the number of threads times what one reaches alone."""
    levels: tuple[Level, ...]
    launch: float
    """Seconds to start and join all threads for nothing."""

    def level(self, nbytes: float) -> Level:
        """Return the fastest level that holds so many bytes."""
        return next((v for v in self.levels if nbytes <= v.capacity), self.levels[-1])

    def memory_seconds(self, nbytes: float) -> float:
        """Return the time of moving so many bytes at their level's measured bandwidth."""
        return nbytes / self.level(nbytes).bandwidth

    def compute_seconds(self, flops: float, dtype: str) -> float:
        """Return the time of so many operations at the measured peak."""
        return flops / self.peak[dtype]

    def seconds(self, flops: float, nbytes: float, dtype: str) -> float:
        """Return the roof: the longer of the two times."""
        return max(self.compute_seconds(flops, dtype), self.memory_seconds(nbytes))

    def bound(self, flops: float, nbytes: float, dtype: str) -> str:
        """Say what bounds a call: "latency", "compute" or "memory"."""
        if self.seconds(flops, nbytes, dtype) < self.launch:
            return "latency"
        is_compute = self.compute_seconds(flops, dtype) > self.memory_seconds(nbytes)
        return "compute" if is_compute else "memory"

    def too_fast(self, seconds: float, flops: float, nbytes: float, dtype: str) -> str | None:
        """Return why a time is physically impossible, or None if it is not.

        Bytes are charged level by level, the first ones to the fastest cache, so that a working set
        somewhat above a cache's size is not refused for being served by it mostly.
        """
        if flops / seconds > MARGIN * self.peak_limit[dtype]:
            return (
                f"{flops / seconds / 1e9:.4g} GFLOP/s is above the limit of this machine, "
                f"{self.peak_limit[dtype] / 1e9:.4g} with {self.threads} thread(s). If the kernel "
                "multiplies less than the op (e.g. Winograd), declare it with kernel(flops=...)"
            )
        least, left, below = 0.0, float(nbytes), 0.0
        for level in self.levels:
            part = min(left, level.capacity - below)
            least += part / level.limit
            left, below = left - part, level.capacity
        if least > MARGIN * seconds:
            return (
                f"{nbytes / seconds / 1e9:.4g} GB/s is above the limit of this machine for "
                f"{nbytes / 1e6:.3g} MB, {nbytes / least / 1e9:.4g} with {self.threads} thread(s)"
            )
        return None

    def merged(self, other: Roofs) -> Roofs:
        """Return the higher of two measurements, figure by figure."""
        return Roofs(
            self.threads,
            {d: max(v, other.peak[d]) for d, v in self.peak.items()},
            {d: max(v, other.peak_limit[d]) for d, v in self.peak_limit.items()},
            tuple(
                Level(a.name, a.capacity, max(a.bandwidth, b.bandwidth), max(a.limit, b.limit))
                for a, b in zip(self.levels, other.levels, strict=True)
            ),
            min(self.launch, other.launch),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        value = asdict(self)
        for level in value["levels"]:
            if level["capacity"] == float("inf"):
                level["capacity"] = None
        return value


def cache_sizes() -> dict[str, int]:
    """Return the bytes of L1, L2 (of one core) and L3, as Linux tells them, else common sizes."""
    sizes = {"L1": 32 << 10, "L2": 512 << 10, "L3": 8 << 20}
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind, level, size = (
                (folder / name).read_text().strip() for name in ("type", "level", "size")
            )
            if kind != "Instruction" and f"L{level}" in sizes:
                sizes[f"L{level}"] = int(size.rstrip("KMG")) * units.get(size[-1], 1)
        except (OSError, ValueError):
            continue
    return sizes


def _best(run: Rate, seconds: float, least: int = 3) -> float:
    """Return the highest rate over some time: interruptions only ever lower it."""
    best, end, count = 0.0, time.perf_counter() + seconds, 0
    while count < least or time.perf_counter() < end:
        start = time.perf_counter()
        done = run()
        best = max(best, done / (time.perf_counter() - start))
        count += 1
    return best


def _measure(seconds: float) -> tuple[dict[str, float], dict[str, float], float]:
    """Return peaks by dtype, bandwidths by level, and the time of an empty launch."""
    from trine.kernels.numba import calibrate  # noqa: PLC0415  numba comes in when it is asked for

    peaks = {}
    for dtype in ("float32", "float64"):
        calibrate.fma(10, dtype)  # compiles
        turns = int(2e-3 * 1e11 / calibrate.flops_per_turn(4))
        peaks[dtype] = _best(lambda turns=turns, dtype=dtype: calibrate.fma(turns, dtype), seconds)  # type: ignore[misc]
    count, caches = calibrate.thread_count(), cache_sizes()
    sizes = {
        "L1": caches["L1"] * count // 2,
        "L2": caches["L2"] * count // 2,
        "L3": max(min(caches["L3"] // 2, 32 << 20), 2 * caches["L2"] * count),
        "DRAM": min(max(4 * caches["L3"], 64 << 20), 512 << 20),
    }
    rates = {}
    for name, size in sizes.items():
        a, b = calibrate.buffers(size)
        repeat = max(2, (8 << 20) // size)
        calibrate.copy(1, a, b), calibrate.read(1, a)  # compiles, and brings the arrays in
        rates[name] = max(
            _best(lambda: calibrate.copy(repeat, a, b), seconds / 2, 2),  # noqa: B023
            _best(lambda: calibrate.read(2 * repeat, a), seconds / 2, 2),  # noqa: B023
        )
    calibrate.nothing()
    launch = 1 / _best(lambda: calibrate.nothing() or 1.0, seconds / 4, 20)
    return peaks, rates, launch


def measure(seconds: float = 0.06) -> Roofs:
    """Measure the limits of the threads in force now; takes about one to two seconds."""
    from trine.backends import threads  # noqa: PLC0415  numba comes in when it is asked for

    threads.choose_layer()
    count = threads.get_threads()
    peaks, rates, launch = _measure(seconds)
    alone_peaks, alone_rates = peaks, rates
    if count > 1:
        threads.set_threads(1)
        try:
            alone_peaks, alone_rates, _ = _measure(seconds)
        finally:
            threads.set_threads(count)
    caches = cache_sizes()
    capacity = {"L1": caches["L1"] * count, "L2": caches["L2"] * count, "L3": caches["L3"]}
    levels = tuple(
        Level(
            name,
            float(capacity.get(name, float("inf"))),
            max(rate, alone_rates[name]),
            # Two threads may saturate the memory, but a slow phase must not look like that.
            max(rate, alone_rates[name] * (min(count, 2) if name == "DRAM" else count)),
        )
        for name, rate in rates.items()
    )
    return Roofs(
        count,
        {d: max(v, alone_peaks[d]) for d, v in peaks.items()},
        {d: max(v, count * alone_peaks[d]) for d, v in peaks.items()},
        levels,
        launch,
    )


_known: dict[int, Roofs] = {}


def calibrate(again: bool = False) -> Roofs | None:
    """Return the limits of the CPU, measured once a process and number of threads.

    `again` measures once more and keeps the higher figures: a kernel is refused only if it beats
    those. None without numba, which the measuring needs, and with $TRINE_BENCH_ROOFS=off.
    """
    if os.environ.get("TRINE_BENCH_ROOFS") == "off" or not probe("numba").ok:
        return None
    from trine.backends import threads  # noqa: PLC0415  numba comes in when it is asked for

    threads.choose_layer()
    count = threads.get_threads()
    if count not in _known:
        _known[count] = measure()
    elif again:
        _known[count] = _known[count].merged(measure())
    return _known[count]
