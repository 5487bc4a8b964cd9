"""Mutation test of the CUDA kernels: are small faults planted in them found by the project's tests?

    python tests/kernels/cuda/mutation/run.py --seed 1 --count 100 [--out FILE.md] [--list]

Mutants are made from every `.cu`, header and launch table of kernels/cuda: a barrier dropped; a bound,
index, stride, operator, axis or launch changed. They are drawn by seed, the kinds in turn, and each is
put into a copy of the kernels, against which the tests run that concern the change, through the
emulator, until one fails. One that does not compile is not counted, and another is drawn. A mutant
that no test can find, because it changes nothing that a call computes, is named in `explained.txt`
with the reason.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import cpp_mutants
import launch_mutants
from scratch import KERNELS, ROOT, Scratch, Verdict

KINDS = ("barrier", "bound", "index", "stride", "operator", "axis", "launch")
EXPLAINED = Path(__file__).with_name("explained.txt")
PROCESSES = 2


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    file: str
    kind: str
    start: int
    end: int
    new: str
    name: str
    """File, kind and the changed line: what `explained.txt` calls it, whatever its line's number."""

    @property
    def line(self) -> int:
        """The number of the line."""
        return self.before.count("\n", 0, self.start) + 1

    @property
    def before(self) -> str:
        """The file as it is."""
        return (KERNELS / self.file).read_text()

    @property
    def after(self) -> str:
        """The file with the change."""
        code = self.before
        return code[: self.start] + self.new + code[self.end :]

    @property
    def diff(self) -> tuple[str, str]:
        """The line before and after."""
        last = self.before.count("\n", 0, self.end) + 1
        old = " ".join(line.strip() for line in self.before.split("\n")[self.line - 1 : last])
        count = last + self.new.count("\n") - self.before.count("\n", self.start, self.end)
        new = " ".join(line.strip() for line in self.after.split("\n")[self.line - 1 : count])
        return old, new


def sources() -> list[str]:
    """Return the names of the files that mutants are made of."""
    files = [*KERNELS.glob("*.cu"), *KERNELS.glob("include/*.h"), *KERNELS.glob("*.py")]
    return sorted(str(f.relative_to(KERNELS)) for f in files if f.name != "__init__.py")


def mutants_of(file: str) -> Iterator[Mutant]:
    """Yield every mutant of a file."""
    code = (KERNELS / file).read_text()
    found = (launch_mutants if file.endswith(".py") else cpp_mutants).mutants(code)
    seen: dict[str, int] = {}
    for kind, start, end, new in found:
        _, changed = Mutant(file, kind, start, end, new, "").diff
        name = f"{file}: {kind}: {changed}"
        seen[name] = seen.get(name, 0) + 1
        name += f" (place {seen[name]})" if seen[name] > 1 else ""
        yield Mutant(file, kind, start, end, new, name)


def draw(seed: int) -> Iterator[Mutant]:
    """Yield all mutants in the order of a seed: the kinds in turn, those of a kind by chance."""
    chance = random.Random(seed)
    by_kind: dict[str, list[Mutant]] = {kind: [] for kind in KINDS}
    for file in sources():
        for mutant in mutants_of(file):
            by_kind[mutant.kind].append(mutant)
    for found in by_kind.values():
        chance.shuffle(found)
    while any(by_kind.values()):
        yield from (found.pop() for found in by_kind.values() if found)


def explained() -> dict[str, str]:
    """Return the mutants that change nothing, with the reasons: name, then the reason indented."""
    reasons: dict[str, str] = {}
    name = ""
    for line in EXPLAINED.read_text().splitlines():
        if line.startswith("    "):
            reasons[name] = f"{reasons[name]} {line.strip()}".strip()
        elif line and not line.startswith("#"):
            name = line
            reasons[name] = ""
    return reasons


class Runner:
    """Runs mutants, as many at a time as there are scratch folders."""

    def __init__(self, folder: Path, processes: int, seconds: float) -> None:
        self.seconds = seconds
        self.free = [Scratch(folder / str(i)) for i in range(processes)]
        self.lock = threading.Lock()

    def __call__(self, mutant: Mutant, tests: list[str]) -> tuple[Mutant, Verdict, float]:
        """Run the tests against a mutant; a run of two seconds more or less says nothing."""
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

    def unchanged(self, tests: list[str]) -> Verdict:
        """Run tests against the kernels as they are: they must pass, or catching would say nothing."""
        return self.free[0].run(tests, 10 * self.seconds)


@dataclass(frozen=True)
class Result:
    """A mutant that counts, and what became of it."""

    mutant: Mutant
    status: str
    """ "caught", "survived", "explained"."""
    reason: str
    seconds: float


