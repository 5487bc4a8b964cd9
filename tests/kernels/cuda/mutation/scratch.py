"""Running the project's tests against a copy of the kernels in which one file is changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
KERNELS = ROOT / "kernels" / "cuda"
HERE = Path(__file__).parent

DOES_NOT_COMPILE = "expected CUDA C++ that compiles"
"""In the emulator's message for a source that g++ refuses."""


@dataclass(frozen=True)
class Verdict:
    """What the tests said of a mutant."""

    status: str
    """ "caught", "survived", "does not compile"."""
    reason: str
    """The test that failed first, and how; of a survivor whose tests did not end, just that."""


class Scratch:
    """A folder that imports as `trine`: links to the tree, but copies of the CUDA kernels."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        config = tomllib.loads((ROOT / "pyproject.toml").read_text())
        places: dict[str, str] = config["tool"]["setuptools"]["package-dir"]
        for package, place in sorted(places.items()):
            self._link(ROOT / place, folder.joinpath(*package.split(".")))
        kernels = folder / "trine" / "kernels"
        self.kernels = kernels / "cuda"
        self.kernels.unlink()
        shutil.copytree(
            KERNELS, self.kernels, ignore=shutil.ignore_patterns("emulator", "__pycache__")
        )
        (self.kernels / "emulator").symlink_to(KERNELS / "emulator")

    @staticmethod
    def _link(source: Path, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for entry in source.iterdir():
            if entry.name != "__pycache__":
                (target / entry.name).symlink_to(entry)

    def write(self, name: str, code: str) -> None:
        """Put other text in the place of a file of the kernels' folder."""
        (self.kernels / name).write_text(code)
        # Python tells a changed file by its second and its size, which may both stay.
        shutil.rmtree(self.kernels / "__pycache__", ignore_errors=True)

    def restore(self, name: str) -> None:
        """Put the file of the tree back."""
        self.write(name, (KERNELS / name).read_text())

    def run(self, tests: Sequence[str], seconds: float) -> Verdict:
        """Run tests against this copy until one fails, or the time is up.

        A run out of time has found nothing: a kernel without end is stopped by `limits.py`, and its
        test fails.
        """
        path = os.pathsep.join([str(self.folder), str(HERE)])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1",
                       "OPENBLAS_NUM_THREADS": "1",
                       "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "250"}  # fmt: skip
        options = [
            "-x",
            "-q",
            "--no-header",
            "--tb=line",
            "-rf",
            "-p",
            "no:cacheprovider",
            "-p",
            "limits",
        ]
        command = [sys.executable, "-m", "pytest", *options, *tests]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Verdict("survived", f"the tests had no end within {seconds:.0f} s")
        if done.returncode == 0:
            return Verdict("survived", "")
        said = done.stdout + done.stderr
        if DOES_NOT_COMPILE in said:
            return Verdict("does not compile", "")
        if done.returncode != 1:
            raise RuntimeError(
                f"pytest could not run the tests ({done.returncode}):\n{said[-3000:]}"
            )
        failed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return Verdict("caught", failed[0].partition(" ")[2] if failed else said[-300:])
