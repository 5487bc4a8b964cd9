"""What a stretch of code spends its time on: every op with its kernel, calls, bytes and copies.

    with trine.profile() as found:
        with found.phase("forward"):
            loss = F.cross_entropy(model(x), y)
        with found.phase("backward"):
            loss.backward()
    print(found)
    found.write_trace("step.json")  # for chrome://tracing or ui.perfetto.dev

Profiling sets the one observer that all backends ask before an op, so nothing else of the package
knows of it, and code that is not profiled pays a comparison with None. Ops that a reference calls
are counted as its own time. On a GPU every op is waited for, so that its time is its own; the step
as a whole then takes longer than without.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from trine import atomic
from trine.backends import Backend, dispatch
from trine.backends.op import OpSpec


@dataclass(frozen=True)
class Event:
    """One call of an op."""

    op: str
    backend: str
    kernel: str
    phase: str
    start: float
    """Seconds since the profile began."""
    seconds: float
    out_bytes: int
    copies: int
    """Arrays that had to be made contiguous first."""
    fallback: bool
    """Whether kernels exist but none served the call."""
    shapes: tuple[str, ...]
    thread: int


@dataclass
class Row:
    """All calls of an op by one kernel in one phase."""

    phase: str
    op: str
    backend: str
    kernel: str
    calls: int = 0
    seconds: float = 0.0
    out_bytes: int = 0
    copies: int = 0
    fallbacks: int = 0


class profile:  # noqa: N801  called like a function, as in `with trine.profile() as found:`
    """Record every op inside the block.

    `events` are the calls in order, `rows()` their sums by phase, op and kernel, the longest first;
    `seconds` is the time of the whole block, `peak_bytes` the most that was in use in the backends'
    pools after any op. Printing a profile shows a table. Profiles do not nest: RuntimeError.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.phases: list[tuple[str, float, float]] = []
        """(name, start, seconds) of each phase."""
        self.seconds = 0.0
        self.peak_bytes = 0
        self._began = 0.0
        self._phase = ""
        self._inside = threading.local()

    def __enter__(self) -> profile:
        if dispatch.observer is not None:
            raise RuntimeError(
                "[profile] expected no profile around this one, but ops are being observed already. "
                "Use phases of the outer profile instead."
            )
        dispatch.observe(self._observe)
        self._began = time.perf_counter()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.seconds += time.perf_counter() - self._began
        dispatch.observe(None)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Give the ops inside the block a phase, such as "forward"."""
        before, self._phase = self._phase, name
        start = time.perf_counter()
        try:
            yield
        finally:
            self._phase = before
            self.phases.append((name, start - self._began, time.perf_counter() - start))

    def _observe(
        self,
        backend: Backend,
        spec: OpSpec,
        run: Callable[..., Any],
        arrays: tuple[Any, ...],
        attributes: dict[str, Any],
    ) -> Any:
        if getattr(self._inside, "op", False):
            return run(backend, arrays, attributes)  # part of the op whose reference calls it
        counters = backend.counters
        copies, fallbacks = counters.copies, counters.fallbacks.total()
        self._inside.op = True
        start = time.perf_counter()
        try:
            out = run(backend, arrays, attributes)
            if backend.device != "cpu":
                backend.synchronize()
        finally:
            seconds = time.perf_counter() - start
            self._inside.op = False
        outs = out if isinstance(out, tuple) else (out,)
        self.peak_bytes = max(self.peak_bytes, backend.allocator.stats()["used"])
        self.events.append(
            Event(
                spec.name, backend.name, backend.ran.get(spec.name, "reference"), self._phase,
                start - self._began, seconds, sum(getattr(o, "nbytes", 0) for o in outs),
                counters.copies - copies, counters.fallbacks.total() > fallbacks,
                tuple(str(tuple(a.shape)) for a in arrays if hasattr(a, "shape")),
                threading.get_ident(),
            )
        )  # fmt: skip
        return out

    def rows(self) -> list[Row]:
        """Return the sums by phase, op and kernel, the longest first."""
        found: dict[tuple[str, str, str, str], Row] = {}
        for e in self.events:
            key = (e.phase, e.op, e.backend, e.kernel)
            row = found.setdefault(key, Row(*key))
            row.calls += 1
            row.seconds += e.seconds
            row.out_bytes += e.out_bytes
            row.copies += e.copies
            row.fallbacks += e.fallback
        return sorted(found.values(), key=lambda row: -row.seconds)

    @property
    def outside(self) -> float:
        """Seconds of the block spent in no op: Python, the tape, plain array functions."""
        return self.seconds - sum(e.seconds for e in self.events)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: the sums, not the single events."""
        return {
            "seconds": self.seconds,
            "outside_ops": self.outside,
            "peak_bytes": self.peak_bytes,
            "rows": [dict(vars(row)) for row in self.rows()],
        }

    def trace(self) -> dict[str, Any]:
        """Return the events in the Trace Event Format of Chrome (catapult)."""
        threads = {t: i + 1 for i, t in enumerate(dict.fromkeys(e.thread for e in self.events))}
        events: list[dict[str, Any]] = [
            {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "trine"}},
            {"name": "thread_name", "ph": "M", "pid": 1, "tid": 0, "args": {"name": "phases"}},
        ]
        events += [
            {"name": "thread_name", "ph": "M", "pid": 1, "tid": i, "args": {"name": f"ops {i}"}}
            for i in threads.values()
        ]
        events += [
            {"name": name, "cat": "phase", "ph": "X", "pid": 1, "tid": 0, "ts": start * 1e6,
             "dur": seconds * 1e6}
            for name, start, seconds in self.phases
        ]  # fmt: skip
        events += [
            {
                "name": e.op, "cat": "op", "ph": "X", "pid": 1, "tid": threads[e.thread],
                "ts": e.start * 1e6, "dur": e.seconds * 1e6,
                "args": {
                    "kernel": f"{e.backend} {e.kernel}", "shapes": " ".join(e.shapes),
                    "out_bytes": e.out_bytes, "copies": e.copies, "fallback": e.fallback,
                },
            }
            for e in self.events
        ]  # fmt: skip
        return {"traceEvents": events, "displayTimeUnit": "ms"}

    def write_trace(self, path: str | Path) -> None:
        """Write the trace for chrome://tracing or ui.perfetto.dev; replaces a file in one step."""
        atomic.write_text(Path(path), json.dumps(self.trace(), allow_nan=False) + "\n")

    def __str__(self) -> str:
        lines = [f"{'phase':10} {'op':28} {'kernel':18} {'calls':>6} {'ms':>10} {'share':>6}"]
        whole = self.seconds or 1.0
        for row in self.rows():
            kernel = f"{row.backend} {row.kernel}"
            lines.append(
                f"{row.phase:10} {row.op:28} {kernel:18} {row.calls:6} {1e3 * row.seconds:10.3f} "
                f"{100 * row.seconds / whole:5.1f}%"
            )
        lines.append(
            f"outside of ops {1e3 * self.outside:.3f} ms of {1e3 * self.seconds:.3f} ms; at most "
            f"{self.peak_bytes / 2**20:.1f} MiB in the backends' pools"
        )
        return "\n".join(lines)
