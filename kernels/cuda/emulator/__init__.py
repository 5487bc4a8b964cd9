"""Runs CUDA C++ kernels on the CPU, from the same `.cu` files, and finds what is wrong in them.

    from trine.kernels.cuda import emulator
    module = emulator.Module(code, name_expressions=("scale<float>",))
    module.kernel("scale<float>").launch((4,), (256,), (x, out, np.int32(n)))

It compiles an unmodified source with g++, with a header (`native/device.h`) that gives CUDA's words
a meaning, and runs each CUDA thread as a fiber of one CPU thread. Blocks run one after another, or
all together in a cooperative launch of a small grid.

Found, and raised as `KernelError` with kernel, block, thread, array, offset and source lines:
accesses out of bounds (global, static and dynamic shared, local), shared memory read before it is
written, races in shared and global memory, barriers and warp operations that not all threads
reach, deadlock, misaligned vectors and atomics, overflow of signed integers, division by zero,
writes through const, cp.async not waited for, stack overflow, kernels that never end. Arguments
that do not fit raise `ArgumentError`, launches that a device would refuse `LaunchError`.

Order between threads comes from program order, __syncthreads, __syncwarp of the lanes in its mask,
a grid barrier, and a fence before an atomic (or volatile) store that another thread reads atomically
and follows by a fence or a barrier. A race that is meant is allowed at its line, and counted:
`// trine: allow-race(every thread stores the same flag)`.

Not modelled: blocks that run at the same time (unless cooperative), the rounding of fast intrinsics
and tensor cores, FMA contraction (there is none), speed, registers, textures, inline PTX. Denormals
count as zero in float and double, though on a GPU only in float.

`stand_in/` holds a package named `cupy` over this: with it first on the path (`environment()`)
CuPy code runs here unchanged. Product code knows nothing of it.
"""

from __future__ import annotations

import os
from pathlib import Path

from trine.kernels.cuda.emulator.build import INCLUDE, clear_cache, require, unavailable
from trine.kernels.cuda.emulator.launch import (
    MAX_SHARED_BYTES,
    MAX_THREADS,
    CompiledKernel,
    Counts,
    DeviceMemory,
    Module,
    Settings,
    allowed_races,
    configure,
)
from trine.kernels.cuda.emulator.report import (
    RULES,
    AllowedRace,
    ArgumentError,
    CompileError,
    EmulatorError,
    KernelError,
    LaunchError,
    Place,
    ToolchainError,
)

__all__ = [
    "INCLUDE",
    "MAX_SHARED_BYTES",
    "MAX_THREADS",
    "RULES",
    "AllowedRace",
    "ArgumentError",
    "CompileError",
    "CompiledKernel",
    "Counts",
    "DeviceMemory",
    "EmulatorError",
    "KernelError",
    "LaunchError",
    "Module",
    "Place",
    "Settings",
    "ToolchainError",
    "allowed_races",
    "clear_cache",
    "configure",
    "environment",
    "require",
    "stand_in_folder",
    "unavailable",
]


def stand_in_folder() -> Path:
    """Return the folder that holds the stand-in's package `cupy`, to be put first on sys.path."""
    return Path(__file__).parent / "stand_in"


def environment() -> dict[str, str]:
    """Return the variables for a subprocess whose `import cupy` takes the stand-in."""
    before = os.environ.get("PYTHONPATH")
    paths = [str(stand_in_folder()), *([before] if before else [])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
