"""What times depend on: versions, the CPU, threads, the allocator, what else the machine did."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trine.backends import probe
from trine.bench.peers import Peer
from trine.bench.pinning import NAMES, is_pinned

PACKAGES = ("numpy", "numba", "llvmlite", "cupy-cuda12x", "cupy-cuda13x")
FLAGS = (
    "fma", "avx", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile",
    "asimd", "sve", "sve2",
)  # fmt: skip
"""Those of a CPU's features that kernels care for."""


def _cpu() -> dict[str, Any]:
    """Return the CPU's name and features as Linux tells them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {"model": platform.processor() or platform.machine(), "flags": []}
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    have = set((fields.get("flags") or fields.get("features") or "").split())
    return {
        "model": fields.get("model name") or platform.machine(),
        "flags": [flag for flag in FLAGS if flag in have],
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def thread_count() -> int | None:
    """Return the number of threads that kernels use; None without numba."""
    if not probe("numba").ok:
        return None
    from trine.backends import threads  # noqa: PLC0415  numba comes in when it is asked for

    return threads.get_threads()


def _threads() -> dict[str, Any]:
    if not probe("numba").ok:
        return {"count": None, "layer": None}
    from trine.backends import threads  # noqa: PLC0415  numba comes in when it is asked for

    waiting = {name: os.environ[name] for name in threads.WAITING if name in os.environ}
    return {"count": threads.get_threads(), "layer": threads.layer(), "waiting": waiting}


def environment(peers: Iterable[Peer] = ()) -> dict[str, Any]:
    """Return what times depend on, as plain values."""
    packages = {name: v for name in PACKAGES if (v := _version(name)) is not None}
    return {
        "trine": importlib.metadata.version("trine"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "threads": _threads(),
        "malloc": {"pinned": is_pinned(), **{name: os.environ.get(name) for name in NAMES}},
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "packages": {**packages, **{peer.name: peer.version for peer in peers}},
    }
