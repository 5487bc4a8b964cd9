"""`trine check --emulate`: the same check in a process whose `import cupy` takes the emulator."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from trine.cli.output import notes
from trine.errors import suggest
from trine.kernels import load_file
from trine.kernels.cuda import emulator
from trine.kernels.registry import all_kernels


def check(ops: Sequence[str], files: Sequence[Path], backend: str, *, json: bool) -> None:
    """Check CUDA kernels on the CPU; exits with 1 if one fails.

    Without ops, those that the files have CUDA kernels for, or that any CUDA kernel serves. Raises
    ToolchainError where the emulator cannot run, ValueError where there is no CUDA kernel.
    """
    if backend not in ("all", "cupy"):
        raise suggest("check", "backend to emulate", backend, ("cupy",))
    emulator.require()
    names = list(ops) or cuda_ops(files)
    if not names:
        where = f"in {', '.join(map(str, files))}" if files else "in the package"
        raise ValueError(
            f"[check] expected a CUDA kernel {where}, found none. Register one with cuda_kernel(...)."
        )
    notes.print("CUDA kernels run on the CPU, by the emulator", highlight=False)
    command = [sys.executable, "-c", "from trine.cli import main; main()", "check", *names]
    command += ["--backend", "cupy", *(["--json"] if json else [])]
    for file in files:
        command += ["--kernel-file", str(file)]
    with subprocess.Popen(
        command, env=emulator.environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        raise SystemExit(process.returncode)


def cuda_ops(files: Sequence[Path]) -> list[str]:
    """Return the ops for which the files, or without files the package, have CUDA kernels."""
    entries = [entry for file in files for entry in load_file(file)] if files else all_kernels()
    return sorted({entry.op for entry in entries if entry.cuda is not None})
