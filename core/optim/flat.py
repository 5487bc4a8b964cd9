"""Flat buffers: the parameters of one group and dtype laid end to end in one array.

One array holds the data, one the gradients, one each state (momentum, second moment, ...). Tensors
of the model become views into them, each at an offset of 64 bytes, so that one kernel call updates
everything. Parameters without a gradient in a step are left out, as in PyTorch: the call is then
split into runs of neighbours that do take part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trine.backends import Backend
from trine.backends.recording import note_move
from trine.dtypes import Array, DType, int64
from trine.nn.parameter import Parameter

ALIGNMENT = 64
"""Bytes: a cache line and the widest CPU vector. It also keeps BLAS results reproducible, since
no matrix starts at an address that depends on what was allocated before."""


def aligned_zeros(backend: Backend, size: int, dtype: DType) -> Array:
    """Return a flat array of zeros that starts on a multiple of 64 bytes."""
    spare = ALIGNMENT // dtype.itemsize
    array = backend.zeros((size + spare,), dtype)
    if not isinstance(array, np.ndarray):
        return array[:size]  # devices align their blocks far wider
    first = -array.ctypes.data % ALIGNMENT // dtype.itemsize
    return array[first : first + size]


@dataclass(slots=True)
class Run:
    """Neighbours in a flat buffer that one kernel call updates: slices of its arrays."""

    first: int
    last: int
    param: Array
    grad: Array
    states: dict[str, Array]
    steps: Array
    """Step counts of the parameters in the run; they are all the same."""

    @property
    def step(self) -> Array:
        """The count of updates, int64 (1,)."""
        return self.steps[:1]


@dataclass(slots=True)
class Saved:
    """What one parameter brings along when its buffer is laid out anew."""

    backend: Backend
    states: dict[str, Array]
    count: int


class FlatBuffer:
    """Data, gradients, states and step counts of parameters of one dtype on one backend."""

    def __init__(
        self,
        parameters: Sequence[Parameter],
        states: dict[str, float],
        saved: dict[int, Saved] | None = None,
    ) -> None:
        """Take the parameters over. `states` names the states and gives their first value.

        `saved` holds, by the id of a parameter, what it had in an earlier buffer.
        """
        self.parameters = list(parameters)
        self.backend = self.parameters[0].backend
        self.dtype = self.parameters[0].dtype
        self.token = object()
        """Marks the parameters as owned by this buffer."""
        lane = ALIGNMENT // self.dtype.itemsize
        self.sizes = [math.prod(p.shape) for p in self.parameters]
        self.offsets = [0]
        for size in self.sizes:
            self.offsets.append(self.offsets[-1] + -(-size // lane) * lane)
        total = self.offsets[-1]
        self.data = aligned_zeros(self.backend, total, self.dtype)
        self.grad = aligned_zeros(self.backend, total, self.dtype)
        self.states: dict[str, Array] = {}
        for name, value in states.items():
            array = self.states[name] = aligned_zeros(self.backend, total, self.dtype)
            if value:
                self.backend.assign(array, value)
        self.steps = self.backend.zeros((len(self.parameters),), int64)
        self.views: list[Array] = []
        self.grad_views: list[Array] = []
        # Parameters with equal histories of taking part have equal step counts, so one call can
        # serve them. Histories live on the host: reading the counts would wait for the device.
        self.history = [0] * len(self.parameters)
        self._histories = 0
        self._runs: dict[tuple[int, int], Run] = {}
        for index, parameter in enumerate(self.parameters):
            self._adopt(index, parameter)
        if saved:
            self._restore(saved)

    def _span(self, index: int) -> slice:
        return slice(self.offsets[index], self.offsets[index] + self.sizes[index])

    def _adopt(self, index: int, parameter: Parameter) -> None:
        view = self.data[self._span(index)].reshape(parameter.shape)
        grad_view = self.grad[self._span(index)].reshape(parameter.shape)
        self.backend.assign(view, parameter.data)
        self.views.append(view)
        self.grad_views.append(grad_view)
        parameter.data = view
        note_move()
        parameter._grad_view = grad_view
        parameter._owner = self.token
        if parameter.grad is not None:
            self._take_gradient(index, parameter)

    def _take_gradient(self, index: int, parameter: Parameter) -> None:
        """Bring a gradient that was not written by the engine into the buffer."""
        gradient, view = parameter.grad, self.grad_views[index]
        assert gradient is not None
        if gradient.backend is not self.backend or gradient.shape != parameter.shape:
            raise ValueError(
                f"[optim] expected the gradient of a parameter {parameter.shape} on "
                f"{self.backend.name}, got {gradient.shape} on {gradient.backend.name}. Assign a "
                "gradient like the parameter, or None."
            )
        self.backend.assign(view, gradient.data)
        parameter.grad = parameter._wrap(view, self.backend)

    def _restore(self, saved: dict[int, Saved]) -> None:
        counts = []
        for index, parameter in enumerate(self.parameters):
            entry = saved.get(id(parameter))
            counts.append(entry.count if entry else 0)
            if entry is None:
                continue
            for name, values in entry.states.items():
                host = entry.backend.to_numpy(values)
                self.backend.assign(
                    self.states[name][self._span(index)], self.backend.asarray(host, self.dtype)
                )
        self.set_counts(np.array(counts, np.int64))

    def saved(self) -> dict[int, Saved]:
        """Return each parameter's states and step count, to lay them out anew."""
        counts = self.backend.to_numpy(self.steps)
        return {
            id(parameter): Saved(
                self.backend,
                {name: array[self._span(i)] for name, array in self.states.items()},
                int(counts[i]),
            )
            for i, parameter in enumerate(self.parameters)
        }

    def set_counts(self, counts: Any) -> None:
        """Set the step counts, int64 (parameters,) on the host."""
        self.backend.assign(self.steps, self.backend.asarray(counts, int64))
        known: dict[int, int] = {}
        self.history = [known.setdefault(int(count), len(known)) for count in counts]
        self._histories = len(known)

    def refresh(self) -> bool:
        """Take over data assigned from outside; return whether it fits the buffer.

        False says that a parameter changed backend or dtype (`Module.to`), so that the buffer has
        to be laid out anew.
        """
        for index, (parameter, view) in enumerate(zip(self.parameters, self.views, strict=True)):
            data = parameter.data
            if data is not view:
                if parameter.backend is not self.backend or data.dtype != self.dtype:
                    return False
                if data.shape != view.shape:
                    raise ValueError(
                        f"[optim] expected parameter {index} of shape {view.shape}, but its data "
                        f"now has {data.shape}. Make a new optimiser for the new parameter."
                    )
                self.backend.assign(view, data)
                parameter.data = view
                parameter._grad_view = self.grad_views[index]
            gradient = parameter.grad
            if gradient is not None and gradient.data is not self.grad_views[index]:
                self._take_gradient(index, parameter)
        return True

    def lost(self) -> int:
        """Return how many parameters a later optimiser has taken over."""
        return sum(parameter._owner is not self.token for parameter in self.parameters)

    def runs(self) -> list[Run]:
        """Return the runs of parameters that have gradients, in order."""
        found: list[Run] = []
        first = -1
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                if first >= 0:
                    found.append(self._run(first, index))
                first = -1
            elif first < 0:
                first = index
            elif self.history[index] != self.history[first]:
                found.append(self._run(first, index))
                first = index
        if first >= 0:
            found.append(self._run(first, len(self.parameters)))
        return found

    def _run(self, first: int, last: int) -> Run:
        run = self._runs.get((first, last))
        if run is None:
            span = slice(self.offsets[first], self.offsets[last])
            run = self._runs[first, last] = Run(
                first,
                last,
                self.data[span],
                self.grad[span],
                {name: array[span] for name, array in self.states.items()},
                self.steps[first:last],
            )
        return run

    def note(self, runs: list[Run]) -> None:
        """Record which parameters a step updated: their values changed, their histories go on."""
        updated = [False] * len(self.parameters)
        for run in runs:
            for index in range(run.first, run.last):
                updated[index] = True
                self.parameters[index]._bump()
        if all(updated) or not any(updated):
            return
        fresh: dict[int, int] = {}
        for index, took_part in enumerate(updated):
            if took_part:
                if self.history[index] not in fresh:
                    self._histories += 1
                    fresh[self.history[index]] = self._histories
                self.history[index] = fresh[self.history[index]]

    def clear_gradients(self, set_to_none: bool) -> None:
        """Drop the gradients, or fill those that exist with zeros."""
        if not set_to_none:
            self.backend.assign(self.grad, 0.0)
        else:
            for parameter in self.parameters:
                parameter.grad = None
