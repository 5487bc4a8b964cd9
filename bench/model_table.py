"""Train every named system and write the table of what came of it.

`python -m trine.bench.model_table --out docs/models.md --json models/measured.json` runs
`trine train NAME` for each system in a process of its own (`trine explain NAME` for those that have
nothing to train) and writes a line a system as it comes. NAME:DATA trains on another data set than
the system's own. What is not named keeps the lines that the JSON file has of it.
"""

from __future__ import annotations

import hashlib
import json as json_module
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from trine import atomic, models
from trine.atomic import make_folder
from trine.bench.environment import environment
from trine.models import System
from trine.models.measured import Measured, read

RUN = "from trine.cli import main; main()"
LIMIT = 1800
"""Seconds after which a system's run is given up."""


def data_hash(system: System, data: str | None = None) -> str:
    """Return the first half of a SHA-256 over the bytes of samples and targets.

    They are those of a named data set, or the system's own.
    """
    if not system.trainable:
        return ""
    splits, digest = system.splits(None, data), hashlib.sha256()
    for part in (splits.train, splits.test):
        for array in (part.x, part.y):
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]


def commit() -> str:
    """Return the commit of the tree that runs; marked where the tree differs from it."""
    folder = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, check=True, cwd=folder,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def measure(
    system: System, backend: str, data: str | None = None, epochs: int | None = None
) -> Measured:
    """Run a system by the command line, on its own data and epochs or others, and return its line.

    Raises RuntimeError, with the end of what it wrote, where the command fails.
    """
    verb = "train" if system.trainable else "explain"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", RUN, verb, system.name, "--backend", backend]
        command += ["--out", folder, "--progress", "none"] if system.trainable else []
        command += ["--data", data] if data is not None else []
        command += ["--epochs", str(epochs)] if epochs is not None and system.trainable else []
        started, before = time.perf_counter(), os.times()
        done = subprocess.run(
            [*command, "--json"], capture_output=True, text=True, timeout=LIMIT, check=False
        )
        seconds, after = time.perf_counter() - started, os.times()
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    report = json_module.loads(done.stdout.strip().splitlines()[-1])
    results = list(_results(system, report)) or [f"test loss {report['test_loss']:.3g}"]
    short = [row for row in report.get("shown", report.get("rows", [])) if not row["ok"]]
    return Measured(
        name=system.name,
        family=system.family,
        data=data or system.data_name or "",
        data_hash=data_hash(system, data),
        parameters=system.parameters,
        backend=report["backend"],
        epochs=report.get("epochs", 0),
        seconds=round(seconds, 1),
        result="; ".join(results),
        short="; ".join([*(_row(row) for row in short), *system.check(report)]),
        source=system.source,
        commit=commit(),
        cpu_seconds=round(cpu, 1),
    )


def _results(system: System, report: dict[str, Any]) -> Any:
    """Yield a report's figures as text: those with a reference, and the test accuracy."""
    if system.trainable and "test_accuracy" in system.expected:
        yield f"test accuracy {report['test_accuracy']:.2%}"
    rows = report.get("shown", report.get("rows", []))
    if system.shows is None and not system.trainable:
        right = sum(row["reference"] is not None for row in rows)
        yield f"{right} numbers as in the source"
        return
    yield from (_row(row) for row in rows if row["reference"] is not None)


def _row(row: dict[str, Any]) -> str:
    if row["tolerance"] == 0.0 and row["relation"] == "=" and row["reference"] == 1.0:
        return f"{row['formula']}: {'yes' if row['ok'] else 'no'}"
    return (
        f"{row['formula']} {row['symbol']} = {row['value']:.4g} "
        f"({row['relation']} {row['reference']:.4g})"
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:g}" if seconds else ""


def page(rows: list[Measured], command: str) -> str:
    """Return the table as Markdown."""
    machine = environment()
    lines = [
        "# Every system, trained",
        "",
        f"`{command}` on {machine['cpu']['model']}, {machine['cpus']} CPUs. Seconds are those of the "
        "whole process: start, data, training, evaluation; CPU seconds those of all its threads, which "
        "tell more where other work ran beside it. In brackets stands what the figure is to "
        "reach, from the system's own source or from a baseline computed on the same split.",
        "",
        "| system | family | parameters | data | backend | epochs | seconds | CPU seconds | result "
        "| source | commit |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        result = row.result + (f" **short: {row.short}**" if row.short else "")
        result = result.replace("|", "\\|")  # a bar would end the cell
        lines.append(
            f"| `{row.name}` | {row.family} | {row.parameters or ''} "
            f"| {row.data} {row.data_hash[:8]} | {row.backend} "
            f"| {row.epochs or ''} | {row.seconds:g} | {_seconds(row.cpu_seconds)} | {result} "
            f"| {row.source} | {row.commit} |"
        )
    return "\n".join([*lines, ""])


def main(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME[:DATA]]...", help="All by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Write the table here (Markdown).")] = Path("models.md"),
    json: Annotated[Path, typer.Option(help="Read and write the lines here.")] = Path(
        "measured.json"
    ),
    backend: Annotated[str, typer.Option(help="auto, numpy, numba or cupy.")] = "auto",
    epochs: Annotated[int | None, typer.Option(help="Instead of the system's own.")] = None,
) -> None:
    """Train or explain systems one after the other and write the table."""
    known = models.names()
    lines = read(json) if json.is_file() else []
    rows = {(row.name, row.data): row for row in lines if row.name in known}
    for file in (out, json):
        make_folder(file.parent)
    failed = []
    for named in names or known:
        name, _, data = named.partition(":")
        try:
            row = measure(models.get(name), backend, data or None, epochs)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            failed.append(named)
            typer.echo(f"{named}: {error}", err=True)
            continue
        rows[row.name, row.data] = row
        typer.echo(f"{named}: {row.seconds:g} s, {row.result} {row.short and 'SHORT ' + row.short}")
        ordered = [rows[key] for key in sorted(rows)]
        command = "python -m trine.bench.model_table"
        atomic.write_text(out, page(ordered, command))
        written = [row.as_dict() for row in ordered]
        atomic.write_text(json, json_module.dumps(written, indent=1, ensure_ascii=False) + "\n")
    if failed:
        typer.echo(f"failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
