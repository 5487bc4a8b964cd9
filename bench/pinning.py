"""Starting a benchmark's process so that no side is flattered by the allocator.

By default glibc returns each freed large block to the system and gets it anew: a page fault for
every 4 KiB, which can cost more than the kernel, and hits whoever allocates more. The thresholds
are read when a process starts, so a benchmark replaces itself by the same command with them set.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping

NAMES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
STARTED = "TRINE_BENCH_PINNED"
"""Set by `restart` only: a second restart would be an endless loop."""


def _threshold() -> str:
    """Return the largest threshold: glibc before 2.35 ignores values above 32 MiB."""
    name, version = platform.libc_ver()
    parts = tuple(int(p) for p in version.split(".")[:2] if p.isdigit())
    return str(1 << 30 if name == "glibc" and parts >= (2, 35) else 32 << 20)


def is_pinned(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether this process started with the thresholds set."""
    values = os.environ if environ is None else environ
    return all(values.get(name) for name in NAMES)


def pinned_environ() -> dict[str, str]:
    """Return the environment for a process that is to be pinned; what is set already stays."""
    return {**dict.fromkeys(NAMES, _threshold()), **os.environ}


def restart() -> None:
    """Replace this process by the same command with the thresholds set, once, on Linux.

    Standard streams, folder and process id stay. Returns if that is done already or of no use.
    """
    if not sys.platform.startswith("linux") or is_pinned() or STARTED in os.environ:
        return
    environ = {**pinned_environ(), STARTED: "1"}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
