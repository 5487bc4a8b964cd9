"""What the emulator raises, and how a fault in a kernel is told: what, where, and what to do."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

RULES = {
    "out-of-bounds": (
        "every access to lie inside its array",
        "Guard the index, or launch the grid that the arrays need.",
    ),
    "uninitialised-shared": (
        "shared memory to be written before it is read",
        "Write it first, and put a __syncthreads() between.",
    ),
    "race": (
        "a barrier between accesses of two threads to one place",
        "Put __syncthreads() or __syncwarp() between them, or use atomics.",
    ),
    "barrier-divergence": (
        "all threads of a block to meet at one barrier",
        "Move the barrier out of the branch, and return after the last barrier.",
    ),
    "warp-divergence": (
        "the lanes of a mask to meet at one warp operation",
        "Name in the mask exactly the lanes that arrive.",
    ),
    "warp-undefined": (
        "a warp operation with lanes that take part",
        "Use whole warps: a block size that is a multiple of 32.",
    ),
    "deadlock": ("every thread to end", "See where the threads below wait for each other."),
    "misaligned": (
        "an address that is a multiple of the access's size",
        "Use vectors only where offsets and strides are multiples of their length.",
    ),
    "int-overflow": ("integers within their type", "Compute in long long, or in unsigned."),
    "bad-shift": ("shifts by less than the width", "Check the count, or use an unsigned type."),
    "divide-by-zero": ("a divisor that is not zero", "Check the arguments of the launch."),
    "const-write": ("const arrays to stay as they are", "Drop the const, or the write."),
    "in-flight-copy": ("copies to be waited for", "Call copy_async_wait<0>() before the end."),
    "stack-overflow": ("local variables to fit a thread's stack", "Use smaller local arrays."),
    "runaway": ("the kernel to end", "Check its loops; or raise the budget in Settings."),
    "assertion": ("the kernel's own assertion to hold", "See the line."),
    "unsupported": ("what the emulator and CUDA define", "Use another function."),
    "launch-limit": ("a launch within the device's limits", "Change the grid or the block."),
}


class EmulatorError(RuntimeError):
    """Something that the emulator found wrong; the subclasses say what kind."""


class ToolchainError(EmulatorError):
    """The emulator cannot run here: not x86-64 Linux, or g++ or binutils are missing."""


class CompileError(EmulatorError):
    """A `.cu` does not compile; the message holds the compiler's."""


class LaunchError(EmulatorError):
    """A launch that the device would refuse: grid, block or shared memory."""


class ArgumentError(TypeError):
    """Arguments that do not fit the kernel's parameters in number, kind or type."""


@dataclass(frozen=True)
class Place:
    """Where a fault happened."""

    block: tuple[int, int, int]
    thread: tuple[int, int, int]
    array: str
    """The argument's or the shared array's name; empty where none is concerned."""
    offset: int
    """In bytes from the array's start; -1 where no array is concerned."""
    lines: tuple[str, ...]
    """`file:line` of the access, and for a race of the earlier one."""


class KernelError(EmulatorError):
    """A kernel did what CUDA leaves undefined; `kind` is one of `RULES`, `place` says where."""

    def __init__(self, kernel: str, kind: str, detail: str, place: Place) -> None:
        self.kernel, self.kind, self.detail, self.place = kernel, kind, detail, place
        expected, remedy = RULES[kind]
        where = f"block {place.block} thread {place.thread}"
        if place.array:
            where += f", {place.array} at byte {place.offset}"
        if place.lines:
            where += f", {place.lines[0]}"
        if len(place.lines) > 1:
            where += f"; the earlier access: {place.lines[1]}"
        super().__init__(
            f"[{kernel}] expected {expected}, but {kind}: {detail}. At {where}. {remedy}"
        )


@dataclass(frozen=True)
class AllowedRace:
    """A race at a line that carries `// trine: allow-race(reason)`."""

    kernel: str
    line: str
    reason: str


def source_line(library: Path, offset: int) -> str:
    """Return `file:line` of the call that returns to `offset` in a module, empty if unknown."""
    if offset <= 0:
        return ""
    done = subprocess.run(
        ["addr2line", "-s", "-e", str(library), hex(offset - 1)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = done.stdout.strip().split(" ")[0]
    return "" if not found or found.startswith("?") else found
