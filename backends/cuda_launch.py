"""Launching CUDA kernels: compile a `.cu` on first use, marshal the arguments by its signature.

CuPy passes a Python number as it stands and a view as its base pointer, so a wrong scalar type or a
transposed array would be garbage, silently. Here the scalar types are read from the kernel's own
declaration in the `.cu`; arrays arrive contiguous from the dispatcher.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trine.dtypes import DType
from trine.errors import BackendError
from trine.kernels.cuda.launch import Launch, Scratch
from trine.kernels.registry import Kernel

__all__ = ["Launch", "Parameter", "Scratch", "make_cuda_launch", "marshal", "parse_signature"]

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
    """Return the arguments in the types that the kernel declares.

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
        if np.issubdtype(scalar, np.integer):
            limits = np.iinfo(np.dtype(scalar))
            if int(value) != value or not limits.min <= int(value) <= limits.max:
                raise ValueError(
                    f"[{label}] expected {parameter.name} to fit `{ctype}`, got {value}. Use a 64-bit "
                    "variant of the kernel, or smaller arrays."
                )
        marshalled.append(scalar(value))
    return tuple(marshalled)


def make_cuda_launch(
    entry: Kernel,
    compile_module: Callable[[Path, tuple[str, ...], str], Any],
    empty: Callable[[tuple[int, ...], DType], Any],
) -> Callable[..., None]:
    """Return a function that takes a call's arrays, attributes and outputs by name and launches.

    `compile_module(path, options, expression)` gives the compiled function of a name expression;
    `empty(shape, dtype)` the memory of a `Scratch`.
    """
    cuda = entry.cuda
    if cuda is None:
        raise BackendError(
            f"[{entry.op}] expected a CUDA kernel, got {entry.name!r} without a source. Register it "
            "with cuda_kernel."
        )
    signatures: dict[tuple[Path, str], tuple[Parameter, ...]] = {}
    signatures[cuda.path, cuda.function] = parse_signature(cuda.path.read_text(), cuda.function)
    compiled: dict[tuple[Path, str], Any] = {}
    names = entry.parameters
    takes_all = "call" in names

    def run(launch: Launch, dtype: str, memory: dict[int, Any]) -> None:
        function = launch.function or cuda.function
        path = cuda.path if launch.source is None else cuda.path.with_name(launch.source)
        if (path, function) not in signatures:
            signatures[path, function] = parse_signature(path.read_text(), function)
        given = []
        for value in launch.arguments:
            if isinstance(value, Scratch):
                if id(value) not in memory:
                    memory[id(value)] = empty(value.shape, value.dtype)
                value = memory[id(value)]  # noqa: PLW2901  its memory
            given.append(value)
        label = f"{entry.op}.{entry.name}"
        arguments = marshal(signatures[path, function], tuple(given), dtype, label)
        expression = function.replace("{T}", C_TYPES[dtype])
        if (path, expression) not in compiled:
            compiled[path, expression] = compile_module(path, cuda.options, expression)
        compiled[path, expression](
            launch.grid, launch.block, arguments, shared_mem=launch.shared_bytes
        )

    def launch(**call: Any) -> None:
        floats = (v.dtype.name for v in call.values() if hasattr(v, "dtype"))
        dtype = next((name for name in floats if name in C_TYPES), "float32")
        plan = cuda.launch(**call) if takes_all else cuda.launch(**{n: call[n] for n in names})
        memory: dict[int, Any] = {}
        for one in (plan,) if isinstance(plan, Launch) else plan:
            run(one, dtype, memory)

    return launch
