"""`trine doctor`: what is here, what works, and the line that mends what does not."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

import trine
from trine.backends import available, cupy_probe


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def report() -> dict[str, Any]:
    """Return what `trine doctor` shows, as one value. Never throws for a broken backend."""
    backends = {
        name: {"usable": probe.ok, "reason": probe.reason, "remedy": probe.remedy}
        for name, probe in available().items()
    }
    packages = ("numpy", "numba", "llvmlite", "typer", "rich", "safetensors", "pooch")
    result: dict[str, Any] = {
        "trine": trine.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "packages": {name: _version(name) for name in packages},
        "optional": {name: _version(name) for name in ("matplotlib", "pytest", "torch")},
        "backends": backends,
        "cupy_packages": cupy_probe.installed_distributions(),
        "executable": sys.executable,
    }
    if backends["numba"]["usable"]:
        from trine.backends import threads
        from trine.kernels import numba as numba_kernels

        result["threads"] = {"layer": threads.layer(), "count": threads.get_threads()}
        result["kernel_cache"] = str(numba_kernels.cache_dir())
    return result


def run(*, ops: bool, json: bool) -> None:
    """Print the report, or the matrix of ops."""
    from trine.cli.output import console, emit_json, table

    if ops:
        from trine.backends import op_matrix

        if json:
            emit_json(op_matrix.rows())
        else:
            print(op_matrix.render())
        return
    result = report()
    if json:
        emit_json(result)
        return
    console.print(
        f"trine {result['trine']} on Python {result['python']}, {result['platform']}, "
        f"{result['cpus']} CPU(s)",
        highlight=False,
    )
    table(
        None,
        ("backend", "usable", "reason", "to mend it"),
        [
            (name, "yes" if b["usable"] else "no", b["reason"], b["remedy"])
            for name, b in result["backends"].items()
        ],
    )
    versions = {**result["packages"], **result["optional"]}
    console.print(
        ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items()),
        highlight=False,
    )
    if len(result["cupy_packages"]) > 1:
        names = " ".join(result["cupy_packages"])
        console.print(f"Several CuPy packages clash: pip uninstall -y {names}, then install one.")
    if "threads" in result:
        used = result["threads"]
        console.print(f"Numba: {used['count']} thread(s), layer {used['layer']}", highlight=False)
        console.print(f"compiled kernels: {result['kernel_cache']}", highlight=False)
