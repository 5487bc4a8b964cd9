"""One run: the device it is on, the time it has, and two files that grow row by row."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from trine.atomic import make_folder, write_text
from trine.backends import Backend, get_backend
from trine.bench.gpu import machine, pages
from trine.errors import BackendError, suggest
from trine.kernels import registry
from trine.kernels.cuda import emulator

SCHEMA = 1
RESULTS = Path("bench/results")
DRY = (
    "**DRY RUN: no GPU. The emulator ran this on the CPU, on tiny sizes, to show that the command "
    "works. No figure here says anything about a GPU.**"
)

Out = Annotated[Path | None, typer.Option(help="Folder of the files; by default bench/results.")]
Minutes = Annotated[float, typer.Option(min=0.1, help="Stop after so long; what is left is named.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Run tiny sizes on the CPU, through the emulator.")
]


Precisions = Annotated[
    list[str] | None,
    typer.Option(help="Only fp32, tf32 or bf16. Repeatable; the time is for these then."),
]
PRECISION_NAMES = {"fp32": "", "tf32": ", TF32", "bf16": ", bfloat16"}


def titled(table: str, precision: str) -> str:
    """Return the name of a table in a precision."""
    return table + PRECISION_NAMES[precision]


def chosen(precisions: list[str] | None) -> tuple[str, ...]:
    """Return the precisions that are asked for, all by default; raises ValueError for another."""
    for name in precisions or ():
        if name not in registry.PRECISIONS:
            raise suggest("--precision", "precision", name, registry.PRECISIONS)
    return tuple(precisions or registry.PRECISIONS)


class Session:
    """What every command here has: `backend`, `add` for rows, `over` when the time is up."""

    def __init__(
        self, name: str, title: str, out: Path | None, minutes: float, dry_run: bool
    ) -> None:
        if dry_run:
            emulator.require()
            sys.path.insert(0, str(emulator.stand_in_folder()))
        self.name, self.title, self.dry_run = name, title, dry_run
        self.backend: Backend = get_backend("cupy")
        self.backend.strict = True
        self.cuda = self.backend.xp.cuda
        self.facts = machine.facts(self.cuda)
        self._refuse_pretence()
        folder = out or (Path(tempfile.mkdtemp(prefix="trine-gpu-")) if dry_run else RESULTS)
        make_folder(folder)
        suffix = ".dry-run" if dry_run else ""
        self.json = folder / f"gpu-{name}{suffix}.json"
        self.page = folder / f"gpu-{name}{suffix}.md"
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.about: dict[str, str] = {}
        self.notes: list[str] = []
        self.finished = self.failed = False
        self._started = time.monotonic()
        self._seconds = 60 * minutes
        self._write()

    def _refuse_pretence(self) -> None:
        """Raise BackendError where a run on a GPU would be one through the emulator."""
        place = Path(self.backend.xp.__file__)
        emulated = emulator.stand_in_folder() in place.parents
        if emulated != self.dry_run:
            raise BackendError(
                f"[{self.name}] expected {'the emulator' if self.dry_run else 'a GPU'}, but `cupy` is "
                f"{place}. {'Start another process' if self.dry_run else 'Take it off PYTHONPATH'}."
            )

    # Time

    @property
    def spent(self) -> float:
        """The share of the time that is gone."""
        return (time.monotonic() - self._started) / self._seconds

    def over(self, share: float = 1.0) -> bool:
        """Return whether that share of the time is gone."""
        return self.spent >= share

    # Rows

    def table(self, title: str, about: str) -> None:
        """Begin a table, with what its columns mean."""
        self.tables.setdefault(title, [])
        self.about[title] = about

    def add(self, title: str, **row: Any) -> None:
        """Add a row and write the files."""
        self.tables[title].append(row)
        self._write()
        words = ", ".join(pages.cell(v) for v in list(row.values())[:6] if v not in (None, ""))
        typer.echo(f"{'[dry run] ' if self.dry_run else ''}{title}: {words}")

    def note(self, text: str) -> None:
        """Say something below the tables."""
        if text not in self.notes:
            self.notes.append(text)
            self._write()

    def fail(self, text: str) -> None:
        """Say what is wrong; the command will exit with 1."""
        self.failed = True
        self.note(f"**Failed**: {text}")

    def finish(self) -> None:
        """Say that the run came to its end by itself."""
        self.finished = True
        self._write()
        typer.echo(f"written to {self.page} and {self.json}")

    def _write(self) -> None:
        value = {
            "schema": SCHEMA, "name": self.name, "dry_run": self.dry_run, "finished": self.finished,
            "environment": self.facts, "tables": self.tables, "notes": self.notes,
        }  # fmt: skip
        write_text(self.json, json.dumps(value, indent=1) + "\n")
        write_text(self.page, "\n".join(self._lines()) + "\n")

    def _lines(self) -> list[str]:
        gpu, packages = self.facts["gpu"], self.facts["packages"]
        versions = ", ".join(f"{name} {version}" for name, version in packages.items())
        lines = [f"# {self.title}", ""]
        lines += [DRY, ""] if self.dry_run else []
        lines += [
            f"`python -m trine.bench.gpu.{self.name}`, commit {self.facts['commit']}.",
            f"{gpu['name']}, driver {gpu['driver'] or 'unknown'}, CUDA {gpu['cuda_runtime']}; Python "
            f"{self.facts['python']}, {versions}. Clocks at the start: "
            f"{', '.join(f'{k} {v:g}' for k, v in gpu['clocks_at_start'].items()) or 'unknown'}.",
            "",
        ]
        if not self.finished:
            lines += ["The run has not come to its end: rows may be missing.", ""]
        for title, rows in self.tables.items():
            lines += [f"## {title}", "", self.about[title], ""]
            lines += [*pages.table(rows), ""] if rows else ["No row yet.", ""]
        return lines + [f"- {note}" for note in self.notes]
