"""Showing a report in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trine.bench.results import BenchResult, Report

LEFT = ("op", "shape", "backend", "kernel", "bound", "rounds")


def duration(seconds: float) -> str:
    """Return a time with its unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def size(nbytes: float) -> str:
    """Return bytes in MB."""
    return f"{nbytes / 1e6:.0f} MB"


def columns(report: Report) -> list[str]:
    """Return the columns that the rows of a report fill."""
    ratios = [f"{peer} / it" for peer in report.peers]
    rated = any(r.bytes for r in report)
    rates = ["GFLOP/s", "GB/s", "% roof", "bound"] if rated else []
    memory = ["memory"] if any(r.peak_memory for r in report) else []
    faults = ["faults"] if any(r.faults >= 1 for r in report) else []
    return [
        "op", "shape", "backend", "kernel", "median", "p10", "p90", *rates, *memory, *faults,
        "rounds", *(ratios or ["fastest / it"]),
    ]  # fmt: skip


def cells(report: Report, row: BenchResult, names: list[str]) -> list[str]:
    """Return a row's text for some columns; only the head for a row without a time."""
    head = {"op": row.op, "shape": row.shape, "backend": row.backend, "kernel": row.kernel}
    if not row.rounds:
        return [head.get(name, f"no time: {row.error}" if name == "median" else "")
                for name in names]  # fmt: skip
    best = min(r.median for r in report if r.key == row.key and r.rounds)
    ratios = {f"{peer} / it": report.ratio(row, peer) for peer in report.peers}
    text = {
        **head,
        "median": duration(row.median),
        "p10": duration(row.percentile(10)),
        "p90": duration(row.percentile(90)),
        "GFLOP/s": f"{row.gflops:.3g}" if row.flops else "",
        "GB/s": f"{row.gbytes:.3g}" if row.bytes else "",
        "% roof": "" if row.percent is None or not row.bytes else f"{row.percent:.0f}",
        "bound": row.bound,
        "memory": size(row.peak_memory) if row.peak_memory else "",
        "faults": f"{row.faults:.0f}",
        "rounds": rounds(row),
        "fastest / it": f"{best / row.median:.2f}",
        **{k: "" if v is None else f"{v:.2f}" for k, v in ratios.items()},
    }
    return [text[name] for name in names]


def rounds(row: BenchResult) -> str:
    """Return how many rounds count of how many; "busy" where others used the CPU in most."""
    total = len(row.rounds) + row.rejected
    return f"{len(row.rounds)}/{total}{' busy' if row.disturbed else ''}"


def print_table(report: Report, console: Console) -> None:
    """Print one line for each candidate and shape, what the columns mean, and warnings."""
    names = columns(report)
    table = Table(header_style="bold")
    for name in names:
        table.add_column(
            name, justify="left" if name in LEFT else "right", overflow="fold",
            no_wrap=name not in ("median", "op"),
        )  # fmt: skip
    failed = []
    for row in report:
        if row.rounds:
            table.add_row(*map(Text, cells(report, row, names)))
        else:
            failed.append(row)
    if table.row_count:
        console.print(table)
    for row in failed:
        where = f"{row.op}, {row.shape}, {row.name}"
        console.print(f"no time for {where}: {row.error}", markup=False, highlight=False)
    for line in remarks(report):
        console.print(line, markup=False, highlight=False)


def remarks(report: Report) -> list[str]:
    """Return what a reader must know of the figures."""
    lines = list(report.notes)
    if report.roofs is not None:
        found = report.roofs
        peaks = ", ".join(f"{d} {v / 1e9:.0f} GFLOP/s" for d, v in found.peak.items())
        levels = ", ".join(f"{v.name} {v.bandwidth / 1e9:.0f}" for v in found.levels)
        lines.append(f"Limits measured with {found.threads} thread(s): {peaks}; GB/s: {levels}.")
    if report.peers:
        lines.append("NAME / it: how many times as fast as NAME a row is; above 1 it is faster.")
    busy = sum(r.disturbed for r in report)
    if busy:
        lines.append(
            f"busy: in {busy} row(s) other processes, or other virtual machines, used the CPU in "
            "most rounds; read differences below 1.5 as none, or run again on a quiet machine."
        )
    if not report.environment["malloc"]["pinned"] and any(r.faults >= 1 for r in report):
        lines.append(
            "The allocator is not pinned: page faults are part of these times (the command line "
            "pins it; see trine.bench.pinning)."
        )
    return lines
