"""The tests that need a GPU, with a row for each as it ends.

    python -m trine.bench.gpu.tests [--out DIR] [--minutes M] [-k WORDS] [--dry-run]

Run from a checkout: they lie in `tests/gpu`. A dry run takes the emulator for the GPU, and small
samples. It sets $TRINE_GPU_DRY_RUN, with which `pytest tests/gpu` does the same.
"""

from __future__ import annotations

import os
from typing import Annotated, Any

import pytest
import typer

from trine.bench.gpu.machine import ROOT
from trine.bench.gpu.session import DryRun, Minutes, Out, Session
from trine.errors import DataError

TITLE = "Tests"
ABOUT = "Every test of `tests/gpu`, with its seconds; what a failed one says stands below."
VARIABLE = "TRINE_GPU_DRY_RUN"


class Report:
    """Writes rows from pytest's reports and ends the run when the time is up."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.collected = self.done = self.failed = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count the tests."""
        self.collected = len(session.items)
        self._pytest = session

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a row when a test has run, or could not."""
        if report.when != "call" and report.outcome == "passed":
            return
        self.done += 1
        self.failed += report.outcome == "failed"
        name = report.nodeid.split("::", 1)[-1]
        self.session.add(TITLE, test=name, outcome=report.outcome, seconds=report.duration)
        if report.failed:
            words = str(report.longreprtext).strip().splitlines()
            self.session.note(f"{name}: {words[-1] if words else 'failed'}")
        elif report.skipped:
            self.session.note(f"{name} was skipped: {_reason(report)}")
        if self.session.over() and self.done < self.collected:
            self._pytest.shouldstop = "the time is up"


def _reason(report: pytest.TestReport) -> str:
    said: Any = report.longrepr
    return str(said[2]) if isinstance(said, tuple) else str(said)


def main(
    out: Out = None,
    minutes: Minutes = 7.0,
    words: Annotated[str, typer.Option("-k", help="Only tests with these words.")] = "",
    dry_run: DryRun = False,
) -> None:
    """Run the tests and write their table as they come; exits with 1 if one fails or none ran."""
    folder = ROOT / "tests" / "gpu"
    if not folder.is_dir():
        raise DataError(
            f"[tests] expected the tests in {folder}, found none. Run from a checkout, the package "
            'installed in place: pip install -e ".[cuda13,test]"'
        )
    if dry_run:
        os.environ[VARIABLE] = "1"
    session = Session("tests", "Tests on a GPU", out, minutes, dry_run)
    session.table(TITLE, ABOUT)
    report = Report(session)
    chosen = ["-k", words] if words else []
    code = pytest.main(
        [
            *("-q", "-W", "default", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "-m", "gpu"),
            *chosen,
            str(folder),
        ],
        plugins=[report],
    )
    session.note(
        f"{report.done} of {report.collected} tests, {report.failed} failed"
        + ("." if report.done >= report.collected else "; the time was up.")
    )
    session.finish()
    raise SystemExit(int(code))


if __name__ == "__main__":
    typer.run(main)
