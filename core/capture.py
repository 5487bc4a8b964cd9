"""Capturing a step: what it does on the device is recorded once and then only repeated.

    @trine.capture
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

The first call runs as it stands, the second is recorded, the third runs both ways and every byte is
compared; from the fourth on only the recording runs: no tape, no dispatch, no allocation. (On a GPU
two calls come before the one that is recorded, as a CUDA graph.) Recording works because whatever
changes from step to step lies in arrays that stay where they are: parameters, state, learning rate,
step counts, the keys of random draws.
"""

from __future__ import annotations

import functools
import hashlib
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from trine import autograd
from trine.backends import Backend, default_backend, dispatch
from trine.backends.recording import Recorder, Recording, moves
from trine.dtypes import Array
from trine.errors import CaptureError
from trine.kernels import registry
from trine.tensor import Tensor

Step = Callable[..., Any]


class Kind(NamedTuple):
    """What a recording holds for."""

    call: tuple[Any, ...]
    """Other calls run as they stand."""
    around: tuple[Any, ...]
    """Where this changes, the step is recorded anew."""


class CaptureWarning(UserWarning):
    """A step cannot be captured and runs as it stands."""


def capture(step: Step | None = None, *, fallback: bool = False) -> Any:
    """Return a `CapturedStep` that does what `step` does; also a decorator.

    step: a function of tensors (whose shapes and dtypes stay the same) that returns a tensor, a
    tuple of tensors or None. With `fallback` a step that cannot be captured runs as it stands, with
    one warning that says why; else that is a CaptureError.
    """
    if step is None:
        return functools.partial(capture, fallback=fallback)
    return CapturedStep(step, fallback)


KINDS = 2
"""Kinds of calls that may be on their way to a recording: those of whole batches and of a last one."""


@dataclass
class Warming:
    """Calls of one kind before the one that is recorded."""

    kind: Kind
    recorder: Recorder
    calls: int = 0


