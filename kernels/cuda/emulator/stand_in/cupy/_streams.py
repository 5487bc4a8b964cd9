"""Streams, events and stream capture: what is recorded, replayed and refused.

Work runs at once, whatever its stream. While the current stream captures, work is recorded instead
and runs when the graph is launched, on the arrays as they are then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ._errors import CUDARuntimeError, HiddenSyncError


@dataclass
class Machine:
    """What has crossed between host and device so far."""

    uploads: int = 0
    downloads: int = 0
    syncs: int = 0
    implicit_reads: int = 0
    launches: int = 0
    refuse_implicit_reads: bool = False
    """Whether `float(x)`, `bool(x)`, `x.item()` and their like raise HiddenSyncError."""

    def read_implicitly(self, what: str) -> None:
        """Count a download that no call names."""
        self.implicit_reads += 1
        refuse_in_capture(f"{what} (it copies to the host)")
        if self.refuse_implicit_reads:
            raise HiddenSyncError(f"[cupy] expected no hidden copy to the host, but got {what}.")

    def wait(self, what: str) -> None:
        """Count a synchronisation."""
        self.syncs += 1
        refuse_in_capture(what)


machine = Machine()


@dataclass
class Capture:
    """A capture under way."""

    work: list[Callable[[], None]] = field(default_factory=list)
    blocks: dict[Any, int] = field(default_factory=dict)
    """The pool's blocks that the graph touches, to their number of use."""
    invalid: str = ""


class Event:
    """A point in a stream."""

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        self.disable_timing = disable_timing
        self._time: float | None = None

    def record(self, stream: Stream | None = None) -> None:
        """Note the time."""
        self._time = time.perf_counter()

    def synchronize(self) -> None:
        """Wait for the event."""
        machine.wait("Event.synchronize")

    @property
    def done(self) -> bool:
        """Whether it has been reached."""
        refuse_in_capture("Event.done")
        return True


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Return the milliseconds between two events."""
    if start_event._time is None or end_event._time is None:
        raise CUDARuntimeError("cudaErrorInvalidResourceHandle: the event was never recorded")
    return 1e3 * (end_event._time - start_event._time)


class Stream:
    """A stream; `null` is the one that all others wait for."""

    null: Stream
    ptds: Stream

    def __init__(
        self,
        null: bool = False,
        non_blocking: bool = False,
        ptds: bool = False,
        priority: int | None = None,
    ) -> None:
        self.is_non_blocking = non_blocking
        self.priority = 0 if priority is None else priority
        self.ptr = 0 if null else 2 if ptds else id(self)
        self._capture: Capture | None = None
        self._before: list[Stream] = []

    def __enter__(self) -> Stream:
        self._before.append(get_current_stream())
        _current.stream = self
        return self

    def __exit__(self, *_: object) -> None:
        _current.stream = self._before.pop()

    def use(self) -> Stream:
        """Make it the current stream."""
        _current.stream = self
        return self

    def synchronize(self) -> None:
        """Wait until its work is done."""
        machine.wait("Stream.synchronize")

    @property
    def done(self) -> bool:
        """Whether all its work is done."""
        refuse_in_capture("Stream.done")
        return True

    def record(self, event: Event | None = None) -> Event:
        """Record an event."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Let later work wait for an event."""

    def launch_host_func(self, callback: Callable[[Any], None], arg: Any) -> None:
        """Call a function on the host in the stream's order."""
        submit(lambda: callback(arg))

    def begin_capture(self, mode: int | None = None) -> None:
        """Record work from now on instead of running it."""
        if self.ptr == 0:
            raise CUDARuntimeError(
                "cudaErrorStreamCaptureUnsupported: the null stream cannot capture; make a stream "
                "with Stream(non_blocking=True)"
            )
        if self._capture is not None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream captures already")
        self._capture = Capture()
        _capturing.append(self)

    def end_capture(self) -> Graph:
        """Return the graph of what was recorded."""
        capture = self._capture
        if capture is None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream does not capture")
        self._capture = None
        _capturing.remove(self)
        if capture.invalid:
            raise CUDARuntimeError(f"cudaErrorStreamCaptureInvalidated: by {capture.invalid}")
        for block in capture.blocks:
            capture.blocks[block] = block.use
        return Graph(capture)

    def is_capturing(self) -> bool:
        """Return whether it captures."""
        return self._capture is not None


class Graph:
    """Recorded work."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture

    def launch(self, stream: Stream | None = None) -> None:
        """Run it once; raises RuntimeError if its memory has gone to other arrays meanwhile.

        A graph holds addresses, no arrays: on a GPU it would overwrite those others, silently.
        """
        for block, use in self._capture.blocks.items():
            if block.in_use and block.use != use:
                raise RuntimeError(
                    "[Graph.launch] expected the arrays of the capture to be still there, but one of "
                    f"{block.size} bytes was freed and its memory lent to another array. Keep "
                    "references to all arrays that a graph uses."
                )
        machine.launches += 1
        for work in self._capture.work:
            submit(work)

    def upload(self, stream: Stream | None = None) -> None:
        """Prepare the graph on the device."""


class _Current(threading.local):
    stream: Stream | None = None


_current = _Current()
_capturing: list[Stream] = []
Stream.null = Stream(null=True)
Stream.ptds = Stream(ptds=True)


def get_current_stream(device_id: int = -1) -> Stream:
    """Return the stream that work goes to."""
    return Stream.null if _current.stream is None else _current.stream


def capture_under_way() -> Capture | None:
    """Return the current stream's capture."""
    stream = get_current_stream()
    if stream._capture is None and stream.ptr == 0:
        for other in _capturing:
            if not other.is_non_blocking and other._capture is not None:
                other._capture.invalid = "work in the null stream"
                raise CUDARuntimeError(
                    "cudaErrorStreamCaptureImplicit: work in the null stream while a blocking stream "
                    "captures; make it with Stream(non_blocking=True)"
                )
    return stream._capture


def refuse_in_capture(what: str) -> None:
    """Raise if the current thread captures: CUDA invalidates the capture then."""
    for stream in _capturing:
        if stream._capture is not None:
            stream._capture.invalid = what
            raise CUDARuntimeError(
                f"cudaErrorStreamCaptureUnsupported: {what} is not permitted while a stream captures"
            )


def submit(work: Callable[[], None], *arrays: Any) -> bool:
    """Run work now, or record it; return whether it ran. `arrays` are those that it touches."""
    capture = capture_under_way()
    if capture is None:
        work()
        return True
    capture.work.append(work)
    for array in arrays:
        capture.blocks[array.block] = array.block.use
    return False
