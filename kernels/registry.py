"""The table of kernels: one decorator puts a kernel in; check, bench and train enumerate it.

    @kernel("max_pool2d", backend="numba", name="mine", dtypes=("float32", "float64"))
    def max_pool2d(x, kernel_size, stride, padding, out, argmax): ...

A kernel's parameters are named like the arrays, attributes and outputs of its op, in the op's
order with the outputs last. An attribute that a kernel leaves out must have its default value in
the calls which that kernel serves. The registry knows no backend: backends look kernels up here,
choose among them (`trine.backends.dispatch`) and fall back on their reference.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trine.errors import suggest

BACKENDS = ("numpy", "numba", "cupy")
KERNEL_DTYPES = ("float32", "float64")
PRECISIONS = ("fp32", "tf32", "bf16")
"""To what the factors of products of float32 are rounded; fp32 leaves them as they are."""


@dataclass(frozen=True)
class CudaSource:
    """Where a CUDA kernel's code lies and how it is launched."""

    path: Path
    function: str
    """The kernel that is launched where a launch names none: a name expression in which {T} is the
    float type."""
    launch: Callable[..., Any]
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kernel:
    """One registered kernel: which op it computes, on which backend, for which calls."""

    op: str
    backend: str
    name: str
    function: Callable[..., Any]
    parameters: tuple[str, ...]
    dtypes: tuple[str, ...] = KERNEL_DTYPES
    supports: Callable[..., bool] | None = None
    priority: int = 0
    deterministic: bool = True
    user: bool = False
    """Whether it comes from a user's file rather than from the package."""
    cuda: CudaSource | None = field(default=None, compare=False)
    flops: Callable[..., float] | float | None = field(default=None, compare=False)
    """Its own arithmetic, where it is less than the op's: of a call, or as a factor."""
    replayable: bool = True
    """Whether all that it does with numbers is done by what it launches, none of it in Python."""
    precision: str = "fp32"
    """Kernels of another than fp32 serve only in that mode of the backend, or preferred by name."""
    floats_only: bool = False
    """Whether calls without any float array are the reference's by declaration, not by refusal."""

    def work(self, call: Mapping[str, Any], op_flops: float) -> float:
        """Return the operations that the kernel really does in a call, given those of the op."""
        if self.flops is None:
            return op_flops
        return float(self.flops(**call)) if callable(self.flops) else float(self.flops) * op_flops


_kernels: dict[tuple[str, str], list[Kernel]] = {}
_preferred: dict[str, str] = {}
_generation = 0
_loading_user_file = False


def generation() -> int:
    """Return a number that changes whenever a kernel or a preference is added.

    Backends compare it to know when the choices that they remember are out of date.
    """
    return _generation


def _is_users(function: Callable[..., Any]) -> bool:
    """Return whether a user's file registers a kernel; it may be the first to import ours."""
    return _loading_user_file and not function.__module__.startswith("trine.")


def _touch() -> None:
    global _generation  # noqa: PLW0603  one counter for the one table
    _generation += 1


def _add(entry: Kernel) -> None:
    if entry.backend not in BACKENDS:
        raise suggest("kernel", "backend", entry.backend, BACKENDS)
    for dtype in entry.dtypes:
        if dtype not in KERNEL_DTYPES:
            raise suggest("kernel", "dtype", dtype, KERNEL_DTYPES)
    if entry.precision not in PRECISIONS:
        raise suggest("kernel", "precision", entry.precision, PRECISIONS)
    kernels = _kernels.setdefault((entry.op, entry.backend), [])
    for index, old in enumerate(kernels):
        if old.name == entry.name:
            if not (old.user and entry.user):
                raise ValueError(
                    f"[kernel] expected a new name for a {entry.backend} kernel of {entry.op}, got "
                    f"{entry.name!r}, which is taken. Choose another name."
                )
            kernels[index] = entry  # a user's file loaded again replaces what it registered before
            break
    else:
        kernels.append(entry)
    _touch()


