"""Mutation test of the CUDA kernels: are small faults planted in them found by the project's tests?

    python tests/kernels/cuda/mutation/run.py --seed 1 --count 100 [--out FILE.md] [--list]

Mutants are made from every `.cu`, header and launch table of kernels/cuda: a barrier dropped; a bound,
index, stride, operator, axis or launch changed. They are drawn by seed, the kinds in turn, and each is
put into a copy of the kernels, against which the tests run that concern the change, through the
emulator, until one fails. The tests that failed are run without a mutant in the end, and must pass. A
mutant that does not compile is not counted, and another is drawn. One that no test can find, because
it changes nothing that a call computes, is named in `explained.txt` with the reason.

With `--log FILE` results are kept as they come, and those that it holds are not run again, after a
stop, or when only survivors matter: what survived, or had no time, is, unless it is explained.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from drawing import Mutant, draw, explained
from report import Result, page, told
from scratch import ROOT, Scratch, Verdict
from selection import tests_of

PROCESSES = 2


class Runner:
    """Runs mutants, as many at a time as there are scratch folders."""

    def __init__(self, folder: Path, processes: int, seconds: float) -> None:
        self.seconds = seconds
        self.free = [Scratch(folder / str(i)) for i in range(processes)]
        self.lock = threading.Lock()

    def __call__(self, mutant: Mutant, tests: list[str]) -> tuple[Mutant, Verdict, float]:
        """Run the tests against a mutant; return what they say, and after how long."""
        with self.lock:
            scratch = self.free.pop()
        started = time.monotonic()
        try:
            scratch.write(mutant.file, mutant.after)
            return mutant, scratch.run(tests, self.seconds), time.monotonic() - started
        finally:
            scratch.restore(mutant.file)
            with self.lock:
                self.free.append(scratch)

    def unchanged(self, tests: list[str]) -> None:
        """Run tests against the kernels as they are: unless they pass, catching says nothing."""
        if tests:
            verdict = self.free[0].run(tests, 20 * self.seconds)
            if verdict.status != "survived":
                raise RuntimeError(f"a test fails without any mutant: {verdict.reason}")


class Log:
    """Results of earlier runs, in a file to which those of this one are added; or none."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.known: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                record = json.loads(line)
                if record["status"] in ("caught", "does not compile") or not record["reason"]:
                    self.known[record["name"]] = record

    def add(self, mutant: Mutant, verdict: Verdict, seconds: float, commit: str) -> None:
        """Keep a result."""
        if self.path is not None:
            record = {"name": mutant.name, "status": verdict.status, "reason": verdict.reason,
                      "seconds": round(seconds, 1), "commit": commit}  # fmt: skip
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")


def run(
    mutants: Iterator[Mutant], count: int, processes: int, seconds: float, log: Log
) -> Iterator[Result]:
    """Yield `count` results as they come; raises if a test that found a mutant fails without it."""
    reasons, commit = explained(), _commit()
    found_by: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="trine-mutants-") as folder, \
            ThreadPoolExecutor(processes) as pool:  # fmt: skip
        runner = Runner(Path(folder), processes, seconds)
        waiting: set[Future[tuple[Mutant, Verdict, float]]] = set()
        finished = 0
        while finished < count:
            while len(waiting) < min(processes, count - finished):
                mutant = next(mutants)
                old = log.known.get(mutant.name)
                if old is None or (old["status"] == "survived" and mutant.name not in reasons):
                    waiting.add(pool.submit(runner, mutant, tests_of(mutant.file, mutant.line)))
                elif old["status"] != "does not compile":
                    finished += 1
                    verdict = Verdict(old["status"], old["reason"])
                    result = _result(mutant, verdict, reasons, old["seconds"], old["commit"])
                    found_by.add(result.test)
                    yield result
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                mutant, verdict, took = future.result()
                log.add(mutant, verdict, took, commit)
                if verdict.status == "does not compile":
                    continue
                finished += 1
                result = _result(mutant, verdict, reasons, took, commit)
                found_by.add(result.test)
                yield result
        runner.unchanged(sorted(found_by - {""}))


def _result(
    mutant: Mutant, verdict: Verdict, reasons: dict[str, str], seconds: float, commit: str
) -> Result:
    """Return a verdict as a result; one that survived all of its tests may be explained."""
    status, reason = verdict.status, verdict.reason
    if status == "survived" and mutant.name in reasons:
        if reason:  # its tests have not all run, so it still counts as a survivor
            reason += f". What explained.txt says: {reasons[mutant.name]}"
        else:
            status, reason = "explained", reasons[mutant.name]
    return Result(mutant, status, reason, seconds, commit)


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no commit"


def main() -> int:
    """Run, print each result as it comes, write the table; return 1 if an unexplained one survived."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--seconds", type=float, default=1200.0, help="a mutant's time")
    parser.add_argument("--skip-explained", action="store_true", help="draw none of them")
    parser.add_argument("--list", action="store_true", help="only list what would be drawn")
    parser.add_argument("--out", type=Path, help="write the table here (Markdown)")
    parser.add_argument("--log", type=Path, help="keep results here; do not run again what it has")
    asked = parser.parse_args()
    drawn = draw(asked.seed)
    if asked.skip_explained:
        reasons = explained()
        drawn = (mutant for mutant in drawn if mutant.name not in reasons)
    if asked.list:
        for number, mutant in zip(range(asked.count), drawn, strict=False):
            print(told(number + 1, Result(mutant, "drawn", "", 0.0, "")), end="")
        return 0
    results = []
    for result in run(drawn, asked.count, asked.processes, asked.seconds, Log(asked.log)):
        results.append(result)
        print(told(len(results), result), end="", flush=True)
    text = page(results, asked.seed)
    print(text[: text.index("## Survivors")])
    if asked.out is not None:
        asked.out.write_text(text)
    return int(any(r.status == "survived" for r in results))


if __name__ == "__main__":
    sys.exit(main())
