"""Reports as JSON files, with what the times depend on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from trine import atomic
from trine.bench.results import SAMPLES, BenchResult, Report

SCHEMA = 2
"""Version of the layout of the JSON: 2 has limits, rounds, peers and the measured environment."""


def row(result: BenchResult, report: Report) -> dict[str, Any]:
    """Return a row as plain values; without a time all figures are null."""
    timed = bool(result.rounds)
    times = np.sort(result.times)
    kept = times if len(times) <= SAMPLES else np.quantile(times, np.linspace(0, 1, SAMPLES))
    return {
        "op": result.op,
        "shape": result.shape,
        "arrays": list(result.arrays),
        "backend": result.backend,
        "kernel": result.kernel,
        "side": result.side,
        "dtype": result.dtype,
        "median": result.median if timed else None,
        "p10": result.percentile(10) if timed else None,
        "p90": result.percentile(90) if timed else None,
        "calls": len(times),
        "rounds": result.round_medians,
        "quantiles": [float(t) for t in kept],
        "rejected_rounds": result.rejected,
        "disturbed": result.disturbed,
        "page_faults": result.faults if timed else None,
        "flops": result.flops,
        "work": result.work,
        "bytes": result.bytes,
        "roof": result.roof,
        "percent_of_roof": result.percent if timed else None,
        "bound": result.bound or None,
        "peak_memory": result.peak_memory,
        "ratio": {peer: report.ratio(result, peer) for peer in report.peers},
        "error": result.error or None,
    }


def as_dict(report: Report) -> dict[str, Any]:
    """Return a report as plain values."""
    return {
        "schema": SCHEMA,
        "environment": report.environment,
        "limits": None if report.roofs is None else report.roofs.as_dict(),
        "notes": report.notes,
        "results": [row(result, report) for result in report.results],
    }


def write_json(report: Report, path: str | Path) -> None:
    """Write a report, replacing the file in one step; raises OSError with the remedy."""
    text = json.dumps(as_dict(report), indent=1, allow_nan=False) + "\n"
    atomic.write_text(Path(path), text)


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the content of a file of this or an earlier schema.

    Raises FileNotFoundError if there is none, ValueError for another kind of file or a later
    schema.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"[bench] expected a file that `trine bench --json` wrote, found no file {file}. "
            "Check the path."
        )
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        schema, rows = value["schema"], value["results"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"[bench] expected a file that `trine bench --json` wrote, got {file}, which is "
            "something else. Name another file."
        ) from error
    if not isinstance(schema, int) or not 1 <= schema <= SCHEMA or not isinstance(rows, list):
        raise ValueError(
            f"[bench] expected schema 1 to {SCHEMA}, got schema {schema} in {file}. Install a newer "
            "trine, or run the benchmark again."
        )
    result: dict[str, Any] = value
    return result
