"""A recording of what a backend does: what a captured step runs through again.

While a recorder is at work every method of the contract passes through it. On the CPU
(`LaunchRecorder`) it notes the launches of kernels where a backend can repeat those by themselves,
else the call as a whole, whose results are then copied to where they were; on a GPU
(`trine.backends.graph_recording`) the stream itself captures. Arrays come from a pool of the
recording's own, which keeps its memory for as long as the recording lives, so that every replay
finds each array in its place.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trine.backends.allocator import PoolAllocator
from trine.backends.op import OPS
from trine.dtypes import Array
from trine.random import Generator, watch_draws

if TYPE_CHECKING:
    from trine.backends.base import Backend

UNRECORDED = frozenset(
    {"empty", "owns", "memory_stats", "memory_report", "free_memory", "refill_key"}
)
"""Methods of the contract that do nothing to numbers."""
CONSTANT = frozenset({"asarray", "hyper", "asarray_key"})
"""Methods that bring numbers from Python: the same ones in every replay."""
READS = "it reads numbers on the host, by .item(), .numpy() or a comparison"


@dataclass(frozen=True)
class Draw:
    """A draw of random numbers: its key array gets the generator's next in every replay."""

    generator: Generator
    stream: int
    key: Array


@dataclass
class Recording:
    """What to run, and what it needs to be right."""

    backend: Backend
    segments: list[Callable[[], Any]] = field(default_factory=list)
    draws: list[Draw] = field(default_factory=list)
    written: list[Array] = field(default_factory=list)
    """Arrays from outside of the recording that it changes: its state."""
    before: list[Callable[[], bool]] = field(default_factory=list)
    """Asked before each replay whether the recording still fits, such as an optimiser's buffers."""
    after: list[Callable[[], None]] = field(default_factory=list)
    refusal: str | None = None
    """Why it must not be replayed, if it must not."""
    done: bool = True
    """Whether what was recorded was done as well; a stream that captures does nothing."""
    kept: list[Any] = field(default_factory=list)
    """Arrays that live outside of the pool, and the pool."""

    def run(self) -> None:
        """Do everything once more."""
        for draw in self.draws:
            self.backend.refill_key(draw.key, draw.generator.key(draw.stream))
        self.repeat()
        for note in self.after:
            note()

    def repeat(self) -> None:
        """Do on the device what was recorded, and nothing else."""
        with np.errstate(all="ignore"):
            for segment in self.segments:
                segment()


current: Recorder | None = None
"""The recorder at work, for those whose part in a step is not all in calls of the backend."""


_moves = 0


def note_move() -> None:
    """Say that a tensor got another array for its own: recordings made before know the old one."""
    global _moves  # noqa: PLW0603  one count for all tensors
    _moves += 1


def moves() -> int:
    """Return how often tensors got other arrays."""
    return _moves


