"""The peak memory of a process that does some training steps.

Two libraries in one process cannot be told apart, so each gets a process of its own, with the
libraries' code included: what a user's machine must hold. Kernels are compiled already; compiling
takes memory that training does not. The allocator is as users have it: not pinned.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from trine.bench.models import MODELS

CODE = "import sys; from trine.bench.memory import main; main(*sys.argv[1:])"
STEPS = 5
OURS = ("numpy", "numba", "cupy")


def peak_bytes() -> int | None:
    """Return the most memory that this process ever held; None where the system does not say.

    Not getrusage's ru_maxrss first: on Linux a child starts with the figure of its parent.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource  # noqa: PLC0415  not on Windows
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def of_steps(side: str, model: str, batch: int, how: str = "eager") -> int | None:
    """Return the peak memory of a process with training steps of one side; None if it fails."""
    command = [sys.executable, "-c", CODE, side, model, str(batch), how]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    lines = done.stdout.split()
    return int(lines[-1]) if done.returncode == 0 and lines and lines[-1].isdigit() else None


def main(side: str, model: str, batch: str, how: str) -> None:
    """Do the steps and print the peak."""
    if side in OURS:
        from trine.bench.steps import initial_weights, make_step  # noqa: PLC0415  one side only

        weights = initial_weights(MODELS[model], 0)
        step = make_step(model, int(batch), side, "float32", weights, 0, how)
    else:
        from trine.bench.peers import torch_steps  # noqa: PLC0415  one side only

        step = torch_steps.make_step(MODELS[model], int(batch), None, 0)
    for _ in range(STEPS):
        step()
    print(peak_bytes())
