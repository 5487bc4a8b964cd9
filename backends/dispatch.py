"""The one way from a call of an op to a kernel: choose, check, prepare, allocate, launch.

Every kernel of every backend runs through `run_kernel`. It picks the kernel (by preference, else
the first in order of priority that serves the call), copies arrays that are not contiguous,
obtains the outputs from the backend's allocator and launches. Where kernels exist but none serves
the call, the reference runs, with a warning for each new reason and a count; on a strict backend
that is an error.
"""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from trine.dtypes import Array, DType
from trine.errors import BackendError
from trine.kernels import registry

if TYPE_CHECKING:
    from trine.backends.base import Backend
    from trine.backends.op import OpSpec


Observer = Callable[["Backend", "OpSpec", Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Called instead of an op with (backend, spec, run, arrays, attributes); must return
run(backend, arrays, attributes)."""

observer: Observer | None = None
"""Sees every call of every op while it is set (`trine.profile`); None costs an op about 0.1 us."""


def observe(new: Observer | None) -> Observer | None:
    """Set the observer of all ops and return the one before."""
    global observer
    before, observer = observer, new
    return before


@dataclass
class Counters:
    """What a backend did that a user may want to know; all since the last `reset`."""

    uploads: int = 0
    downloads: int = 0
    syncs: int = 0
    copies: int = 0
    fallbacks: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(op, reason) -> how often the reference ran although kernels are registered."""

    def reset(self) -> None:
        self.uploads = self.downloads = self.syncs = self.copies = 0
        self.fallbacks.clear()


class FallbackWarning(UserWarning):
    """A kernel refused a call and the reference ran instead."""


class Launcher:
    """A kernel bound to its op on one backend: knows what it serves and how to call it."""

    def __init__(
        self,
        spec: OpSpec,
        entry: registry.Kernel,
        call: Callable[..., Any],
        function: Callable[..., Any] | None = None,
    ) -> None:
        self.entry = entry
        self.function = function
        """The kernel itself, where it can be called with its parameters in order."""
        self.name = entry.name
        self.call = call
        self.parameters = entry.parameters
        self.dtypes = frozenset(entry.dtypes)
        self.supports = entry.supports
        self.left_out = tuple(a for a in spec.attributes if a not in entry.parameters)
        if entry.cuda is not None and any(
            p.kind is inspect.Parameter.VAR_KEYWORD
            for p in inspect.signature(entry.function).parameters.values()
        ):
            self.left_out = ()  # a launch function with **call sees every attribute
        self.choices = {
            a.name: {choice: i for i, choice in enumerate(a.choices)}
            for a in spec.attributes.values()
            if a.choices
        }
        _check_parameters(spec, entry)

    def refusal(self, spec: OpSpec, call: dict[str, Any], dtype: str | None) -> str | None:
        """Return why the kernel does not serve a call, or None if it does."""
        if dtype is not None and dtype not in self.dtypes:
            return f"dtype {dtype}"
        if dtype is None and self.entry.floats_only:
            return "arrays without floats"
        for name in self.left_out:
            attribute = spec.attributes[name]
            if attribute.required or call[name] != attribute.default:
                return f"{name}={call[name]}"
        if self.supports is not None and not self.supports(**call):
            return "this shape or these attributes"
        return None


def _check_parameters(spec: OpSpec, entry: registry.Kernel) -> None:
    """Refuse a kernel whose parameters are not its op's; raises ValueError naming them."""
    if entry.cuda is not None:
        return  # its launch function may take **call
    optional = set(spec.attributes)
    outputs = set(entry.parameters) - set(spec.arrays) - optional
    missing = [name for name in spec.arrays if name not in entry.parameters]
    if missing:
        raise ValueError(
            f"[kernel] expected {entry.name!r} of {spec.name} to take the arrays "
            f"{', '.join(spec.arrays)}, but it lacks {', '.join(missing)}. Attributes that it may "
            f"take: {', '.join(spec.attributes) or 'none'}; outputs come last."
        )
    if not spec.takes_kernels:
        raise ValueError(
            f"[kernel] expected an op that declares its outputs, got {spec.name}, which only has a "
            "reference. Register a kernel for another op."
        )
    if spec.outputs is None and outputs:
        raise ValueError(
            f"[kernel] expected {entry.name!r} of {spec.name} to work in place on "
            f"{', '.join(spec.mutates)}, but it has further parameters {', '.join(sorted(outputs))}. "
            "Take them out."
        )


def build_launchers(backend: Backend, spec: OpSpec) -> tuple[Launcher, ...]:
    """Return the launchers of an op on a backend in the order in which they are tried."""
    if not spec.takes_kernels and not registry.kernels(spec.name, backend.name):
        return ()
    wanted = registry.preferred().get(spec.name)
    if wanted == "reference":
        return ()
    launchers = []
    for entry in registry.kernels(spec.name, backend.name):
        if not entry.deterministic and entry.name != wanted:
            continue
        launchers.append(
            Launcher(spec, entry, backend.make_launch(spec, entry), backend.kernel_function(entry))
        )
    launchers.sort(key=lambda launcher: launcher.name != wanted)  # stable: priority order otherwise
    return tuple(launchers)


def float_dtype(spec: OpSpec, call: dict[str, Any]) -> str | None:
    """Return the name of the call's float dtype (the first array's, where arrays disagree)."""
    for name in spec.arrays:
        array = call[name]
        if array is not None and array.dtype.kind == "f" and name not in HYPER_ARRAYS:
            return dtype_name(array.dtype)
    return None


@lru_cache(maxsize=64)
def dtype_name(dtype: DType) -> str:
    """Return a dtype's name; NumPy takes microseconds to make it, which every call would pay."""
    return str(dtype.name)


HYPER_ARRAYS = frozenset({"lr", "scale", "norm"})
"""Arrays of one float64 element that steer an optimiser step, whatever the parameters' dtype."""


def _mixed(spec: OpSpec, call: dict[str, Any], dtype: str | None) -> bool:
    for name in spec.arrays:
        array = call[name]
        if (
            array is not None
            and array.dtype.kind == "f"
            and name not in HYPER_ARRAYS
            and dtype_name(array.dtype) != dtype
        ):
            return True
    return False


class Plan:
    """What the calls of one op with the same shapes, dtypes and attributes have in common.

    Everything that a call decides is a static rule by these, so the second such call need not
    decide it again: it allocates and calls.
    """

    __slots__ = ("constants", "function", "kernel", "name", "outputs", "pick")

    def __init__(self, spec: OpSpec, launcher: Launcher, call: dict[str, Any]) -> None:
        self.name, self.kernel = spec.name, launcher.name
        self.function: Any = launcher.function
        outputs = {} if spec.outputs is None else spec.outputs(**call)
        self.outputs = tuple(outputs.values())
        slots = [*spec.arrays, *outputs, *spec.attributes]
        order = [slots.index(parameter) for parameter in launcher.parameters]
        self.pick: Any = itemgetter(*order) if len(order) > 1 else lambda slots: (slots[order[0]],)
        """Takes the kernel's arguments, in its order, from arrays, outputs and constants."""
        self.constants = tuple(
            launcher.choices[name][call[name]] if name in launcher.choices else call[name]
            for name in spec.attributes
        )

    def run(self, backend: Backend, arrays: tuple[Any, ...]) -> Any:
        """Run the kernel on arrays that are contiguous."""
        backend.allocator.op = self.name
        empty = backend.empty
        outputs = [empty(shape, dtype) for shape, dtype in self.outputs]
        backend.before_launch()
        self.function(*self.pick((*arrays, *outputs, *self.constants)))
        backend.ran[self.name] = self.kernel
        if len(outputs) == 1:
            return outputs[0]
        return tuple(outputs) if outputs else None


MOST_PLANS = 4096


def _key(spec: OpSpec, arrays: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
    """Return what a plan depends on; None for a call that makes its way without one."""
    if len(arrays) != len(spec.arrays):
        return None
    key: list[Any] = [spec.name]
    for array in arrays:
        if array is None:
            key.append(None)
        elif array.flags.c_contiguous:
            key += (array.shape, array.dtype)
        else:
            return None
    key += attributes.items()
    for name in spec.float_attributes:
        if not attributes.get(name, 1.0):  # 0.0 and -0.0 are equal, but not the same number
            key.append(repr(attributes[name]))
    return tuple(key)


def run_kernel(
    backend: Backend,
    spec: OpSpec,
    launchers: tuple[Launcher, ...],
    arrays: tuple[Any, ...],
    attributes: dict[str, Any],
) -> Any:
    """Run an op with the first kernel that serves the call, else with the reference."""
    key = _key(spec, arrays, attributes)
    try:
        plan = backend.plans.get(key)
    except TypeError:  # an attribute that cannot be hashed
        key = plan = None
    if plan is not None:
        return plan.run(backend, arrays)
    call = spec.bind(arrays, attributes)
    dtype = float_dtype(spec, call)
    reason: str | None = "arrays of different float dtypes"
    if not _mixed(spec, call, dtype):
        for launcher in launchers:
            refused = launcher.refusal(spec, call, dtype)
            if refused is None:
                if key is not None and launcher.function is not None:
                    if len(backend.plans) >= MOST_PLANS:
                        backend.plans.clear()
                    backend.plans[key] = Plan(spec, launcher, call)
                return _launch(backend, spec, launcher, call)
            if reason is None or launcher is launchers[0]:
                reason = f"{launcher.name} does not serve {refused}"
    if dtype is not None or not all(launcher.entry.floats_only for launcher in launchers):
        _note_fallback(backend, spec, reason or "no kernel serves the call")
    backend.ran[spec.name] = "reference"
    with np.errstate(all="ignore"):
        return spec.reference(backend, *arrays, **attributes)


def _note_fallback(backend: Backend, spec: OpSpec, reason: str) -> None:
    if backend.strict:
        raise BackendError(
            f"[{spec.name}] expected a {backend.name} kernel that serves the call, but {reason}. "
            "Change the call, or leave strict mode to run the reference."
        )
    key = (spec.name, reason)
    if key not in backend.counters.fallbacks:
        warnings.warn(
            f"[{spec.name}] the {backend.name} backend runs the slower reference: {reason}.",
            FallbackWarning,
            stacklevel=4,
        )
    backend.counters.fallbacks[key] += 1


def _launch(backend: Backend, spec: OpSpec, launcher: Launcher, call: dict[str, Any]) -> Any:
    for name in spec.arrays:
        array = call[name]
        if array is not None and not array.flags.c_contiguous:
            if name in spec.mutates:
                raise ValueError(
                    f"[{spec.name}] expected {name} to be contiguous, since it is changed in place, "
                    f"got strides {array.strides}. Pass a contiguous array."
                )
            call[name] = backend.contiguous(array)
            backend.counters.copies += 1
    outputs: dict[str, Array] = {}
    if spec.outputs is not None:
        backend.allocator.op = spec.name
        for name, (shape, dtype) in spec.outputs(**call).items():
            outputs[name] = backend.empty(shape, dtype)
    for name, positions in launcher.choices.items():
        call[name] = positions[call[name]]
    backend.before_launch()
    launcher.call(**call, **outputs)
    backend.ran[spec.name] = launcher.name
    results = tuple(outputs.values())
    if not results:
        return None
    return results[0] if len(results) == 1 else results
