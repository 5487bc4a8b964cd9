"""An anatomy in a terminal: every op's formula, the numbers put in, and what there is to see of it."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.rule import Rule

from trine.models.anatomy import Anatomy, Part
from trine.models.snapshots import SUMMARY, Quantity, quantities
from trine.models.worked import backward_formulas, formula, number, worked

BARS = " ▁▂▃▄▅▆▇█"


def show_anatomy(console: Console, step: int, anatomy: Anatomy, sample: int) -> None:
    """Print an anatomy after a training step, for one sample of its batch."""
    cost = "" if anatomy.cost is None else f", C = {number(anatomy.cost)}"
    console.print(Rule(f"op by op, after step {step}{cost}"))
    for part in anatomy.parts:
        _show_part(console, part, anatomy, sample)


def _show_part(console: Console, part: Part, anatomy: Anatomy, sample: int) -> None:
    where = f"  {part.path}" if part.path else ""
    console.print(f"\n[bold]{escape(formula(part))}[/bold]{escape(where)}", highlight=False)
    for line in worked(part, sample):
        console.print(f"    {line}", highlight=False, markup=False)
    if part.delta is not None:
        for line in backward_formulas(part):
            console.print(f"  {line}", highlight=False, markup=False, style="dim")
    for quantity in quantities(part, anatomy, sample):
        console.print(f"  {_line(quantity)}", highlight=False, markup=False)


def _line(quantity: Quantity) -> str:
    head = f"{quantity.symbol} ({quantity.meaning})"
    if quantity.small:
        values = np.array2string(
            quantity.value, precision=6, max_line_width=100, prefix=f"  {head} = "
        )
        return f"{head} = {values}"
    counts = quantity.histogram()
    top = max(*counts, 1)
    bars = "".join(BARS[round(n / top * (len(BARS) - 1))] for n in counts)
    pairs = zip(SUMMARY, quantity.summary(), strict=True)
    figures = ", ".join(f"{name} {number(value)}" for name, value in pairs)
    return f"{head}: {'x'.join(map(str, quantity.value.shape))}, {figures} {bars}"
