"""Train every named system and write the table of what came of it.

`python -m trine.bench.model_table --out docs/models.md --json models/measured.json` runs
`trine train NAME` for each system in a process of its own (`trine explain NAME` for those that have
nothing to train), then the FURTHER runs, and writes a line a run as it comes. Names choose some of
them; NAME:DATA is the run on another data set than the system's own. What is not named keeps the
lines that the JSON file has of it. A run that fails is a line that says so, and the next one starts;
`--resume` skips what this commit has measured already.
"""

from __future__ import annotations

import hashlib
import json as json_module
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from trine import atomic, models
from trine.atomic import make_folder
from trine.bench.model_page import page
from trine.models import System
from trine.models.measured import Measured, Reached, read

RUN = "from trine.cli import main; main()"
LIMIT = 1800
"""Seconds after which a system's run is given up."""


@dataclass(frozen=True)
class Further:
    """A run on other data than the system's own: how long, and what it is to reach, says who."""

    name: str
    data: str
    epochs: int
    accuracy: float
    says: str


FURTHER = (
    Further("lenet5", "fashion-mnist", 10, 0.89, "asked of Trine"),
    Further("lenet5-1998", "fashion-mnist", 20, 0.9013, "a point below lenet5's 0.9113 after 10"),
    Further("alexnet-small", "fashion-mnist", 1, 0.835, "people, by Fashion-MNIST's authors"),
    Further("googlenet-small", "fashion-mnist", 1, 0.835, "people, by Fashion-MNIST's authors"),
)


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


def commit(written: tuple[Path, ...] = ()) -> str:
    """Return the commit of the tree that runs; "-dirty" where other files than `written` differ."""

    def git(*command: str) -> str:
        done = subprocess.run(
            ["git", *command], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        )
        return str(done.stdout)

    try:
        top = Path(git("rev-parse", "--show-toplevel").strip())
        name = git("rev-parse", "--short=12", "HEAD").strip()
        changed = git("status", "--porcelain", "--untracked-files=no").splitlines()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    ours = {file.resolve() for file in written}
    dirty = any((top / line[3:].strip('"')).resolve() not in ours for line in changed)
    return f"{name}-dirty" if dirty else name


def further(name: str, data: str | None) -> Further | None:
    """Return the further run of a system on a data set, if there is one."""
    return next((run for run in FURTHER if (run.name, run.data) == (name, data)), None)


def measure(
    system: System,
    backend: str,
    data: str | None = None,
    epochs: int | None = None,
    *,
    written: tuple[Path, ...] = (),
) -> Measured:
    """Run a system by the command line, on its own data and epochs or others, and return its line.

    What the command wrote last stands in `failed` where it did not come to its end.
    """
    also = further(system.name, data)
    if epochs is None and also is not None:
        epochs = also.epochs
    elif also is not None:
        also = None  # other epochs than those that its bound is for
    now = commit(written)
    verb = "train" if system.trainable else "explain"
    report: dict[str, Any] = {}
    failed = ""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", RUN, verb, system.name, "--backend", backend]
        command += ["--out", folder, "--progress", "none"] if system.trainable else []
        command += ["--data", data] if data is not None else []
        command += ["--epochs", str(epochs)] if epochs is not None and system.trainable else []
        started, before = time.perf_counter(), os.times()
        try:
            report = _run([*command, "--json"])
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            failed = str(error)[-300:]
        seconds, after = time.perf_counter() - started, os.times()
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    short: list[str] = []
    reached: list[Reached] = []
    if not failed:
        try:
            short, reached = _short(system, report, also), _reached(system, report, also)
        except (KeyError, TypeError, ValueError) as error:  # a figure that is no number, say
            failed = f"unreadable report: {error!r}"
    if commit(written) != now:
        now = f"{now.removesuffix('-dirty')}-dirty"
    return Measured(
        name=system.name,
        family=system.family,
        data=data or system.data_name or "",
        data_hash="" if failed else data_hash(system, data),
        parameters=system.parameters,
        backend=report.get("backend", backend),
        epochs=report.get("epochs", 0),
        seconds=round(seconds, 1),
        reached=tuple(reached),
        short="; ".join(short),
        source=system.source,
        commit=now,
        cpu_seconds=round(cpu, 1),
        failed=" ".join(failed.split()),
    )


