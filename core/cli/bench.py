"""`trine bench`: kernels, peers and training steps timed, shown, saved and compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from trine import bench as harness
from trine.bench import pinning
from trine.bench.harness import Progress as Tell
from trine.bench.harness import check_shapes
from trine.bench.peers import load
from trine.bench.report import duration
from trine.bench.steps import check_models
from trine.cli import setup
from trine.cli.kernels import select, usable_backends
from trine.cli.output import console, notes, table


@contextmanager
def progress() -> Iterator[Tell]:
    """Show on stderr what is being timed; nothing where stderr is no terminal."""
    if not notes.is_terminal:
        yield lambda what: None
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    # Refreshed by hand, between measurements: a thread that draws would be timed as well.
    with Progress(*columns, console=notes, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("measuring the machine", total=None)

        def tell(what: str) -> None:
            bar.update(task, description=what)
            bar.refresh()

        bar.refresh()
        yield tell


def bench(
    ops: Sequence[str],
    files: Sequence[Path],
    backend: str,
    *,
    shapes: Sequence[str],
    seconds: float,
    threads: int | None,
    dtype: str,
    vs: Sequence[str],
    models: Sequence[str],
    json: Path | None,
    html: Path | None,
) -> None:
    """Time what was asked for; the exit code is 1 if a row has no time."""
    check_shapes(shapes)
    check_models(models)
    if setup.owns_process:
        pinning.restart()
    for name in vs:
        load(name)  # a missing peer is an error now, not after minutes
    setup.load_kernel_files(files)
    setup.set_threads(threads)
    names = () if models and not ops else select(ops)
    with progress() as tell:
        report = harness.run(
            names, usable_backends(backend), shapes=shapes, seconds=seconds, dtype=dtype, vs=vs,
            models=models, progress=tell,
        )  # fmt: skip
    harness.print_table(report, console)
    if json is not None:
        harness.write_json(report, json)
        notes.print(f"written: {json}", highlight=False)
    if html is not None:
        harness.write_html(report, html)
        notes.print(f"written: {html}", highlight=False)
    if any(r.error for r in report):
        raise SystemExit(1)


def compare(old: Path, new: Path) -> None:
    """Compare two files; the exit code is 1 if a row became slower."""
    found = harness.compare_files(old, new)
    rows = []
    for v in found.verdicts:
        op, shape, dtype, backend, kernel = v.key
        interval = "" if v.low is None or v.high is None else f"{v.low:.2f} to {v.high:.2f}"
        rows.append(
            (
                op, shape, dtype, f"{backend} {kernel}".strip(),
                "" if v.old is None else duration(v.old), "" if v.new is None else duration(v.new),
                "" if v.ratio is None else f"{v.ratio:.2f}", interval, v.verdict,
            )
        )  # fmt: skip
    heads = ("op", "shape", "dtype", "kernel", "old", "new", "old / new", "99 %", "verdict")
    table(None, heads, rows)
    for warning in found.warnings:
        console.print(warning, highlight=False, markup=False)
    mean = "" if found.geometric_mean is None else f"; mean ratio {found.geometric_mean:.2f}"
    counts = ", ".join(f"{found.count(v)} {v}" for v in ("faster", "slower", "same"))
    console.print(f"{counts}{mean}", highlight=False)
    if found.count("slower"):
        raise SystemExit(1)
