"""The mutants: made from every file of the kernels, drawn by seed, some of them explained."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cpp_mutants
import launch_mutants
from scratch import KERNELS

KINDS = ("barrier", "bound", "index", "stride", "operator", "axis", "launch")
EXPLAINED = Path(__file__).with_name("explained.txt")


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
        return text_of(self.file).count("\n", 0, self.start) + 1

    @property
    def old(self) -> str:
        """What goes."""
        return text_of(self.file)[self.start : self.end]

    @property
    def after(self) -> str:
        """The file with the change."""
        code = text_of(self.file)
        return code[: self.start] + self.new + code[self.end :]

    @property
    def diff(self) -> tuple[str, str]:
        """The line before and after."""
        return lines_of(text_of(self.file), self.start, self.end, self.new)


@cache
def text_of(file: str) -> str:
    """Return the text of a file of the kernels."""
    return (KERNELS / file).read_text()


def lines_of(code: str, start: int, end: int, new: str) -> tuple[str, str]:
    """Return the lines in which a change lies, as one, before and after it."""
    first, last = code.rfind("\n", 0, start) + 1, code.find("\n", end)
    changed = code[first:start] + new + code[end:last]
    return " ".join(code[first:last].split()), " ".join(changed.split())


def sources() -> list[str]:
    """Return the names of the files that mutants are made of."""
    files = [*KERNELS.glob("*.cu"), *KERNELS.glob("include/*.h"), *KERNELS.glob("*.py")]
    return sorted(str(f.relative_to(KERNELS)) for f in files if f.name != "__init__.py")


def mutants_of(file: str) -> Iterator[Mutant]:
    """Yield every mutant of a file."""
    code = text_of(file)
    found = (launch_mutants if file.endswith(".py") else cpp_mutants).mutants(code)
    seen: dict[str, int] = {}
    for kind, start, end, new in found:
        _, changed = lines_of(code, start, end, new)
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
