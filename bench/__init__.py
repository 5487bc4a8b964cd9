"""Benchmarks: kernels are timed only where they are right, and only believed where it is possible.

    from trine import bench

    report = bench.run(["conv2d"], ["numba"], shapes=["tiny"], vs=["torch"])
    for row in report:
        print(row.op, row.shape, row.name, row.median if row.rounds else row.error)
    bench.write_json(report, Path("new.json"))

`trine bench --help` teaches the command.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trine.bench.comparison import compare_files
    from trine.bench.files import read_json, write_json
    from trine.bench.harness import run
    from trine.bench.limits import Roofs, calibrate
    from trine.bench.models import MODELS
    from trine.bench.page import write_html
    from trine.bench.report import print_table
    from trine.bench.results import BenchResult, Report

_NAMES = {
    "MODELS": "models",
    "BenchResult": "results",
    "Report": "results",
    "Roofs": "limits",
    "calibrate": "limits",
    "compare_files": "comparison",
    "print_table": "report",
    "read_json": "files",
    "run": "harness",
    "write_html": "page",
    "write_json": "files",
}

__all__ = [
    "MODELS",
    "BenchResult",
    "Report",
    "Roofs",
    "calibrate",
    "compare_files",
    "print_table",
    "read_json",
    "run",
    "write_html",
    "write_json",
]


def __getattr__(name: str) -> Any:
    # A process that only measures memory must not hold all of this.
    if name in _NAMES:
        return getattr(importlib.import_module(f"trine.bench.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'trine.bench' has no attribute {name!r}")