class CapturedStep:
    """A step that is recorded and replayed; calls take and return what the step's own do.

    What it returns is copied, so that a later call does not change it. Everything else that the step
    made, such as activations kept in a list, is overwritten by the next call. Calls with other
    shapes or dtypes, as of a last batch, calls while a profile is taken and those under another
    `no_grad` run as they stand. Where the choice of kernels, the number of threads, the precision or
    the layout of an optimiser changes, the step is recorded anew. What Python does inside a step
    happens only when it is recorded: numbers other than tensors are constants, and `model.eval()`
    between two calls is not seen.

    The recording is of the backend of the first tensor among the arguments; without one, of the
    default backend.

    Raises CaptureError, unless `fallback`, for a step that reads numbers on the host (`.item()`),
    that runs on another backend than the recorded one, or whose replay gave other bytes than itself;
    the step in question has then been done.
    """

    def __init__(self, step: Step, fallback: bool = False) -> None:
        self.step = step
        self.fallback = fallback
        self.reason: str | None = None
        """Why the step is not captured; None if it is, or will be."""
        self.replays = 0
        """How many calls were replays."""
        self._lock = threading.Lock()
        self._forget()
        functools.update_wrapper(self, step, updated=())

    def _forget(self) -> None:
        self._warming: dict[Any, Warming] = {}
        self._kind: Kind | None = None
        self._recorder: Recorder | None = None
        self._recording: Recording | None = None
        self._verified = False

    @property
    def captured(self) -> bool:
        """Whether the next call of the same kind will be a replay."""
        return self._verified and self.reason is None

    def __call__(self, *args: Any) -> Any:
        """Do the step."""
        with self._lock:
            return self._call(args)

    def _call(self, args: tuple[Any, ...]) -> Any:
        if self.reason is not None or dispatch.observer is not None:
            return self.step(*args)
        tensors = [a for a in args if isinstance(a, Tensor)]
        backend = tensors[0].backend if tensors else default_backend()
        kind = _kind(args, backend)
        recording = self._recording
        if recording is None:
            return self._begin(args, backend, kind)
        if self._kind is None or kind.call != self._kind.call:
            return self.step(*args)
        fits = [before() for before in recording.before]
        if kind != self._kind or not all(fits):
            self._forget()
            return self._begin(args, backend, kind)
        self._load(args)
        if not self._verified:
            return self._verify(args, recording)
        recording.run()
        self.replays += 1
        return self._results()

    def _begin(self, args: tuple[Any, ...], backend: Backend, kind: Kind) -> Any:
        """Do the step as it stands, or, when its kind was done often enough, while it is recorded."""
        if any(isinstance(a, Tensor) and a.requires_grad for a in args):
            self._refuse("an argument requires a gradient")
            return self.step(*args)
        started = self._warming.get(kind.call)
        if started is None or started.kind != kind:
            self._warming.pop(kind.call, None)
            if len(self._warming) == KINDS:
                del self._warming[next(iter(self._warming))]
            started = self._warming[kind.call] = Warming(kind, backend.recorder())
        if started.calls == started.recorder.WARM_CALLS:
            self._forget()
            self._kind, self._recorder = kind, started.recorder
            return self._record(args, backend, started.recorder)
        started.calls += 1
        with started.recorder.warming():
            result = self.step(*args)
        return _own(result)

    # Recording

    def _record(self, args: tuple[Any, ...], backend: Backend, recorder: Recorder) -> Any:
        self._args = tuple(
            Tensor._wrap(backend.copy(a.data), backend) if isinstance(a, Tensor) else a
            for a in args
        )
        result: Any = None
        with recorder.recording_all() as recording:
            result = self.step(*self._args)
            for one in _as_tuple(result):
                if one is not None and not isinstance(one, Tensor):
                    recorder.refuse(f"it returns {type(one).__name__}, not a tensor")
        if elsewhere := _elsewhere(_as_tuple(result), backend, recording):
            recorder.refuse(elsewhere)
        if recording.refusal is not None:
            if not recording.done:
                for draw in reversed(recording.draws):
                    draw.generator.counter -= 1
                result = self.step(*args)
            self._refuse(recording.refusal)
            return result
        self._is_tuple = isinstance(result, tuple)
        self._outputs = [None if t is None else t.data for t in _as_tuple(result)]
        self._backend = backend
        self._recording = recording
        return self._results()

    def _load(self, args: tuple[Any, ...]) -> None:
        """Bring the arguments to where the recording reads them."""
        for own, given in zip(self._args, args, strict=True):
            if isinstance(own, Tensor) and own.data is not given.data:
                self._backend.assign(own.data, given.data)

    def _results(self) -> Any:
        backend = self._backend
        results = [
            None if array is None else Tensor._wrap(backend.copy(array), backend)
            for array in self._outputs
        ]
        return tuple(results) if self._is_tuple else results[0]

    def _verify(self, args: tuple[Any, ...], recording: Recording) -> Any:
        """Do the step by replay, then from the same state as it stands; compare every byte.

        The replay comes first: after the step itself, memory that the recording reads but does not
        write would hold the right numbers by accident.
        """
        backend, state = self._backend, recording.written
        generators = {draw.generator for draw in recording.draws}
        before = [backend.copy(array) for array in state]
        drawn = [(generator, generator.state()) for generator in generators]
        recording.run()
        outputs = [a for a in self._outputs if a is not None]
        replayed = [_digest(backend, a) for a in (*state, *outputs)]
        drawn_by_replay = [generator.state() for generator in generators]
        for array, value in zip(state, before, strict=True):
            backend.assign(array, value)
        for generator, counts in drawn:
            generator.load_state(counts)
        before.clear()
        assert self._recorder is not None  # it made the recording
        with self._recorder.lending():
            result = self.step(*args)
        wanted = [_digest(backend, a) for a in state]
        wanted += [_digest(backend, t.data) for t in _as_tuple(result) if t is not None]
        if replayed == wanted and drawn_by_replay == [g.state() for g in generators]:
            self._verified = True
        else:
            self._refuse(
                "its replay gave other numbers than the step itself: something in it changes from "
                "call to call outside of the device's arrays"
            )
        return _own(result)

    def _refuse(self, why: str) -> None:
        self._forget()
        self.reason = why
        name = getattr(self.step, "__name__", "the step")
        text = f"[capture] expected {name} to be a step that can be recorded, but {why}."
        if self.fallback:
            warnings.warn(f"{text} It runs as it stands.", CaptureWarning, stacklevel=5)
        else:
            raise CaptureError(f"{text} Take that out of it, or pass fallback=True.")


def _as_tuple(result: Any) -> tuple[Any, ...]:
    """Return what a step returns, one or several, as several."""
    return result if isinstance(result, tuple) else (result,)


def _elsewhere(results: tuple[Any, ...], backend: Backend, recording: Recording) -> str | None:
    """Return why a recording misses what its step does, where that ran on another backend."""
    others = {t.backend.name for t in results if isinstance(t, Tensor)} - {backend.name}
    if others:
        return (
            f"it was recorded on {backend.name} and returns a tensor of {', '.join(sorted(others))}"
        )
    if recording.written or any(one is not None for one in results):
        return None
    return (
        f"it changes nothing on {backend.name}. A step without tensors among its arguments is "
        "recorded on the default backend: pass it one, or call it within trine.use of its model's"
    )


def _digest(backend: Backend, array: Array) -> bytes:
    """Return what stands for an array's bytes, so that they need not be kept."""
    values = np.ascontiguousarray(backend.to_numpy(array))
    return hashlib.blake2b(values.view(np.uint8).reshape(-1).data, digest_size=32).digest()


def _own(result: Any) -> Any:
    """Return copies of a step's results, for whoever called it."""
    if isinstance(result, tuple):
        return tuple(_own(one) for one in result)
    if not isinstance(result, Tensor):
        return result
    return Tensor._wrap(result.backend.copy(result.data), result.backend)


def _kind(args: tuple[Any, ...], backend: Backend) -> Kind:
    call = tuple(
        (a.data.shape, a.data.dtype) if isinstance(a, Tensor) else (type(a), a) for a in args
    )
    mode = autograd._mode
    return Kind(
        (backend.name, call, mode.enabled, mode.composed),
        (registry.generation(), backend.thread_count(), backend.precision, moves()),
    )