class Recorder:
    """Notes what one thread does on a backend."""

    WARM_CALLS = 1
    """How often a step is to be done inside `warming` before it is recorded."""

    def __init__(self, backend: Backend) -> None:
        self.recording = Recording(backend)
        self._backend = backend
        self._thread = threading.get_ident()
        self._inside = False

    def warming(self) -> AbstractContextManager[None]:
        """Do what is in the block as it stands: kernels compile, buffers are laid out."""
        return nullcontext()

    def lending(self) -> AbstractContextManager[None]:
        """Let what is in the block, the step as it stands, use the recording's memory."""
        return nullcontext()

    @contextmanager
    def recording_all(self) -> Iterator[Recording]:
        """Note everything inside the block; the recording is complete at its end."""
        global current  # noqa: PLW0603  one recording at a time
        backend, self._thread = self._backend, threading.get_ident()
        names = [name for name in contract() if name not in UNRECORDED]
        for name in names:
            setattr(backend, name, functools.partial(self._call, name, getattr(backend, name)))
        current, watched = self, watch_draws(self._draw)
        try:
            yield self.recording
        finally:
            watch_draws(watched)
            current = None
            for name in names:
                delattr(backend, name)

    # What others add

    def call(self, function: Callable[[], Any]) -> None:
        """Run a function of Python at this place of every replay, such as a check of values."""
        raise NotImplementedError

    def around(self, before: Callable[[], bool], after: Callable[[], None]) -> None:
        """Ask `before` each replay whether it still fits, and tell `after` when it is done."""
        self.recording.before.append(before)
        self.recording.after.append(after)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Note nothing inside the block: what `around`'s first function does at every replay."""
        before, self._inside = self._inside, True
        try:
            yield
        finally:
            self._inside = before

    def refuse(self, why: str) -> None:
        """Say that the recording must not be replayed."""
        self.recording.refusal = self.recording.refusal or why

    # Noting

    def _draw(self, generator: Generator, stream: int, key: Array) -> None:
        if threading.get_ident() == self._thread:
            self.recording.draws.append(Draw(generator, stream, key))

    def _call(self, name: str, method: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Run a method of the backend and note it; one inside another is part of that."""
        if self._inside or threading.get_ident() != self._thread:
            return method(*args, **named)
        self._inside = True
        try:
            return self._note(name, method, args, named)
        finally:
            self._inside = False

    def _note(
        self, name: str, method: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        raise NotImplementedError

    def _note_changes(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> list[Array]:
        """Return the arrays that a call changes, those from outside noted as the state."""
        changed = _changed(name, args, named)
        known = {(self._address(a), a.nbytes) for a in self.recording.written}
        for array in changed:
            if (self._address(array), array.nbytes) not in known and not self._is_inner(array):
                self.recording.written.append(array)
        return changed

    def _address(self, array: Array) -> int:
        raise NotImplementedError

    def _is_inner(self, array: Array) -> bool:
        """Return whether an array was made while recording."""
        raise NotImplementedError


class LaunchRecorder(Recorder):
    """Notes launches and calls on the CPU, which are done as well."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._pool = PoolAllocator(pooled_bytes=0)
        self._entries: list[Any] = []
        """Launches, and what can stand among them, since the last call of Python."""
        self._made: dict[int, Any] = {}
        """The objects that own the memory of arrays made on the way, by their ids."""

    @contextmanager
    def lending(self) -> Iterator[None]:
        """Let what is in the block, the step as it stands, use the recording's memory.

        Every replay writes there before it reads, so nothing is lost; and a step needs its memory
        once, not twice.
        """
        pool, self._backend.allocator = self._backend.allocator, self._pool
        try:
            yield
        finally:
            self._backend.allocator = pool

    @contextmanager
    def recording_all(self) -> Iterator[Recording]:
        """Note everything inside the block."""
        self._backend.allocator.trim()  # what the step as it stood needed, the recording takes over
        with self.lending(), super().recording_all() as recording:
            yield recording
        self._end_segment()
        self.recording.kept.append(self._pool)

    def call(self, function: Callable[[], Any]) -> None:
        """Run a function of Python at this place of every replay, such as a check of values."""
        self._end_segment()
        self.recording.segments.append(function)

    def _address(self, array: Array) -> int:
        return int(array.ctypes.data)

    def _is_inner(self, array: Array) -> bool:
        return id(_owner(array)) in self._made or self._pool.lent(array)

    def _note(
        self, name: str, method: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        launches: list[Any] = []
        with self._backend.note_launches(launches):
            result = method(*args, **named)
        if name == "to_numpy":
            self.refuse(READS)
            return result
        if isinstance(result, np.generic):  # without axes: it has no place of its own in memory
            result = np.asarray(result)
        results = result if isinstance(result, tuple) else (result,)
        made = [r for r in results if isinstance(r, np.ndarray) and not _is_view(r, args)]
        for array in made:
            if not self._pool.lent(array):
                self._made[id(_owner(array))] = _owner(array)
        changed = self._note_changes(name, args, named)
        if name in CONSTANT:
            self.recording.kept.extend(made)
        elif launches and self._repeats_by_launches(name):
            self._entries += launches
            self._keep([part for entry in launches for part in _parts(entry)], results)
        elif made or changed:
            self._note_whole(name, method, args, named, results, made)
        return result

    def _repeats_by_launches(self, name: str) -> bool:
        if name not in OPS:  # a method that runs an op and goes on in Python, like random_normal
            return False
        kernel = self._backend.ran.get(name)
        return any(
            launcher.name == kernel and launcher.entry.replayable and not launcher.entry.user
            for launcher in self._backend.launchers(OPS[name])
        )

    def _note_whole(
        self, name: str, method: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any],
        results: Sequence[Any], made: Sequence[Array],
    ) -> None:  # fmt: skip
        entry = self._backend.array_entry(name, args, made)
        if entry is not None:
            self._entries.append(entry)
            self._keep(list(_parts(entry)), results)
            return
        self._end_segment()
        targets = [r if any(r is m for m in made) else None for r in results]

        def again() -> None:
            found = method(*args, **named)
            for target, value in zip(
                targets, found if isinstance(found, tuple) else (found,), strict=True
            ):
                if target is not None:
                    target[...] = value

        self.recording.segments.append(again)

    def _keep(self, args: Sequence[Any], results: Sequence[Any]) -> None:
        """Hold arrays that do not lie in the recording's pool, whose blocks stay where they are."""
        for array in (*args, *results):
            if isinstance(array, np.ndarray) and not self._pool.lent(array):
                self.recording.kept.append(array)

    def _end_segment(self) -> None:
        if self._entries:
            self.recording.segments.append(self._backend.compile_entries(self._entries))
            self._entries = []


@functools.lru_cache(maxsize=1)
def contract() -> tuple[str, ...]:
    """Return the names of all methods of the contract."""
    from trine.backends.base import Backend  # noqa: PLC0415  which gathers them

    found = {
        name
        for base in Backend.__mro__[1:-1]
        for name, value in vars(base).items()
        if callable(value) and not name.startswith("_")
    }
    return tuple(sorted(found | set(OPS)))


def _owner(array: Any) -> Any:
    """Return what owns the memory of an array."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def _parts(entry: Any) -> Iterator[Any]:
    """Yield what an entry holds, and what its tuples hold."""
    for part in entry:
        if isinstance(part, tuple):
            yield from part
        else:
            yield part


def _is_view(result: Array, args: tuple[Any, ...]) -> bool:
    owner = _owner(result)
    return any(isinstance(a, np.ndarray) and _owner(a) is owner for a in args)


def _changed(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> list[Array]:
    """Return the arrays that a method changes in place."""
    if name in ("assign", "accumulate"):
        return [args[0] if args else named["target"]]
    spec = OPS.get(name)
    if spec is None or not spec.mutates:
        return []
    call = spec.bind(args, named)
    return [call[array] for array in spec.mutates if call[array] is not None]
