"""An anatomy in a terminal: every op's formula, the numbers put in, and what there is to see of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from trine.models.anatomy import Anatomy, Part
from trine.models.formulas import backward_formulas, formula, number
from trine.models.snapshots import SUMMARY, Quantity, quantities
from trine.models.worked import worked
from trine.models.worked_back import worked_back

Array = npt.NDArray[Any]

BARS = " ▁▂▃▄▅▆▇█"
ROWS = 16
"""Rows of a quantity that are printed, half its first and half its last, and lines of numbers."""


def show_anatomy(console: Console, step: int, anatomy: Anatomy, sample: int) -> None:
    """Print an anatomy after a training step, for one sample of its batch."""
    cost = "" if anatomy.cost is None else f", C = {number(anatomy.cost)}"
    console.print(Rule(f"op by op, after step {step}{cost}"))
    for part in anatomy.parts:
        _show_part(console, part, anatomy, sample)


def _show_part(console: Console, part: Part, anatomy: Anatomy, sample: int) -> None:
    def show(line: str, indent: int, style: str = "") -> None:
        """Print a line; what does not fit goes on further in, so that starts of lines stand out."""
        body = Text(line, style=style).wrap(console, max(20, console.width - indent - 2))
        for place, piece in enumerate(body):
            piece.rstrip()
            console.print(Text(" " * (indent if place == 0 else indent + 2)) + piece)

    def show_some(lines: list[str]) -> None:
        for line in lines[:ROWS]:
            show(line, 4)
        if len(lines) > ROWS:
            show(f"... {len(lines) - ROWS} lines more in --html", 4)

    shape = "x".join(map(str, part.output.shape)) or "a number"
    console.print()
    show(formula(part), 0, "bold")
    show(f"{part.path}: {part.op}, {shape}" if part.path else f"{part.op}, {shape}", 2, "dim")
    show_some(worked(part, sample))
    if part.delta is not None:
        for line in backward_formulas(part):
            show(line, 2, "dim")
        show_some(worked_back(part, anatomy, sample))
    for quantity in quantities(part, anatomy, sample):
        for indent, line in _lines(quantity, console.width - 6):
            show(line, indent)


def _lines(quantity: Quantity, width: int) -> Iterator[tuple[int, str]]:
    """Yield what is printed of a quantity, each line with how far in it stands."""
    head = f"{quantity.symbol} ({quantity.meaning})"
    if not quantity.small:
        counts = quantity.histogram()
        top = max(*counts, 1)
        bars = "".join(BARS[round(n / top * (len(BARS) - 1))] for n in counts)
        pairs = zip(SUMMARY, quantity.summary(), strict=True)
        figures = ", ".join(f"{name} {number(value)}" for name, value in pairs)
        yield 2, f"{head}: {'x'.join(map(str, quantity.value.shape))}"
        yield 4, f"{figures} |{bars}|"
        return
    values = np.asarray(quantity.value)
    if values.size == 1:
        yield 2, f"{head} = {number(values.item())}"
        return
    yield 2, f"{head} ="
    table = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
    cells = [[number(value) for value in row] for row in table]
    wide = max(len(cell) for row in cells for cell in row) + 2
    fit = max(1, width // wide)
    for place, row in enumerate(cells, 1):
        if len(cells) > ROWS and ROWS // 2 < place <= len(cells) - ROWS // 2:
            if place == ROWS // 2 + 1:
                yield 4, f"... {len(cells) - ROWS} rows more in --html and --csv"
            continue
        rest = iter(row)
        while piece := list(islice(rest, fit)):
            yield 4, "".join(f"{cell:>{wide}}" for cell in piece)[2:]