def _run(command: list[str]) -> dict[str, Any]:
    """Return a command's report; RuntimeError with the end of what it wrote where it has none."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr[-2000:]}")
    try:
        report: dict[str, Any] = json_module.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise RuntimeError(f"no report: {done.stdout[-2000:]}") from error
    return report


def _rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = report.get("shown", report.get("rows", []))
    return [row for row in rows if row["reference"] is not None]


def _short(system: System, report: dict[str, Any], also: Further | None) -> list[str]:
    """Return what a run should have reached and did not."""
    short = [str(_figure(row)) for row in _rows(report) if not row["ok"]]
    if also is not None and not report["test_accuracy"] >= also.accuracy:
        short.append(f"test accuracy {report['test_accuracy']:.2%} is below {also.accuracy:.1%}")
    return short + system.check(report)


def _reached(system: System, report: dict[str, Any], also: Further | None) -> list[Reached]:
    """Return a report's figures: accuracy, then those with a reference; a loss where there is none.

    The numbers of a worked example are counted, not listed.
    """
    found: list[Reached] = []
    rows = _rows(report)
    wanted = (
        f">= {system.expected['test_accuracy']:g}" if "test_accuracy" in system.expected else ""
    )
    if also is not None:
        wanted = f">= {also.accuracy:g}, {also.says}"
    if wanted:
        found.append(Reached("test accuracy", f"{report['test_accuracy']:.4f}", wanted))
    if system.shows is None:
        equal = [row for row in rows if row["relation"] in ("=", "is")]
        right = sum(row["ok"] for row in equal)
        if equal:
            found.append(Reached("numbers as in the source", f"{right}", f"of {len(equal)}"))
        rows = [row for row in rows if row not in equal]
    found += map(_figure, rows)
    return found or [Reached("test loss", f"{report['test_loss']:.3g}")]


def _figure(row: dict[str, Any]) -> Reached:
    if row["relation"] == "is":
        return Reached(row["formula"], "yes" if row["ok"] else "no", "yes")
    wanted = f"{row['relation']} {_number(row['reference'])}"
    if row["relation"] == "=" and row["tolerance"]:
        wanted += f" within {row['tolerance']:.2g}"
    return Reached(f"{row['symbol']}, {row['formula']}", _number(row["value"]), wanted)


def _number(value: float) -> str:
    """Return four digits, or all of a whole number such as a count of parameters."""
    return f"{value:,.0f}" if value == round(value) and abs(value) >= 1000 else f"{value:.4g}"


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
    resume: Annotated[bool, typer.Option(help="Skip what this commit has measured.")] = False,
    render: Annotated[bool, typer.Option(help="Only write the table anew from the lines.")] = False,
) -> None:
    """Train or explain systems one after the other and write the table."""
    known, written = models.names(), (out, json)
    failed = []
    lines = read(json) if json.is_file() else []
    rows = {(row.name, row.data): row for row in lines if row.name in known}
    for file in written:
        make_folder(file.parent)
    chosen = names or [*known, *(f"{run.name}:{run.data}" for run in FURTHER)]
    systems = [models.get(named.partition(":")[0]) for named in chosen]  # a wrong name ends it here
    for named, system in [] if render else zip(chosen, systems, strict=True):
        data = named.partition(":")[2]
        old = rows.get((system.name, data or system.data_name or ""))
        if resume and old is not None and _holds(old, commit(written), backend, epochs):
            typer.echo(f"{named}: measured already")
            continue
        row = measure(system, backend, data or None, epochs, written=written)
        rows[row.name, row.data] = row
        typer.echo(f"{named}: {row.seconds:g} s, {row.result}")
        if row.short:
            typer.echo(f"{named} falls short: {row.short}")
        if row.failed:
            failed.append(named)
        _write(rows, out, json)
    if render:
        _write(rows, out, json)
    if failed:
        typer.echo(f"failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


def _holds(line: Measured, now: str, backend: str, epochs: int | None) -> bool:
    """Return whether a line is whole, of this commit's tree just as it is, and was so asked for."""
    known = not (now == "unknown" or now.endswith("-dirty"))
    asked = backend in ("auto", line.backend) and epochs in (None, line.epochs)
    return known and asked and line.commit == now and not line.failed


def _write(rows: dict[tuple[str, str], Measured], out: Path, json: Path) -> None:
    ordered = [rows[key] for key in sorted(rows)]
    atomic.write_text(out, page(ordered))
    written = [row.as_dict() for row in ordered]
    atomic.write_text(json, json_module.dumps(written, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
