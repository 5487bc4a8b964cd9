"""What a run on a GPU depends on: the device, its driver and clocks, and the code's commit."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from trine.bench.environment import environment

CLOCKS = ("clocks.sm", "clocks.mem", "temperature.gpu", "power.draw")
ROOT = Path(__file__).parents[2]
"""The checkout, where the package is installed in place."""

DATASHEET = {
    "H200": {"copy": 4.8e12, "fp32": 67e12, "tf32": 495e12, "bf16": 989e12},
    "H100": {"copy": 3.35e12, "fp32": 67e12, "tf32": 495e12, "bf16": 989e12},
}
"""Bytes and operations a second of the SXM modules, dense, by a word in the device's name."""


def query(fields: tuple[str, ...]) -> dict[str, str]:
    """Return what nvidia-smi says of the first GPU; nothing where it is not there."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = [
        "nvidia-smi",
        "--id=0",
        f"--query-gpu={','.join(fields)}",
        "--format=csv,noheader,nounits",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    values = [value.strip() for value in done.stdout.split(",")]
    return dict(zip(fields, values, strict=True)) if len(values) == len(fields) else {}


def clocks() -> dict[str, float]:
    """Return clocks in MHz, temperature and power at this moment."""
    found = {}
    for name, value in query(CLOCKS).items():
        try:
            found[name] = float(value)
        except ValueError:  # "[N/A]"
            continue
    return found


def commit() -> str:
    """Return the commit of the code, with "+" if files differ from it; $TRINE_COMMIT wins."""
    given = os.environ.get("TRINE_COMMIT")
    if given:
        return given
    try:
        head, changes = (
            subprocess.run(
                ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno"))
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changes else "")


def facts(cuda: Any) -> dict[str, Any]:
    """Return what times and results depend on; `cuda` is `cupy.cuda`."""
    properties = cuda.runtime.getDeviceProperties(0)
    found = environment()
    found["packages"] |= _versions()
    return {
        **found,
        "commit": commit(),
        "gpu": {
            "name": properties["name"].decode(),
            "compute_capability": f"{properties['major']}.{properties['minor']}",
            "multiprocessors": properties["multiProcessorCount"],
            "memory": properties["totalGlobalMem"],
            "l2": properties["l2CacheSize"],
            "driver": query(("driver_version",)).get("driver_version"),
            "cuda_driver": cuda.runtime.driverGetVersion(),
            "cuda_runtime": cuda.runtime.runtimeGetVersion(),
            "clocks_at_start": clocks(),
        },
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in ("torch", "triton"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def datasheet(name: str, what: str) -> float | None:
    """Return a device's figure by its maker, if it is listed here."""
    for word, figures in DATASHEET.items():
        if word in name:
            return figures.get(what)
    return None
