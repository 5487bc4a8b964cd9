"""Launching CUDA kernels: compile a `.cu` on first use, marshal the arguments by its signature.

The first call of its kind does all that; what it came to is kept (`prepare`), so that later calls with
the same shapes and attributes only put their arrays in.

CuPy passes a Python number as it stands and a view as its base pointer, so a wrong scalar type or a
transposed array would be garbage, silently. Here the scalar types are read from the kernel's own
declaration in the `.cu`; arrays arrive contiguous from the dispatcher.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from trine.dtypes import Array, DType
from trine.errors import BackendError
from trine.kernels.cuda.launch import Launch, Scratch
from trine.kernels.registry import Kernel

__all__ = ["BoundLaunch", "Launch", "Parameter", "Scratch", "make_cuda_launch", "marshal",
           "parse_signature", "prepare"]  # fmt: skip

MAX_INT32 = 2**31 - 1
C_TYPES = {"float32": "float", "float64": "double"}

_SCALARS: dict[str, type[np.generic]] = {
    "int": np.int32,
    "unsigned": np.uint32,
    "unsigned int": np.uint32,
    "long long": np.int64,
    "unsigned long long": np.uint64,
    "size_t": np.uint64,
    "int64_t": np.int64,
    "uint64_t": np.uint64,
    "int32_t": np.int32,
    "uint32_t": np.uint32,
    "float": np.float32,
    "double": np.float64,
    "bool": np.bool_,
}

_LIMITS = {
    scalar: (int(np.iinfo(np.dtype(scalar)).min), int(np.iinfo(np.dtype(scalar)).max))
    for scalar in _SCALARS.values()
    if issubclass(scalar, np.integer)
}


@dataclass(frozen=True)
class Parameter:
    """A parameter as the `.cu` declares it."""

    name: str
    ctype: str
    pointer: bool


def parse_signature(source: str, function: str) -> tuple[Parameter, ...]:
    """Return the parameters of a `__global__` function, read from CUDA C++ source.

    Raises ValueError if the function is not there or a parameter cannot be read.
    """
    base = function.split("<", maxsplit=1)[0].strip()
    code = re.sub(r"//[^\n]*|/\*.*?\*/", " ", source, flags=re.DOTALL)
    match = re.search(
        r"__global__\s+(?:void\s+)?(?:__launch_bounds__\s*\([^)]*\)\s*)?(?:void\s+)?"
        + re.escape(base)
        + r"\s*\(([^)]*)\)",
        code,
    )
    if match is None:
        raise ValueError(
            f"[cuda_kernel] expected `__global__ void {base}(...)` in the source, found none. Check "
            "the function's name."
        )
    parameters = []
    for text in filter(None, (part.strip() for part in match.group(1).split(","))):
        cleaned = re.sub(r"\b(const|__restrict__|__grid_constant__|volatile)\b", " ", text)
        found = re.fullmatch(r"\s*([\w:\s]+?)\s*(\*?)\s*(\w+)\s*", cleaned)
        if found is None:
            raise ValueError(
                f"[cuda_kernel] expected parameters like `const T* x` or `int n` in {base}, got "
                f"{text!r}. Write them so."
            )
        ctype = " ".join(found.group(1).split())
        parameters.append(Parameter(found.group(3), ctype, found.group(2) == "*"))
    return tuple(parameters)


def marshal(
    parameters: tuple[Parameter, ...], arguments: tuple[Any, ...], dtype: str, label: str
) -> tuple[Any, ...]:
    """Return the arguments in the types that the kernel declares; a `Scratch` stays one.

    Raises TypeError for a number where an array is declared or the other way round, or for a wrong
    number of arguments, ValueError for an integer that does not fit.
    """
    if len(parameters) != len(arguments):
        raise TypeError(
            f"[{label}] expected {len(parameters)} kernel arguments "
            f"({', '.join(p.name for p in parameters)}), got {len(arguments)}. Make the launch function "
            "return as many."
        )
    marshalled = []
    for parameter, value in zip(parameters, arguments, strict=True):
        is_array = hasattr(value, "strides") and hasattr(value, "data") and value.ndim > 0
        is_array = is_array or isinstance(value, Scratch)
        is_array = is_array or type(value).__module__.startswith("cupy")
        if parameter.pointer:
            if value is not None and not is_array:
                raise TypeError(
                    f"[{label}] expected an array for `{parameter.ctype}* {parameter.name}`, got "
                    f"{type(value).__name__}. Pass an array of the backend."
                )
            marshalled.append(np.uintp(0) if value is None else value)
            continue
        if is_array or value is None:
            raise TypeError(
                f"[{label}] expected a number for `{parameter.ctype} {parameter.name}`, got "
                f"{type(value).__name__}. Pass a number."
            )
        ctype = C_TYPES[dtype] if parameter.ctype == "T" else parameter.ctype
        scalar = _SCALARS.get(ctype)
        if scalar is None:
            raise TypeError(
                f"[{label}] expected a scalar type among {', '.join(_SCALARS)}, got {ctype!r} for "
                f"{parameter.name}. Declare one of these."
            )
        if scalar in _LIMITS:
            least, most = _LIMITS[scalar]
            if int(value) != value or not least <= int(value) <= most:
                raise ValueError(
                    f"[{label}] expected {parameter.name} to fit `{ctype}`, got {value}. Use a 64-bit "
                    "variant of the kernel, or smaller arrays."
                )
        marshalled.append(scalar(value))
    return tuple(marshalled)


@dataclass(frozen=True)
class BoundLaunch:
    """A launch with its compiled kernel and marshalled arguments; memory may still be a `Scratch`."""

    kernel: Any
    launch: Launch
    arguments: tuple[Any, ...]


def make_cuda_launch(
    entry: Kernel,
    compile_module: Callable[[Path, tuple[str, ...], str], Any],
    empty: Callable[[tuple[int, ...], DType], Any],
) -> Callable[..., tuple[BoundLaunch, ...]]:
    """Return a function that takes a call's arrays, attributes and outputs by name and launches.

    It returns what it launched. `compile_module(path, options, expression)` gives the compiled
    function of a name expression; `empty(shape, dtype)` the memory of a `Scratch`.
    """
    cuda = entry.cuda
    if cuda is None:
        raise BackendError(
            f"[{entry.op}] expected a CUDA kernel, got {entry.name!r} without a source. Register it "
            "with cuda_kernel."
        )
    parse_signature(cuda.path.read_text(), cuda.function)  # a wrong name is told at once
    known: dict[tuple[str | None, str | None, str], tuple[tuple[Parameter, ...], Any]] = {}
    """Source, function and dtype of a launch -> the kernel's parameters, and the kernel."""
    names, label = entry.parameters, f"{entry.op}.{entry.name}"
    takes_all = "call" in names

    def find(launch: Launch, dtype: str) -> tuple[tuple[Parameter, ...], Any]:
        function = launch.function or cuda.function
        path = cuda.path if launch.source is None else cuda.path.with_name(launch.source)
        parameters = parse_signature(path.read_text(), function)
        expression = function.replace("{T}", C_TYPES[dtype])
        return parameters, compile_module(path, cuda.options, expression)

    def bind(launch: Launch, dtype: str) -> BoundLaunch:
        key = (launch.source, launch.function, dtype)
        if key not in known:
            known[key] = find(launch, dtype)
        parameters, kernel = known[key]
        return BoundLaunch(kernel, launch, marshal(parameters, launch.arguments, dtype, label))

    def launch(**call: Any) -> tuple[BoundLaunch, ...]:
        floats = (v.dtype.name for v in call.values() if hasattr(v, "dtype"))
        dtype = next((name for name in floats if name in C_TYPES), "float32")
        plan = cuda.launch(**call) if takes_all else cuda.launch(**{n: call[n] for n in names})
        memory: dict[int, Any] = {}
        bound = []
        for one in (plan,) if isinstance(plan, Launch) else plan:
            ready = bind(one, dtype)
            arguments = []
            for value in ready.arguments:
                if isinstance(value, Scratch):
                    if id(value) not in memory:
                        memory[id(value)] = empty(value.shape, value.dtype)
                    value = memory[id(value)]  # noqa: PLW2901  its memory
                arguments.append(value)
            ready.kernel(one.grid, one.block, tuple(arguments), shared_mem=one.shared_bytes)
            bound.append(ready)
        return tuple(bound)

    return launch


