"""What the device can do at most, measured in the same run: a copy, and products of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from trine.bench.gpu import machine, peer
from trine.bench.gpu.session import Session
from trine.bench.gpu.stopwatch import Stopwatch, Timed
from trine.kernels import registry

TITLE = "Floors"
ABOUT = (
    "A copy on the device counts the bytes read and written; products are PyTorch's (cuBLAS) on random "
    "numbers. Per cent of roof in the other tables refers to these."
)


def measure(session: Session, watch: Stopwatch, torch: Any) -> dict[str, float]:
    """Measure copy ("copy", bytes a second) and products ("fp32", ..., operations a second)."""
    session.table(TITLE, ABOUT)
    xp = session.backend.xp
    size = 1 << 12 if session.dry_run else 1 << 30
    a, b = xp.ones(size, dtype=np.uint8), xp.zeros(size, dtype=np.uint8)

    def copy() -> None:
        b[...] = a

    found = {"copy": 2 * size / watch.cold({"copy": Timed(copy)})["copy"].median * 1e6}
    _row(session, "copy", found["copy"], "TB/s", 1e12)
    if torch is None or session.dry_run:
        return found
    for precision in registry.PRECISIONS:
        found[precision] = _product(watch, torch, precision)
        _row(session, precision, found[precision], "TFLOP/s", 1e12)
    return found


def _product(watch: Stopwatch, torch: Any, precision: str) -> float:
    n = 8192
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x, y = (torch.randn(n, n, device="cuda", dtype=dtype) for _ in range(2))
    with peer.at(torch, precision):
        taken = watch.cold({precision: Timed(lambda: x @ y)}, 0.3)[precision].median
    return 2 * n**3 / taken * 1e6


def _row(session: Session, what: str, value: float, unit: str, scale: float) -> None:
    paper = machine.datasheet(session.facts["gpu"]["name"], what)
    session.add(
        TITLE,
        what=what,
        measured=value / scale,
        unit=unit,
        datasheet=None if paper is None else paper / scale,
        percent=None if paper is None else 100 * value / paper,
    )
