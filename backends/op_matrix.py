"""Which op runs a kernel, and which the reference: op x backend x dtype, forward and backward alike.

`render()` gives the text of docs/op-matrix.md; a test compares the two, so that a kernel cannot
disappear unnoticed. Backward ops are ops of their own, named OP_backward (conv2d_input_grad,
conv2d_weight_grad).
"""

from __future__ import annotations

import importlib
from typing import Any

from trine.backends import NAMES
from trine.backends.base import Backend
from trine.backends.op import OPS
from trine.kernels import registry

KERNEL_PACKAGES = {"numba": "trine.kernels.numba", "cupy": "trine.kernels.cuda"}
"""What to import so that a backend's own kernels are registered."""

REFERENCE = "reference"


def rows() -> list[dict[str, Any]]:
    """Return one row for each op of the contract, users' ops and kernels left out."""
    for package in KERNEL_PACKAGES.values():
        importlib.import_module(package)
    found = []
    for name in sorted(OPS):
        spec = OPS[name]
        if not spec.takes_kernels or getattr(Backend, name, None) is None or spec.user:
            continue
        row: dict[str, Any] = {"op": name, "host_bound": spec.host_bound}
        for backend in NAMES:
            kernels = [k for k in registry.kernels(name, backend) if not k.user]
            for dtype in registry.KERNEL_DTYPES:
                names = [k.name for k in kernels if dtype in k.dtypes]
                row[f"{backend} {dtype}"] = ", ".join(names) or REFERENCE
        found.append(row)
    return found


def render() -> str:
    """Return the matrix as a Markdown page."""
    table = rows()
    columns = [f"{b} {d}" for b in NAMES for d in registry.KERNEL_DTYPES]
    lines = [
        "# Which op runs what",
        "",
        "Made by `trine doctor --ops`. A cell names the kernels of an op, best first, or says",
        '"reference": the plain body on the backend\'s array module.',
        "",
        "| op | " + " | ".join(columns) + " |",
        "|" + " --- |" * (len(columns) + 1),
    ]
    for row in table:
        mark = " (host-bound)" if row["host_bound"] else ""
        lines.append(f"| {row['op']}{mark} | " + " | ".join(row[c] for c in columns) + " |")
    counts = [f"{c}: {sum(row[c] != REFERENCE for row in table)} of {len(table)}" for c in columns]
    return "\n".join([*lines, "", "Kernels: " + "; ".join(counts) + "."])