def prepare(
    launched: Sequence[BoundLaunch],
    arrays: Sequence[Array | None],
    empty: Callable[[tuple[int, ...], DType], Any],
    address: Callable[[Array], int],
) -> Callable[..., None] | None:
    """Return a function of a call's arrays, in the order of `arrays`, that launches the same again.

    Grids, numbers, kernels and the sizes of scratch memory are those of `launched`, which must have
    been made from calls of the same shapes and attributes. None where that cannot be said of all
    arguments: one is neither an array of the call nor scratch memory, or two arrays share memory,
    which those of another call may not.
    """
    places = _places(arrays, address)
    if places is None:
        return None
    scratch: dict[int, tuple[int, Scratch]] = {}
    constants: list[Any] = []
    indices: list[list[int]] = []
    for one in launched:
        chosen = []
        for value in one.arguments:
            if isinstance(value, Scratch):
                scratch.setdefault(id(value), (len(arrays) + len(scratch), value))
                chosen.append(scratch[id(value)][0])
            elif isinstance(value, np.generic):
                chosen.append(-1 - len(constants))
                constants.append(value)
            else:
                place = places.get(address(value)) if value.size else None
                if place is None or not _alike(value, arrays[place]):
                    return None
                chosen.append(place)
        indices.append(chosen)
    first = len(arrays) + len(scratch)
    picks = [tuple(i if i >= 0 else first - 1 - i for i in chosen) for chosen in indices]
    launches = [
        (one.kernel, one.launch.grid, one.launch.block, one.launch.shared_bytes, _pick(pick))
        for one, pick in zip(launched, picks, strict=True)
    ]
    sizes = [(value.shape, value.dtype) for _, value in scratch.values()]

    def again(*given: Any) -> None:
        every = (*given, *[empty(shape, dtype) for shape, dtype in sizes], *constants)
        for kernel, grid, block, shared_bytes, pick in launches:
            kernel(grid, block, pick(every), shared_mem=shared_bytes)

    return again


def _places(
    arrays: Sequence[Array | None], address: Callable[[Array], int]
) -> dict[int, int] | None:
    """Return address -> position of the arrays that have elements; None if two share memory."""
    places = {}
    end = 0
    found = [(address(a), i, a.nbytes) for i, a in enumerate(arrays) if a is not None and a.size]
    for start, place, nbytes in sorted(found):
        if start < end:
            return None
        places[start], end = place, start + nbytes
    return places


def _alike(value: Any, array: Any) -> bool:
    return bool(value.dtype == array.dtype and value.nbytes == array.nbytes)


def _pick(places: tuple[int, ...]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    if len(places) == 1:
        return lambda every: (every[places[0]],)
    return itemgetter(*places) if places else lambda every: ()
