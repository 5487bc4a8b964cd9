"""What an op of the backend contract is: its name, arrays, attributes and outputs.

`@op` reads all of that from the signature of the reference method, which therefore is the one
declaration that kernels, checks, benchmarks and documentation share:

    @op(outputs=max_pool2d_outputs)
    def max_pool2d(self, x, *, kernel_size: tuple[int, int], ...) -> tuple[Array, Array]: ...

Positional parameters are arrays (a default of None marks an optional one), keyword-only parameters
are attributes. `outputs` receives the same arguments and returns name -> (shape, dtype) in order.
The decorated method runs a kernel where the backend has one that serves the call
(`trine.backends.dispatch`), else the body it decorates, which is the reference.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np

from trine.backends import dispatch
from trine.backends.dispatch import run_kernel
from trine.dtypes import DType

Activation = Literal["none", "relu", "sigmoid", "tanh"]
"""Activations that fused ops apply; kernels receive the position in this list."""

OutputRule = Callable[..., dict[str, tuple[tuple[int, ...], DType]]]

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Attribute:
    """A keyword-only argument of an op: a number, a tuple of ints or one of a list of names."""

    name: str
    annotation: Any
    default: Any = REQUIRED
    choices: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


@dataclass(frozen=True)
class OpSpec:
    """The declaration of an op."""

    name: str
    reference: Callable[..., Any]
    arrays: tuple[str, ...]
    optional: frozenset[str]
    attributes: dict[str, Attribute]
    outputs: OutputRule | None
    mutates: tuple[str, ...]
    host_bound: bool
    user: bool
    """Whether a user defined it rather than the contract."""
    _defaults: dict[str, Any] = field(repr=False)
    float_attributes: tuple[str, ...] = ()
    """Attributes that may be floats."""

    @property
    def takes_kernels(self) -> bool:
        """Whether kernels can be registered: the op says what it writes."""
        return self.outputs is not None or bool(self.mutates)

    def bind(self, arrays: tuple[Any, ...], attributes: dict[str, Any]) -> dict[str, Any]:
        """Return the call's arrays and attributes by name, with defaults filled in."""
        call = dict(zip(self.arrays, arrays, strict=False))
        call.update(self._defaults)
        for name in self.optional:
            call.setdefault(name, None)
        if len(arrays) < len(self.arrays):  # arrays given by name
            for name in self.arrays[len(arrays) :]:
                if name in attributes:
                    call[name] = attributes[name]
        call.update(attributes)
        return call


OPS: dict[str, OpSpec] = {}
"""Every op of the contract by name, those that users define included."""

Method = TypeVar("Method", bound=Callable[..., Any])


def make_spec(
    reference: Callable[..., Any],
    *,
    name: str | None = None,
    outputs: OutputRule | None = None,
    mutates: tuple[str, ...] = (),
    host_bound: bool = False,
    user: bool = False,
) -> OpSpec:
    """Read an op's declaration from the signature of its reference."""
    hints = typing.get_type_hints(reference)
    parameters = list(inspect.signature(reference).parameters.values())[1:]  # without self
    arrays: list[str] = []
    optional: set[str] = set()
    attributes: dict[str, Attribute] = {}
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            annotation = hints.get(parameter.name, Any)
            choices = (
                typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()
            )
            attributes[parameter.name] = Attribute(
                parameter.name, annotation, parameter.default, tuple(choices)
            )
        else:
            arrays.append(parameter.name)
            if parameter.default is None:
                optional.add(parameter.name)
    return OpSpec(
        name=name or reference.__name__,
        reference=reference,
        arrays=tuple(arrays),
        optional=frozenset(optional),
        attributes=attributes,
        outputs=outputs,
        mutates=mutates,
        host_bound=host_bound,
        user=user,
        _defaults={a.name: a.default for a in attributes.values() if not a.required},
        float_attributes=tuple(n for n, a in attributes.items() if "float" in str(a.annotation)),
    )


def op(
    *,
    outputs: OutputRule | None = None,
    mutates: tuple[str, ...] = (),
    host_bound: bool = False,
) -> Callable[[Method], Method]:
    """Declare the decorated method of a backend as an op with this body as its reference.

    `mutates` names the arrays that the op changes in place. `host_bound` marks an op whose
    reference must read device values on the host.
    """

    def decorate(reference: Method) -> Method:
        spec = make_spec(reference, outputs=outputs, mutates=mutates, host_bound=host_bound)
        OPS[spec.name] = spec
        return typing.cast(Method, bind_op(spec))

    return decorate


def bind_op(spec: OpSpec) -> Callable[..., Any]:
    """Return the backend method that dispatches calls of an op to a kernel or the reference."""
    reference, name = spec.reference, spec.name

    def run(self: Any, arrays: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
        launchers = self.launchers(spec)
        if launchers:
            return run_kernel(self, spec, launchers, arrays, attributes)
        self.ran[name] = "reference"
        with np.errstate(all="ignore"):  # Inf and NaN are results, as on every other device
            return reference(self, *arrays, **attributes)

    @functools.wraps(reference)
    def method(self: Any, *arrays: Any, **attributes: Any) -> Any:
        if dispatch.observer is not None:
            return dispatch.observer(self, spec, run, arrays, attributes)
        return run(self, arrays, attributes)

    return method
