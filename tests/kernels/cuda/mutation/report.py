"""What became of mutants, as text and as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from drawing import KINDS, Mutant
from scratch import ROOT


@dataclass(frozen=True)
class Result:
    """A mutant that counts, and what became of it."""

    mutant: Mutant
    status: str
    """ "caught", "survived", "explained"."""
    reason: str
    """The test that found it, or why there is nothing to find."""
    seconds: float
    commit: str
    """At which it was run."""

    @property
    def test(self) -> str:
        """The test that found it, empty for none."""
        return self.reason.partition(" - ")[0] if "::" in self.reason else ""


def told(number: int, result: Result) -> str:
    """Return a result as lines of text."""
    mutant = result.mutant
    old, new = mutant.diff
    return (
        f"{number:3} {result.status:9} {result.seconds:5.1f} s  {mutant.file}:{mutant.line} {mutant.kind}\n"
        f"      - {old}\n      + {new}\n" + (f"      {result.reason}\n" if result.reason else "")
    )


def page(results: list[Result], seed: int) -> str:
    """Return the results as Markdown."""
    commits = Counter(r.commit for r in results)
    at = " and ".join(f"{commit} ({n} mutants)" for commit, n in commits.items())
    counts = {s: sum(r.status == s for r in results) for s in ("caught", "survived", "explained")}
    real = len(results) - counts["explained"]
    lines = [
        "# Mutants of the CUDA kernels", "",
        f"Made by `python {Path(__file__).relative_to(ROOT).with_name('run.py')} --seed {seed} --count "
        f"{len(results)}` at {at}. Each mutant is one small fault planted in a copy of the kernels, their "
        "headers or their launches, and run by the project's own tests through the emulator until one "
        "fails. Each of those tests passes without the mutant.", "",
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
        change = f"{_cell(r.mutant.old)} -> {_cell(r.mutant.new)}"
        by = (r.test.rpartition("/")[2] or r.reason) if r.status == "caught" else r.status
        lines.append(
            f"| {r.mutant.file}:{r.mutant.line} | {r.mutant.kind} | `{change}` | {_cell(by)} |"
        )
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
