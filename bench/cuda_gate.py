"""The CUDA kernels compiled for real GPUs, without one: registers, shared memory, and no spills.

    python -m trine.bench.cuda_gate --out bench/results/cuda-kernels.md [--collect]

NVRTC, from the package `nvidia-cuda-nvrtc`, is the compiler that CuPy uses; its version here decides
the registers. Every kernel that is registered is compiled for every architecture with CuPy's options.
What g++ accepts and NVRTC does not (INFINITY, host headers) shows here. A kernel that keeps arrays in
local memory (a spill, a stack frame) is an error, and so is one that takes so many registers that its
largest block cannot be launched. Otherwise the number of registers is not held against the table:
the assembler does not choose the same on every machine (155 and 171 for one kernel).
"""

from __future__ import annotations

import ctypes
import importlib.util
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any

import typer

from trine.atomic import make_folder, write_text
from trine.backends import get_backend
from trine.backends.cases import all as all_cases
from trine.backends.cases.check import check_op
from trine.errors import BackendError
from trine.kernels import cuda
from trine.kernels.cuda import emulator
from trine.kernels.cuda.emulator.source import kernels, strip_comments

ARCHITECTURES = (75, 80, 90, 100)
OPTIONS = (
    "--std=c++17", "-ftz=true", "--device-as-default-execution-space", "--ptxas-options=-v",
)  # fmt: skip
"""CuPy's, and that the assembler tells what a kernel takes."""
INCLUDE = Path(cuda.__file__).parent / "include"
INSTANCES = Path(cuda.__file__).parent / "instances.txt"
"""The kernels that calls launch; a test fails when one launches another."""
TABLE = "bench/results/cuda-kernels.md"
TENSOR, TENSOR_CORES = re.compile("TF32|BF16"), 80
"""Kernels by tensor cores, and the first architecture whose cores take these numbers."""
REGISTERS = 65_536
"""Registers of a multiprocessor, the most that a block can have."""
LARGEST_BLOCK = 512
"""Threads that a kernel without `__launch_bounds__` is launched with at most."""
ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\S+)' for '\S+'"
    r"|(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads"
    r"|Used (?P<registers>\d+) registers(?P<rest>[^\n]*)"
)


@dataclass(frozen=True)
class Source:
    """A file and the kernels in it that are launched."""

    path: Path
    options: tuple[str, ...]
    expressions: tuple[str, ...]

    def on(self, architecture: int) -> Source:
        """Return the source with the kernels that the architecture can run."""
        can = architecture >= TENSOR_CORES
        return replace(
            self, expressions=tuple(e for e in self.expressions if can or not TENSOR.search(e))
        )

    def largest_blocks(self) -> dict[str, int]:
        """Return the threads of the largest block of each kernel, by the kernel's name."""
        declared = kernels(strip_comments(self.path.read_text()))
        return {kernel.name: int(kernel.bounds) or LARGEST_BLOCK for kernel in declared}


@dataclass(frozen=True)
class Compiled:
    """What one kernel takes on one architecture."""

    file: str
    kernel: str
    architecture: int
    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int
    threads: int
    """Of its largest block."""


def sources() -> list[Source]:
    """Return every source of the package with its kernels, as `INSTANCES` lists them."""
    found: dict[str, list[str]] = {}
    for line in INSTANCES.read_text().splitlines():
        file, _, expression = line.partition(": ")
        found.setdefault(file, []).append(expression)
    return [
        Source(INSTANCES.with_name(file), (), tuple(expressions))
        for file, expressions in sorted(found.items())
    ]


def collect(progress: Callable[[str], None]) -> list[str]:
    """Return the lines of `INSTANCES`: those it has, and what all ops' cases launch.

    What only larger shapes launch than the cases have stays listed; a kernel that is gone does not
    compile, and so is found. Needs the emulator's stand-in in the place of CuPy.
    """
    backend = get_backend("cupy")
    for case in all_cases():
        progress(case.op)
        check_op(case.op, "cupy")
    return sorted({*INSTANCES.read_text().splitlines(), *instances(backend)})