def run(
    seed: int, count: int, processes: int, seconds: float, skip_explained: bool = False
) -> Iterator[Result]:
    """Yield `count` results in the order in which they come; raises if tests fail without a mutant."""
    from selection import tests_of

    reasons = explained()
    drawn = (m for m in draw(seed) if not (skip_explained and m.name in reasons))
    with tempfile.TemporaryDirectory(prefix="trine-mutants-") as folder, \
            ThreadPoolExecutor(processes) as pool:  # fmt: skip
        runner = Runner(Path(folder), processes, seconds)
        first = next(draw(seed))
        control = runner.unchanged(tests_of(first.file, first.line)[:1])
        if control.status != "survived":
            raise RuntimeError(f"the tests fail without any mutant: {control.reason}")
        waiting: set[Future[tuple[Mutant, Verdict, float]]] = set()
        finished = 0
        while finished < count:
            while len(waiting) < min(processes, count - finished):
                mutant = next(drawn)
                waiting.add(pool.submit(runner, mutant, tests_of(mutant.file, mutant.line)))
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                mutant, verdict, took = future.result()
                if verdict.status == "does not compile":
                    continue
                finished += 1
                status, reason = verdict.status, verdict.reason
                if status == "survived" and mutant.name in reasons:
                    status, reason = "explained", reasons[mutant.name]
                yield Result(mutant, status, reason, took)


def told(number: int, result: Result) -> str:
    """Return a result as lines of text."""
    mutant = result.mutant
    old, new = mutant.diff
    return (
        f"{number:3} {result.status:9} {result.seconds:5.1f} s  {mutant.file}:{mutant.line} {mutant.kind}\n"
        f"      - {old}\n      + {new}\n" + (f"      {result.reason}\n" if result.reason else "")
    )


def page(results: list[Result], seed: int, seconds: float) -> str:
    """Return the results as Markdown."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    counts = {s: sum(r.status == s for r in results) for s in ("caught", "survived", "explained")}
    real = len(results) - counts["explained"]
    lines = [
        "# Mutants of the CUDA kernels", "",
        f"Made by `python {Path(__file__).relative_to(ROOT)} --seed {seed} --count {len(results)}` at "
        f"{commit} in {seconds:.0f} s. Each mutant is one small fault planted in a copy of the kernels, "
        "their headers or their launches, and run by the project's own tests through the emulator.", "",
        f"Caught: {counts['caught']} of {real}, {100 * counts['caught'] / real:.0f} %. Besides, "
        f"{counts['explained']} drawn mutants change nothing that a call computes.", "",
        "| kind | caught | survived | changes nothing |", "|---|---|---|---|",
    ]  # fmt: skip
    for kind in KINDS:
        of = [sum(r.mutant.kind == kind and r.status == s for r in results) for s in counts]
        lines.append(f"| {kind} | {of[0]} | {of[1]} | {of[2]} |")
    for status, title in (("survived", "Survivors"), ("explained", "Mutants that change nothing")):
        found = [r for r in results if r.status == status]
        lines += ["", f"## {title}", "", *([] if found else ["None."])]
        for result in sorted(found, key=lambda r: (r.mutant.file, r.mutant.line)):
            old, new = result.mutant.diff
            lines += [f"- `{result.mutant.file}:{result.mutant.line}`, {result.mutant.kind}",
                      f"  - before: `{old}`", f"  - after: `{new}`"]  # fmt: skip
            lines += [f"  - {result.reason}"] if result.reason else []
    lines += ["", "## All", "", "| mutant | kind | change | found by |", "|---|---|---|---|"]
    for r in sorted(results, key=lambda r: (r.mutant.file, r.mutant.line, r.mutant.start)):
        change = f"{_cell(r.mutant.before[r.mutant.start : r.mutant.end])} -> {_cell(r.mutant.new)}"
        by = r.reason.partition(" - ")[0].rpartition("/")[2] if r.status == "caught" else r.status
        lines.append(
            f"| {r.mutant.file}:{r.mutant.line} | {r.mutant.kind} | `{change}` | {_cell(by)} |"
        )
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Run, print each result as it comes, write the table; return 1 if an unexplained one survived."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--seconds", type=float, default=300.0, help="a mutant's time")
    parser.add_argument("--skip-explained", action="store_true", help="draw none of them")
    parser.add_argument("--list", action="store_true", help="only list what would be drawn")
    parser.add_argument("--out", type=Path, help="write the table here (Markdown)")
    asked = parser.parse_args()
    if asked.list:
        for number, mutant in zip(range(asked.count), draw(asked.seed), strict=False):
            print(told(number + 1, Result(mutant, "drawn", "", 0.0)), end="")
        return 0
    started = time.monotonic()
    results = []
    for result in run(
        asked.seed, asked.count, asked.processes, asked.seconds, asked.skip_explained
    ):
        results.append(result)
        print(told(len(results), result), end="", flush=True)
    text = page(results, asked.seed, time.monotonic() - started)
    print(text[: text.index("## Survivors")])
    if asked.out is not None:
        asked.out.write_text(text)
    return int(any(r.status == "survived" for r in results))


if __name__ == "__main__":
    sys.exit(main())
