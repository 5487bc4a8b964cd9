"""A network drawn for one sample: its units and weights where they are few, else a box a layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.models.anatomy import Anatomy, Part
from trine.models.formulas import number

Array = npt.NDArray[Any]

UNITS = 12
"""Layers of up to so many units are drawn unit by unit."""
GAP, ROW, TOP = 130, 46, 40
UNIT, BOX = 27, 45
"""Half the width of a unit and of a box."""


@dataclass(frozen=True)
class Column:
    """One quantity of the network: its symbol, one sample's values, and the op that made it."""

    symbol: str
    value: Array
    part: Part | None

    @property
    def units(self) -> int:
        """How many units are drawn; 0 for a box."""
        return self.value.size if self.value.size <= UNITS else 0


def columns(anatomy: Anatomy, sample: int) -> list[Column]:
    """Return the quantities from the input to the output, without the cost and its arithmetic."""
    found: list[Column] = []
    for part in anatomy.parts:
        if part.symbol[0] not in "azp" or not part.by_sample:
            continue
        if not found:
            found.append(Column("a0", anatomy.input[sample], None))
        if found[-1].symbol == part.symbol:
            found.pop()  # the same numbers in another shape
        found.append(Column(part.symbol, part.of(part.output, sample), part))
    return found


def network_svg(anatomy: Anatomy, sample: int = 0) -> str:
    """Return the drawing as one `<svg>`, for a script to change at its numbers and weights.

    Numbers carry the symbol as `data-q` and their place in it as `data-i`, weights as `data-e`.
    """
    drawn = columns(anatomy, sample)
    tallest = max((max(c.units, 1) for c in drawn), default=1)
    width, height = GAP * len(drawn), TOP + ROW * tallest + 20
    body = [*_edges(drawn, height)]
    for place, column in enumerate(drawn):
        body += _column(column, place, height)
    look = f"max-width: {round(1.4 * width)}px; min-width: {round(0.7 * width)}px"
    title = "The network for this sample: " + " to ".join(c.symbol for c in drawn)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" '
        f'style="{look}" aria-label="{escape(title, quote=True)}">' + "".join(body) + "</svg>"
    )


def _x(place: int) -> int:
    return GAP * place + GAP // 2


def _y(unit: int, units: int, height: int) -> float:
    return TOP + (height - TOP - 20) / 2 + (unit - (units - 1) / 2) * ROW


def _column(column: Column, place: int, height: int) -> Iterator[str]:
    x = _x(place)
    yield f'<text x="{x}" y="20" class="name">{escape(column.symbol)}</text>'
    if not column.units:
        shape = "×".join(map(str, column.value.shape))
        y = _y(0, 1, height)
        yield (
            f'<rect x="{x - BOX}" y="{y - 18}" width="{2 * BOX}" height="36" rx="6" class="box"/>'
        )
        yield f'<text x="{x}" y="{y + 4}">{shape}</text>'
        return
    for unit, value in enumerate(column.value.ravel()):
        y = _y(unit, column.units, height)
        yield f'<ellipse cx="{x}" cy="{y:g}" rx="{UNIT}" ry="19" class="unit"/>'
        yield (
            f'<text x="{x}" y="{y + 4:g}" data-q="{column.symbol}" data-i="{unit}" data-short="1">'
            f"{float(value):.3g}</text>"
        )


def _edges(drawn: list[Column], height: int) -> Iterator[str]:
    for place, (before, after) in enumerate(pairwise(drawn)):
        sources = {operand.symbol for operand in after.part.inputs} if after.part else set()
        if before.symbol not in sources and sources & {column.symbol for column in drawn}:
            continue  # a branch: what it begins with stands further to the left
        x0 = _x(place) + (UNIT if before.units else BOX)
        x1 = _x(place + 1) - (UNIT if after.units else BOX)
        if not (before.units and after.units):
            y = _y(0, 1, height)
            yield _line(x0, y, x1, y, 'class="flow"')
            continue
        weight = _weights(after.part)
        if weight is not None and weight[1].shape != (after.units, before.units):
            weight = None  # what lies between is not drawn
        for unit in range(after.units):
            y1 = _y(unit, after.units, height)
            if weight is None:
                if unit < before.units:
                    yield _line(x0, _y(unit, before.units, height), x1, y1, 'class="flow"')
                continue
            symbol, values = weight
            for source, w in enumerate(values[unit].tolist()):
                look = (
                    f'class="{"positive" if w >= 0 else "negative"}" '
                    f'stroke-width="{min(0.6 + abs(w), 5.0):.2g}" '
                    f'data-e="{escape(symbol, quote=True)}" data-i="{unit * before.units + source}"'
                )
                title = f"<title>{escape(symbol)} {number(w)}</title>"
                yield _line(x0, _y(source, before.units, height), x1, y1, look, title)


def _weights(part: Part | None) -> tuple[str, Array] | None:
    """Return symbol and values (outputs, inputs) of a full layer's weights."""
    if part is None or part.op != "linear":
        return None
    return part.inputs[1].symbol, np.asarray(part.inputs[1].value)


def _line(x0: float, y0: float, x1: float, y1: float, look: str, title: str = "") -> str:
    return f'<line x1="{x0}" y1="{y0:g}" x2="{x1}" y2="{y1:g}" {look}>{title}</line>'
