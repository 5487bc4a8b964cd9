"""Showing and saving benchmark results."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trine.bench.harness import BenchResult

SCHEMA = 1
"""Version of the layout of the JSON."""


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def print_table(results: Sequence[BenchResult], console: Console) -> None:
    """Print one line for each kernel and shape, with its ratio to the fastest."""
    table = Table(header_style="bold")
    for name in ("op", "shape", "backend", "kernel", "median", "p10", "p90", "GFLOP/s", "GB/s",
                 "fastest / it"):  # fmt: skip
        left = name in ("op", "shape", "backend", "kernel")
        table.add_column(name, justify="left" if left else "right")
    best: dict[tuple[str, str], float] = {}
    for r in results:
        if r.times:
            key = (r.op, r.shape)
            best[key] = min(best.get(key, r.median), r.median)
    for r in results:
        head = (r.op, r.shape, r.backend, r.kernel)
        if not r.times:
            table.add_row(*map(Text, (*head, f"no time: {r.error}")))
            continue
        cells = (
            _time(r.median), _time(r.percentile(10)), _time(r.percentile(90)),
            f"{r.gflops:.3g}" if r.flops else "", f"{r.gbytes:.3g}",
            f"{best[r.op, r.shape] / r.median:.2f}",
        )  # fmt: skip
        table.add_row(*map(Text, (*head, *cells)))
    console.print(table)


def environment() -> dict[str, Any]:
    """Return what times depend on."""
    return {
        "trine": importlib.metadata.version("trine"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "packages": {
            name: importlib.metadata.version(name) for name in ("numpy", "numba", "llvmlite")
        },
    }


def write_json(results: Sequence[BenchResult], path: Path) -> None:
    """Write results with the environment and the schema's version."""
    rows = [
        {
            "op": r.op,
            "shape": r.shape,
            "backend": r.backend,
            "kernel": r.kernel,
            "dtype": r.dtype,
            "median": r.median if r.times else None,
            "p10": r.percentile(10) if r.times else None,
            "p90": r.percentile(90) if r.times else None,
            "calls": len(r.times),
            "flops": r.flops,
            "bytes": r.bytes,
            "error": r.error or None,
        }
        for r in results
    ]
    value = {"schema": SCHEMA, "environment": environment(), "results": rows}
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