def instances(backend: Any) -> list[str]:
    """Return the package's kernels that a cupy backend has compiled so far."""
    compiled = ((path, expression) for path, _, expression in backend._modules)
    return sorted(f"{p.name}: {e}" for p, e in compiled if p.parent == INSTANCES.parent)


class Nvrtc:
    """The few functions of NVRTC that are needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def _ask(self, name: str, *args: Any) -> int:
        return int(getattr(self._library, name)(*args))

    def _text(self, program: ctypes.c_void_p, what: str) -> str:
        size = ctypes.c_size_t()
        self._ask(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._ask(f"nvrtcGet{what}", program, buffer)
        return buffer.value.decode(errors="replace")

    def version(self) -> str:
        """Return the version, e.g. "13.0"."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._ask("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def compile(self, source: Source, architecture: int) -> tuple[str, dict[str, str]]:
        """Return the log, and the mangled name of each kernel.

        Raises BackendError with the compiler's words if the source does not compile.
        """
        program = ctypes.c_void_p()
        code = source.path.read_bytes()
        name = source.path.name.encode()
        self._ask("nvrtcCreateProgram", ctypes.byref(program), code, name, 0, None, None)
        try:
            for expression in source.expressions:
                self._ask("nvrtcAddNameExpression", program, expression.encode())
            words = [*OPTIONS, f"-arch=sm_{architecture}", f"-I{INCLUDE}", *source.options]
            options = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
            failed = self._ask("nvrtcCompileProgram", program, len(words), options)
            log = self._text(program, "ProgramLog")
            if failed:
                raise BackendError(
                    f"[cuda_gate] expected {source.path.name} to compile for sm_{architecture}, but "
                    f"NVRTC says:\n{log}"
                )
            lowered = {}
            for expression in source.expressions:
                mangled = ctypes.c_char_p()
                self._ask(
                    "nvrtcGetLoweredName", program, expression.encode(), ctypes.byref(mangled)
                )
                lowered[(mangled.value or b"").decode()] = expression
            return log, lowered
        finally:
            self._ask("nvrtcDestroyProgram", ctypes.byref(program))


@lru_cache(maxsize=1)
def library() -> Path | None:
    """Return NVRTC's library from pip's package, if it is installed."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        for path in sorted(Path(folder).rglob("libnvrtc.so.*")):
            return path
    return None


def _compile(path: Path, source: Source, architecture: int) -> tuple[str, dict[str, str]]:
    return Nvrtc(path).compile(source, architecture)


def compile_all(nvrtc: Nvrtc) -> Iterator[Compiled]:
    """Yield what each kernel takes on each architecture.

    Each source is compiled by a process of its own: what a process has compiled before, and what it
    compiles beside, changes the registers that the assembler gives by more than the one or two that
    come and go anyway. Raises BackendError as `Nvrtc.compile` does.
    """
    work = [
        (source.on(architecture), architecture)
        for source in sources()
        for architecture in ARCHITECTURES
    ]
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(os.cpu_count(), mp_context=fresh, max_tasks_per_child=1) as pool:
        done = pool.map(partial(_compile, nvrtc.path), *zip(*work, strict=True))
        for (source, architecture), (log, lowered) in zip(work, done, strict=True):
            found = list(_read(log, lowered, source, architecture))
            missing = set(source.expressions) - {compiled.kernel for compiled in found}
            if missing:
                raise BackendError(
                    f"[cuda_gate] expected the assembler's report on {', '.join(sorted(missing))} of "
                    f"{source.path.name}, found none. Is it a __global__ function?"
                )
            yield from found


def _read(
    log: str, lowered: dict[str, str], source: Source, architecture: int
) -> Iterator[Compiled]:
    threads = source.largest_blocks()
    name, stack, spill = "", 0, 0
    for match in ENTRY.finditer(log):
        if match["name"]:
            name = match["name"]
        elif match["stack"]:
            stack, spill = int(match["stack"]), int(match["stores"]) + int(match["loads"])
        elif name in lowered:
            shared = re.search(r"(\d+) bytes smem", match["rest"])
            shared_bytes = int(shared[1]) if shared else 0
            kernel = lowered[name]
            yield Compiled(
                source.path.name, kernel, architecture, int(match["registers"]), shared_bytes,
                stack, spill, threads[kernel.partition("<")[0]],
            )  # fmt: skip


def page(found: list[Compiled], version: str) -> str:
    """Return the table as Markdown."""
    lines = [
        "# CUDA kernels, compiled",
        "",
        f"Made by `python -m trine.bench.cuda_gate` with NVRTC {version}, for sm_"
        f"{', sm_'.join(map(str, ARCHITECTURES))}: registers a thread on each (- where tensor cores lack the "
        "type), static shared memory of a block. No kernel spills; none has a stack frame but sine and "
        "cosine, whose is CUDA's own. On another machine the assembler may choose some registers more or "
        "less.",
        "",
        "| file | kernel | registers | shared bytes |",
        "|---|---|---|---|",
    ]
    by_kernel: dict[tuple[str, str], list[Compiled]] = {}
    for one in found:
        by_kernel.setdefault((one.file, one.kernel), []).append(one)
    for (file, kernel), rows in sorted(by_kernel.items()):
        took = {row.architecture: str(row.registers) for row in rows}
        registers = " ".join(took.get(architecture, "-") for architecture in ARCHITECTURES)
        shared = max(row.shared_bytes for row in rows)
        lines.append(f"| {file} | `{kernel}` | {registers} | {shared} |")
    return "\n".join(lines) + "\n"


FRAMES = frozenset({"trigonometric<float>", "trigonometric<double>"})
"""Kernels with a stack frame that is not ours: CUDA's sine and cosine reduce large angles by a table."""


