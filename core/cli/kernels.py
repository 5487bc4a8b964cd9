"""`trine check`: the registry's kernels, proven; and which ops and backends a command means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trine import backends
from trine.backends import cases
from trine.backends.cases import check as checking
from trine.backends.op import OPS
from trine.cli import setup
from trine.cli.output import console, emit_json, notes, table
from trine.errors import suggest


def select(ops: Sequence[str]) -> tuple[str, ...]:
    for name in ops:
        if name not in OPS:
            raise suggest("check", "op", name, OPS)
    return tuple(ops) or tuple(case.op for case in cases.all())


def usable_backends(choice: str) -> tuple[str, ...]:
    if choice != "all":
        backends.get_backend(choice)  # an explicit choice that cannot run is an error
        return (choice,)
    usable = []
    for name, probe in backends.available().items():
        if probe.ok:
            usable.append(name)
        else:
            notes.print(f"{name} is left out: {probe.reason}", highlight=False)
    return tuple(usable)


def check(ops: Sequence[str], files: Sequence[Path], backend: str, *, json: bool) -> None:
    """Check kernels; exits with 1 if one fails."""
    setup.load_kernel_files(files)
    names, chosen = select(ops), usable_backends(backend)
    results = checking.check_all(ops=names, backends=chosen)
    failed = [r for r in results if r.status == "failed"]
    skipped = [r for r in results if r.status == "skipped"]
    passed = len(results) - len(failed) - len(skipped)
    for result in failed:
        console.print(f"FAILED {result}", highlight=False, markup=False)
    for reason in sorted({r.message for r in skipped}):
        count = sum(r.message == reason for r in skipped)
        console.print(f"skipped {count}: {reason}", highlight=False, markup=False)
    rows: dict[tuple[str, str, str], int] = {}
    for result in results:
        if result.status == "passed":
            key = (result.op, result.backend, result.kernel)
            rows[key] = rows.get(key, 0) + 1
    if not json:
        table(
            None, ("op", "backend", "kernel", "passed"), [(*k, n) for k, n in sorted(rows.items())]
        )
    console.print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped", highlight=False)
    if json:
        emit_json({"passed": passed, "failed": len(failed), "skipped": len(skipped)})
    if failed:
        raise SystemExit(1)