def kernel(
    op: str,
    *,
    backend: str,
    name: str,
    dtypes: tuple[str, ...] = KERNEL_DTYPES,
    supports: Callable[..., bool] | None = None,
    priority: int = 0,
    deterministic: bool = True,
    flops: Callable[..., float] | float | None = None,
    replayable: bool = True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as a kernel of `op` on `backend` under `name`.

    `supports(**call)` receives the arrays and attributes of a call by name and answers whether the
    kernel serves it: a static rule by shapes, since choosing by time would break reproducibility.
    Among the kernels that serve a call the highest `priority` is taken, then the first registered.
    A kernel that is not `deterministic` runs only when it is preferred by name. One that computes
    its op with less arithmetic than the op's definition says so by `flops`: a factor (1 / 2.25 for
    Winograd's F(2, 3)), or a function of the call; benchmarks refuse times that beat the machine.
    One whose Python part reads or computes numbers is not `replayable`: a captured step then calls
    it as a whole instead of repeating its launches.

    Raises ValueError for an unknown backend or dtype and for a name that is taken.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        python = getattr(function, "py_func", function)
        _add(
            Kernel(
                op=op,
                backend=backend,
                name=name,
                function=function,
                parameters=tuple(inspect.signature(python).parameters),
                dtypes=tuple(dtypes),
                supports=supports,
                priority=priority,
                deterministic=deterministic,
                user=_is_users(python),
                flops=flops,
                replayable=replayable,
            )
        )
        return function

    return register


def cuda_kernel(
    op: str,
    *,
    name: str,
    source: str | Path,
    function: str,
    launch: Callable[..., Any],
    dtypes: tuple[str, ...] = KERNEL_DTYPES,
    supports: Callable[..., bool] | None = None,
    priority: int = 0,
    deterministic: bool = True,
    options: tuple[str, ...] = (),
    flops: Callable[..., float] | float | None = None,
    floats_only: bool = False,
    precision: str = "fp32",
) -> None:
    """Register a CUDA C++ kernel of `op`, e.g. function="max_pool2d<{T}>" of source="pool.cu".

    `source` is relative to the file that calls. `launch(**call)` receives the op's arrays,
    attributes and outputs by name and returns a `trine.kernels.cuda.launch.Launch` or several: the
    grid, the block and the kernel's arguments, whose scalars are converted to the types that the
    `.cu` declares. Where "{T}" stands in a function's name the call's float type is put. A kernel of
    an op that also takes integers is `floats_only`: the reference serves calls without any float.
    One that rounds the factors of its products says so by `precision`, "tf32" or "bf16", and serves
    only where that was asked for (`trine.precision`).

    Raises FileNotFoundError if the source is missing.
    """
    caller = Path(sys._getframe(1).f_code.co_filename).parent  # inspect.stack() reads every source
    path = Path(source) if Path(source).is_absolute() else caller / source
    if not path.is_file():
        raise FileNotFoundError(
            f"[cuda_kernel] expected a CUDA source, found no file {path}. Name it relative to the "
            "Python file that registers it."
        )
    _add(
        Kernel(
            op=op,
            backend="cupy",
            name=name,
            function=launch,
            parameters=tuple(inspect.signature(launch).parameters),
            dtypes=tuple(dtypes),
            supports=supports,
            priority=priority,
            deterministic=deterministic,
            user=_is_users(launch),
            cuda=CudaSource(path, function, launch, options),
            flops=flops,
            floats_only=floats_only,
            precision=precision,
        )
    )


def kernels(op: str, backend: str) -> tuple[Kernel, ...]:
    """Return the kernels of an op on a backend, best first."""
    found = _kernels.get((op, backend), [])
    return tuple(sorted(found, key=lambda k: -k.priority))


def all_kernels() -> tuple[Kernel, ...]:
    """Return every registered kernel."""
    return tuple(entry for found in _kernels.values() for entry in found)


def prefer(op: str, name: str | None) -> None:
    """Prefer the kernel `name` wherever it serves a call of `op`; None takes the preference back.

    The name "reference" prefers the reference over every kernel. Raises ValueError if no backend
    has such a kernel.
    """
    if name is None:
        _preferred.pop(op, None)
    else:
        known = {k.name for (o, _), found in _kernels.items() if o == op for k in found}
        if name not in known | {"reference"}:
            raise suggest("prefer", f"kernel of {op}", name, known | {"reference"})
        _preferred[op] = name
    _touch()


def preferred() -> Mapping[str, str]:
    """Return the preferences in force, op to kernel name."""
    return dict(_preferred)


def load_file(path: str | Path) -> tuple[Kernel, ...]:
    """Run a user's Python file and return the kernels that it registered.

    Raises FileNotFoundError if there is no such file; what the file raises is passed on.
    """
    global _loading_user_file  # noqa: PLW0603  marks what the file registers
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise FileNotFoundError(
            f"[kernel-file] expected a Python file with kernels, found no file {file}. Check the path."
        )
    module_name = f"trine_user_kernels_{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise ValueError(
            f"[kernel-file] expected a Python file (.py), got {file}. Rename it to .py."
        )
    before = set(all_kernels())
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    _loading_user_file = True
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    finally:
        _loading_user_file = False
    return tuple(entry for entry in all_kernels() if entry.user and entry not in before)
