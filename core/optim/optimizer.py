"""The optimiser's base: groups over flat buffers, steps, clipping factor, state.

Whatever changes from step to step lies in arrays on the device: the learning rate and the scale of
the gradient (float64 (1,)), the step counts (int64). They keep their place in memory, so that a
whole step can be captured and replayed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from trine.autograd import enable_grad
from trine.backends import Backend, recording
from trine.dtypes import Array, float64, int64, is_float
from trine.errors import BackendError, CheckpointError
from trine.nn.parameter import Parameter
from trine.optim.flat import FlatBuffer, Run, Saved
from trine.tensor import Tensor

Params = Iterable[Parameter] | Iterable[dict[str, Any]]
FORMAT = 1
"""Version of the layout of `state_dict`."""


class Group:
    """Parameters that share options, in one flat buffer for each dtype."""

    def __init__(self, options: dict[str, Any], states: dict[str, float]) -> None:
        self.options = options
        self.states = states
        self.buffers: list[FlatBuffer] = []
        self.lay_out({})

    def lay_out(self, saved: dict[int, Saved]) -> None:
        """Put the parameters, wherever they now are, into new buffers."""
        parameters: list[Parameter] = self.options["params"]
        by_dtype: dict[str, list[Parameter]] = {}
        for parameter in parameters:
            by_dtype.setdefault(parameter.dtype.name, []).append(parameter)
        self.buffers = [FlatBuffer(part, self.states, saved) for part in by_dtype.values()]
        self.backend = self.buffers[0].backend
        self.uploaded: float = self.options["lr"]
        self.lr = self.backend.hyper(self.uploaded)

    def upload(self) -> None:
        """Bring a learning rate changed in `options` to the device."""
        if self.options["lr"] != self.uploaded:
            self.uploaded = check_lr(self.options["lr"])
            self.backend.assign(self.lr, self.uploaded)


def check_lr(lr: Any) -> float:
    """Return a learning rate as a float; raises ValueError unless it is finite and >= 0."""
    value = float(lr)
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"[optim] expected a learning rate >= 0, got {lr}. Choose e.g. 0.01.")
    return value


class Optimizer(ABC):
    """What all optimisers share: parameter groups, gradients, state."""

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        """Take over parameters, or groups `{"params": ..., "lr": ...}` with options of their own.

        The parameters become views into flat buffers. Raises TypeError for anything else than
        parameters, ValueError for none, for one that is in two groups, and for bad options.
        """
        self.defaults = defaults
        self._groups: list[Group] = []
        self._scale_set = False
        if isinstance(params, (Tensor, dict)):
            raise TypeError(
                f"[{self._name}] expected an iterable of parameters or of groups, got one "
                f"{type(params).__name__}. Pass model.parameters()."
            )
        entries: list[Any] = list(params)
        if not entries:
            raise ValueError(
                f"[{self._name}] expected at least one parameter, got none. Pass "
                "model.parameters() of a model that has some (a generator is used up only once)."
            )
        if not isinstance(entries[0], dict):
            entries = [{"params": entries}]
        for entry in entries:
            self.add_param_group(entry)

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The options of each group, with its parameters under "params"; "lr" may be assigned."""
        return [group.options for group in self._groups]

    @property
    def backend(self) -> Backend:
        """The backend on which the parameters live."""
        return self._groups[0].backend

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add parameters with options of their own; missing options take the defaults."""
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(
                f"[{self._name}] expected a group as a dict with 'params', got "
                f"{type(group).__name__}. Write {{'params': [...], 'lr': 0.1}}."
            )
        unknown = set(group) - set(self.defaults) - {"params", "initial_lr"}
        if unknown:
            raise ValueError(
                f"[{self._name}] expected options among {', '.join(sorted(self.defaults))}, got "
                f"{', '.join(sorted(unknown))}. Correct the group."
            )
        parameters = self._check_parameters(group["params"])
        options = {**self.defaults, **group, "params": parameters}
        options["lr"] = check_lr(options["lr"])
        self._check(options)
        self._groups.append(Group(options, self._states(options)))
        if len(self._groups) == 1:
            self._make_shared()
        elif self._groups[-1].backend is not self.backend:
            self._refuse_two_backends()

    def _check_parameters(self, params: Any) -> list[Parameter]:
        given = [params] if isinstance(params, Tensor) else list(params)
        owned = {id(p) for group in self._groups for p in group.options["params"]}
        found: dict[int, Parameter] = {}
        for parameter in given:
            if not isinstance(parameter, Parameter):
                raise TypeError(
                    f"[{self._name}] expected parameters, got {type(parameter).__name__}. Pass "
                    "model.parameters(), or wrap tensors in nn.Parameter."
                )
            if not is_float(parameter.dtype):
                raise TypeError(
                    f"[{self._name}] expected float parameters, got {parameter.dtype}. Freeze it by "
                    "leaving it out."
                )
            if id(parameter) in owned:
                raise ValueError(
                    f"[{self._name}] expected each parameter in one group, but one of shape "
                    f"{parameter.shape} is in two. Leave it out of one of them."
                )
            found[id(parameter)] = parameter  # tied ones come once
        if not found:
            raise ValueError(f"[{self._name}] expected parameters in a group, got none. Add some.")
        parameters = list(found.values())
        if any(p.backend is not parameters[0].backend for p in parameters):
            self._refuse_two_backends()
        return parameters

    def _refuse_two_backends(self) -> None:
        raise BackendError(
            f"[{self._name}] expected all parameters on one backend, got several. Move the whole "
            "model, e.g. model.to('numpy')."
        )

    def _make_shared(self) -> None:
        backend = self.backend
        self.scale = backend.hyper(1.0)
        """What multiplies the gradient in the next step, float64 (1,)."""
        self._one = backend.asarray([1], int64)

    # What a kind of optimiser defines.

    @abstractmethod
    def _states(self, options: dict[str, Any]) -> dict[str, float]:
        """Return the names of the states that a group keeps, and their first values."""

    @abstractmethod
    def _update(self, backend: Backend, run: Run, lr: Array, options: dict[str, Any]) -> None:
        """Update the parameters of a run by one kernel call."""

    def _check(self, options: dict[str, Any]) -> None:  # noqa: B027  most kinds override it
        """Raise ValueError for options outside their range."""

    def _need(self, ok: bool, name: str, expected: str, options: dict[str, Any]) -> None:
        if not ok:
            raise ValueError(
                f"[{self._name}] expected {name} {expected}, got {options[name]}. Change it."
            )

    # Steps.

    def _refresh(self) -> None:
        """See that the buffers still hold what the model uses."""
        moved = False
        for group in self._groups:
            for buffer in group.buffers:
                lost = buffer.lost()
                if lost:
                    raise ValueError(
                        f"[{self._name}] expected to own its parameters, but a later optimiser took "
                        f"{lost} of them over. Use the later one, or give each parameter to one."
                    )
                moved = not buffer.refresh() or moved
        if not moved:
            return
        parameters = [p for group in self._groups for p in group.options["params"]]
        if any(p.backend is not parameters[0].backend for p in parameters):
            self._refuse_two_backends()
        for group in self._groups:
            saved: dict[int, Saved] = {}
            for buffer in group.buffers:
                saved.update(buffer.saved())
            group.lay_out(saved)
        self._make_shared()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; return what `closure` returned.

        Nothing changes if the scale (`set_scale`) is not finite. Raises ValueError if another
        optimiser has taken parameters over.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        self._refresh()
        backend = self.backend
        one = self._one
        if self._scale_set:  # a suppressed update does not count
            one = backend.astype(backend.isfinite(self.scale), dtype=int64)
        plans = [
            (group, buffer, buffer.runs()) for group in self._groups for buffer in group.buffers
        ]
        self._prepare([run for _, _, runs in plans for run in runs])
        if recording.current is not None:
            self._tell_recorder(recording.current, plans)
        else:
            self._upload()
        for group, buffer, runs in plans:
            for run in runs:
                backend.accumulate(run.steps, one)
                self._update(backend, run, group.lr, group.options)
            buffer.note(runs)
        if self._scale_set:
            backend.assign(self.scale, 1.0)
            self._scale_set = False
        return loss

    def _tell_recorder(
        self, recorder: recording.Recorder, plans: list[tuple[Group, FlatBuffer, list[Run]]]
    ) -> None:
        """Leave to the recorder what Python does in every step: look before it, count after it."""

        def fits() -> bool:
            self._refresh()
            self._upload()
            held = {id(buffer) for group in self._groups for buffer in group.buffers}
            return held == {id(buffer) for _, buffer, _ in plans}

        def note() -> None:
            for _, buffer, runs in plans:
                buffer.note(runs)

        with recorder.paused():
            self._upload()
        recorder.around(fits, note)

    def _upload(self) -> None:
        """Bring learning rates that were changed in the options to the device."""
        for group in self._groups:
            group.upload()

    def _prepare(self, runs: list[Run]) -> None:  # noqa: B027  a hook
        """Compute what all updates of a step share."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients; with `set_to_none=False` fill them with zeros."""
        self._refresh()
        for group in self._groups:
            for buffer in group.buffers:
                buffer.clear_gradients(set_to_none)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of all groups; raises ValueError unless finite and >= 0."""
        value = check_lr(lr)
        for group in self._groups:
            group.options["lr"] = value
            group.upload()

    def set_scale(self, scale: Array) -> None:
        """Let the next step multiply the gradient by `scale`, a float64 array (1,) of the backend.

        A scale that is not finite suppresses that step. Afterwards the scale is 1 again.
        """
        self.backend.assign(self.scale, scale)
        self._scale_set = True

    def grad_norm(self) -> Array:
        """Return the Euclidean norm of all gradients, float64 (1,), on the device."""
        self._refresh()
        return self._norm(
            [run for group in self._groups for b in group.buffers for run in b.runs()]
        )

    def _norm(self, runs: list[Run]) -> Array:
        backend = self.backend
        total: Any = None
        for run in runs:
            part = backend.sum_squares(run.grad)
            total = part if total is None else backend.add(total, part)
        return backend.zeros((1,), float64) if total is None else backend.sqrt(total)

    # State.

    def state_dict(self) -> dict[str, Any]:
        """Return {"arrays": name -> NumPy array, "meta": JSON-able}, enough to go on exactly.

        Array "G.DTYPE.STATE" is a state of group G, flat, 64 bytes aligned; "G.DTYPE.steps" counts
        the updates of each parameter.
        """
        self._refresh()
        arrays: dict[str, Any] = {}
        groups = []
        for index, group in enumerate(self._groups):
            options = {key: value for key, value in group.options.items() if key != "params"}
            parameters: list[Parameter] = group.options["params"]
            layout = [[p.dtype.name, list(p.shape)] for p in parameters]
            groups.append({"options": options, "parameters": layout})
            for buffer in group.buffers:
                prefix = f"{index}.{buffer.dtype.name}"
                for name, array in (*buffer.states.items(), ("steps", buffer.steps)):
                    arrays[f"{prefix}.{name}"] = np.array(buffer.backend.to_numpy(array))
        return {
            "arrays": arrays,
            "meta": {"format": FORMAT, "optimizer": self._name, "groups": groups},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; raises CheckpointError, having loaded nothing, if it doesn't fit."""
        mine = self.state_dict()
        self._check_state(state, mine)
        for index, group in enumerate(self._groups):
            for key, value in state["meta"]["groups"][index]["options"].items():
                is_tuple = isinstance(self.defaults.get(key), tuple)
                group.options[key] = tuple(value) if is_tuple else value
            group.upload()
            for buffer in group.buffers:
                prefix = f"{index}.{buffer.dtype.name}"
                for name, array in buffer.states.items():
                    host = state["arrays"][f"{prefix}.{name}"]
                    buffer.backend.assign(array, buffer.backend.asarray(host, buffer.dtype))
                buffer.set_counts(state["arrays"][f"{prefix}.steps"])

    def _check_state(self, state: dict[str, Any], mine: dict[str, Any]) -> None:
        meta, arrays = state.get("meta", {}), state.get("arrays", {})
        expected = mine["meta"]
        for key in ("format", "optimizer"):
            if meta.get(key) != expected[key]:
                raise CheckpointError(
                    f"[{self._name}] expected a state with {key} {expected[key]!r}, got "
                    f"{meta.get(key)!r}. Load it with what wrote it."
                )
        given, wanted = _layouts(meta), _layouts(expected)
        if given != wanted:
            raise CheckpointError(
                f"[{self._name}] expected the state of groups {wanted}, got {given}. Build the model "
                "and the groups as they were when it was saved."
            )
        if set(arrays) != set(mine["arrays"]):
            missing = sorted(set(mine["arrays"]) - set(arrays))
            extra = sorted(set(arrays) - set(mine["arrays"]))
            raise CheckpointError(
                f"[{self._name}] expected arrays that fit its options; missing: {missing}, extra: "
                f"{extra}. Give the optimiser the options it had when the state was saved."
            )
        for name, own in mine["arrays"].items():
            other = arrays[name]
            if other.shape != own.shape or other.dtype != own.dtype:
                raise CheckpointError(
                    f"[{self._name}] expected {name} as {own.dtype} {own.shape}, got {other.dtype} "
                    f"{other.shape}. The state is damaged or from another version."
                )

    def __repr__(self) -> str:
        lines = [f"{self._name} ("]
        for index, options in enumerate(self.param_groups):
            lines.append(f"Parameter Group {index}")
            for key in sorted(options):
                if key != "params":
                    lines.append(f"    {key}: {options[key]}")
        return "\n".join([*lines, ")"])


def _layouts(meta: dict[str, Any]) -> list[list[tuple[str, tuple[int, ...]]]]:
    """Return the dtype and shape of each parameter of each group, whatever JSON made of them."""
    return [
        [(dtype, tuple(shape)) for dtype, shape in group["parameters"]] for group in meta["groups"]
    ]
