"""NVIDIA's compute-sanitizer over every op on small arrays: what a kernel does and must not do.

    python -m trine.bench.gpu.sanitize [--out DIR] [--minutes M] [--tool NAME]... [--dry-run]

memcheck finds accesses out of bounds or misaligned, racecheck races in shared memory, initcheck reads
of memory that nobody wrote, synccheck barriers that not all threads reach. A run without a tool goes
first, so that the kernels are compiled. Each has its share of the time. A dry run calls the same
program through the emulator, which judges the same faults itself.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from trine.bench.gpu.session import DryRun, Minutes, Out, Session
from trine.errors import BackendError
from trine.kernels.cuda import emulator

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
COMPILING = "none"
COMPILING_SHARE = 0.3
"""Of the time, for the run without a tool."""
TITLE = "Sanitizers"
ABOUT = (
    "Errors that compute-sanitizer reports, and wrong results, over the samples of all ops that have "
    "few elements, both float types and the kernels on tensor cores, without a memory pool."
)
DRY_OPS = "relu,softmax,embedding,matmul"
SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)")
PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")


def find_tool() -> str | None:
    """Return compute-sanitizer's path."""
    return shutil.which("compute-sanitizer") or next(
        (found for place in PLACES if (found := shutil.which("compute-sanitizer", path=place))),
        None,
    )


def command(tool: str, sanitizer: str | None, seconds: float, dry_run: bool) -> list[str]:
    """Return the command that runs the small ops, under a tool of the sanitizer's if there is one."""
    inner = [sys.executable, "-m", "trine.bench.gpu.small", "--seconds", f"{seconds:.0f}"]
    if dry_run:
        return [*inner, "--samples", "1", "--only", DRY_OPS]
    if tool == COMPILING or sanitizer is None:
        return inner
    options = ["--tool", tool, "--target-processes", "all", "--print-limit", "20"]
    if tool == "memcheck":
        options += ["--leak-check", "no"]
    return [sanitizer, *options, *inner]


def read(lines: Sequence[str]) -> dict[str, Any]:
    """Return what a run's output says: ops done and left out, wrong results, the tool's errors."""
    done, left_out, failed, errors = 0, [], [], None
    for line in lines:
        found = SUMMARY.search(line)
        if found:
            errors = (errors or 0) + int(found[1])
        if not line.startswith('{"op"'):
            continue
        value = json.loads(line)
        if value.get("left_out"):
            left_out.append(value["op"])
        else:
            done += 1
            failed += value.get("failed", [])
    return {"ops": done, "left_out": left_out, "wrong": failed, "errors": errors}


def run_tool(session: Session, tool: str, sanitizer: str | None, seconds: float) -> bool:
    """Run one tool and write its row; return whether all is well."""
    environ = emulator.environment() if session.dry_run else dict(os.environ)
    environ["TRINE_CUDA_LINES"] = "1"
    started = time.monotonic()
    words = command(tool, sanitizer, 0.7 * seconds, session.dry_run)
    log = session.json.with_suffix(f".{tool}.log")
    with log.open("w", encoding="utf-8") as file:
        try:
            code = subprocess.run(
                words, env=environ, stdout=file, stderr=subprocess.STDOUT, timeout=seconds,
                check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = None
    found = read(log.read_text(encoding="utf-8", errors="replace").splitlines())
    reported = session.dry_run or tool == COMPILING or found["errors"] == 0
    well = code == 0 and reported and not found["wrong"]
    session.add(
        TITLE,
        tool="the emulator" if session.dry_run else tool,
        well=well,
        errors=found["errors"],
        wrong=len(found["wrong"]),
        ops=found["ops"],
        left_out=len(found["left_out"]),
        ended="in time" if code is not None else "stopped at its time",
        exit=code,
        seconds=time.monotonic() - started,
    )
    if found["left_out"]:
        session.note(f"{tool} had no time for {', '.join(found['left_out'])}.")
    for text in found["wrong"][:5]:
        session.note(f"{tool}: {text}")
    if well:
        log.unlink()
    else:
        session.note(f"{tool}: what it said is in {log.name}.")
    return well


def main(
    out: Out = None,
    minutes: Minutes = 7.5,
    tool: Annotated[list[str] | None, typer.Option(help="Only these. Repeatable.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Run the sanitizers and write their table as they come; exits with 1 if one finds something."""
    session = Session("sanitize", "Sanitizers over the CUDA kernels", out, minutes, dry_run)
    session.table(TITLE, ABOUT)
    sanitizer = find_tool()
    if sanitizer is None and not dry_run:
        raise BackendError(
            "[sanitize] expected compute-sanitizer, found none on the PATH or in "
            f"{', '.join(PLACES)}. It comes with the CUDA toolkit."
        )
    names = (COMPILING,) if dry_run else (COMPILING, *(tool or TOOLS))
    rest = (1 - COMPILING_SHARE) / max(len(names) - 1, 1)
    well = []
    for name in names:
        share = rest if name != COMPILING else COMPILING_SHARE
        well.append(run_tool(session, name, sanitizer, 60 * minutes * share))
    session.finish()
    raise SystemExit(not all(well))


if __name__ == "__main__":
    typer.run(main)