def spilling(found: list[Compiled]) -> list[str]:
    """Return a line for each kernel with a spill or a stack frame."""
    return [
        f"{one.file} {one.kernel} on sm_{one.architecture}: {one.stack_bytes} bytes of stack, "
        f"{one.spill_bytes} bytes of spills"
        for one in found
        if one.spill_bytes or (one.stack_bytes and one.kernel not in FRAMES)
    ]


def crowded(found: list[Compiled]) -> list[str]:
    """Return a line for each kernel whose largest block has more registers than there are.

    A GPU hands them out by 8 a thread, and refuses to launch such a block.
    """
    return [
        f"{one.file} {one.kernel} on sm_{one.architecture}: {one.registers} registers a thread, "
        f"{one.threads} threads"
        for one in found
        if -(-one.registers // 8) * 8 * one.threads > REGISTERS
    ]


def main(
    out: Annotated[Path, typer.Option(help="Write the table here (Markdown).")],
    again: Annotated[
        bool, typer.Option("--collect", help="Find out first, by the emulator, what is launched.")
    ] = False,
) -> None:
    """Compile every CUDA kernel for every architecture and write what it takes."""
    if again:
        sys.path.insert(0, str(emulator.stand_in_folder()))
        write_text(INSTANCES, "\n".join(collect(typer.echo)) + "\n")
    path = library()
    if path is None:
        raise BackendError(
            "[cuda_gate] expected NVRTC, found none. Install it: pip install nvidia-cuda-nvrtc"
        )
    nvrtc = Nvrtc(path)
    found = list(compile_all(nvrtc))
    bad = spilling(found)
    if bad:
        raise BackendError("[cuda_gate] expected no spills, found:\n" + "\n".join(bad))
    bad = crowded(found)
    if bad:
        raise BackendError(
            f"[cuda_gate] expected at most {REGISTERS} registers a block, found:\n"
            + "\n".join(bad)
            + "\nDeclare the kernel's threads: __launch_bounds__."
        )
    make_folder(out.parent)
    write_text(out, page(found, nvrtc.version()))
    typer.echo(f"{len(found)} compilations, written to {out}")


if __name__ == "__main__":
    typer.run(main)
