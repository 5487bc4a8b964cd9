"""A recording on a GPU: one CUDA graph, captured from the stream while the step is run through.

A stream that captures does nothing, so the graph is launched once when it is complete. A graph knows
addresses only, and CuPy lets it keep no arrays: the recording holds its memory pool. What CUDA
refuses inside a capture (copies to and from the host, waiting, cuBLAS) ends it with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from trine.backends.recording import READS, Draw, Recorder, Recording
from trine.dtypes import Array

if TYPE_CHECKING:
    from trine.backends.base import Backend

REFUSED = {
    "to_numpy": READS,
    "synchronize": "it waits for the device",
    "asarray": "it brings numbers from the host: make tensors outside of the step",
    "hyper": "it brings numbers from the host: make tensors outside of the step",
}
"""Method -> why it cannot be captured."""


class _RefusedError(Exception):
    """Ends a capture."""


class GraphRecorder(Recorder):
    """Captures what one thread does on the cupy backend."""

    WARM_CALLS = 2
    """Then the pool has blocks for all that a call makes beside what the call before left behind."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._cuda = backend.xp.cuda
        self._stream = self._cuda.Stream(non_blocking=True)
        self._pool = self._cuda.MemoryPool()
        self._inner: set[int] = set()
        """Addresses of memory blocks that arrays made on the way lie in."""
        self._first_keys: list[tuple[Array, Any]] = []
        self.recording.done = False

    @contextmanager
    def warming(self) -> Iterator[None]:
        """Do what is in the block in the stream and the pool of the capture to come.

        In a capture the pool cannot ask the device for more.
        """
        null = self._cuda.Stream.null
        self._stream.wait_event(null.record())
        with self._cuda.using_allocator(self._pool.malloc), self._stream:
            yield
        null.wait_event(self._stream.record())

    @contextmanager
    def recording_all(self) -> Iterator[Recording]:
        """Capture everything inside the block; a step that cannot be captured ends it early."""
        recording, graph = self.recording, None
        with super().recording_all(), self._cuda.using_allocator(self._pool.malloc), self._stream:
            self._stream.begin_capture()
            try:
                yield recording
            except _RefusedError as error:
                self.refuse(str(error))
            except (self._cuda.runtime.CUDARuntimeError, NotImplementedError) as error:
                self.refuse(f"CUDA does not allow it: {error}")
            finally:
                try:
                    graph = self._stream.end_capture()
                except self._cuda.runtime.CUDARuntimeError as error:
                    self.refuse(f"CUDA does not allow it: {error}")
        if recording.refusal is None and graph is not None:
            for key, words in self._first_keys:
                self._backend.refill_key(key, words)
            recording.segments.append(graph.launch)  # in the stream that is then current
            recording.kept += [self._pool, self._stream, graph]
            recording.repeat()
            recording.done = True

    def call(self, function: Callable[[], Any]) -> None:
        """Not asked for on a GPU, where no values are looked at."""
        raise _RefusedError("it looks at values on the host")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do what is in the block now, in the stream that does not capture."""
        with super().paused(), self._cuda.Stream.null:
            yield

    def _note(
        self, name: str, method: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        if name == "asarray_key":
            return self._device_key(*args)
        if name in REFUSED and not (name == "asarray" and self._backend.owns(args[0])):
            raise _RefusedError(REFUSED[name])
        result = method(*args, **named)
        for array in result if isinstance(result, tuple) else (result,):
            if self._backend.owns(array) and not any(
                self._backend.owns(a) and self._block(a) == self._block(array) for a in args
            ):
                self._inner.add(self._block(array))
        self._note_changes(name, args, named)
        return result

    def _device_key(self, key: Any) -> Array:
        """Return a key array that later draws are written to."""
        if self._backend.owns(key):
            return key
        there = self._backend.empty(key.shape, np.dtype(np.uint32))
        self._first_keys.append((there, key))
        self.recording.kept.append(there)
        draws = self.recording.draws
        for place, draw in enumerate(draws):
            if draw.key is key:
                draws[place] = Draw(draw.generator, draw.stream, there)
        return there

    def _block(self, array: Array) -> int:
        return int(array.data.mem.ptr)

    def _address(self, array: Array) -> int:
        return int(array.data.ptr)

    def _is_inner(self, array: Array) -> bool:
        return self._block(array) in self._inner
