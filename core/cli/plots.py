"""Plots of a run: curves of loss and accuracy over the epochs, and a system's own figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from trine.models.explanation import Explanation
from trine.models.figures import Curve, Drawing, Figure

if TYPE_CHECKING:
    from trine.cli.train import Run


def read_metrics(folder: Path) -> dict[str, list[float]]:
    """Return the columns of a run's metrics.jsonl."""
    columns: dict[str, list[float]] = {}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        for name, value in json.loads(line).items():
            columns.setdefault(name, []).append(float("nan") if value is None else float(value))
    return columns


def plot_run(run: Run, shown: Explanation | None = None) -> list[Path]:
    """Save the run's plots, and the figures of what it showed, as PNG in its folder; return the files.

    Raises ImportError, with the line that installs it, where matplotlib is missing.
    """
    columns = read_metrics(run.out)
    files = []
    for quantity in ("loss", "accuracy"):
        curves = [
            Curve(part, columns["epoch"], columns[f"{part}_{quantity}"])
            for part in ("train", "test")
            if f"{part}_{quantity}" in columns
        ]
        if not curves:
            continue
        file = run.out / f"{quantity}.png"
        title = f"{run.system.name}: {quantity}"
        Figure(title, "epoch", quantity, curves, log_y=quantity == "loss").save(str(file))
        files.append(file)
    if shown is None and run.system.explain is not None:
        backend = next(iter(run.model.parameters())).backend.name
        shown = run.system.explain(backend=backend, dtype="float64")
    if shown is not None:
        drawings: dict[str, Drawing] = {
            f"{run.system.name}-{k}": d for k, d in shown.drawings.items()
        }
        if shown.figure is not None:
            drawings[run.system.name] = shown.figure
        for name, drawing in drawings.items():
            file = run.out / f"{name}.png"
            drawing.save(str(file))
            files.append(file)
    return files
