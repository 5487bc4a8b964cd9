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
from trine.models.worked import number

Array = npt.NDArray[Any]

UNITS = 12
"""Layers of up to so many units are drawn unit by unit."""
GAP, ROW, TOP = 130, 46, 40


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
    title = "The network for this sample: " + " to ".join(c.symbol for c in drawn)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" '
        f'style="max-width: {round(1.4 * width)}px" aria-label="{escape(title, quote=True)}">'
        + "".join(body)
        + "</svg>"
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
        yield f'<rect x="{x - 45}" y="{y - 18}" width="90" height="36" rx="6" class="box"/>'
        yield f'<text x="{x}" y="{y + 4}">{shape}</text>'
        return
    for unit, value in enumerate(column.value.ravel()):
        y = _y(unit, column.units, height)
        yield f'<circle cx="{x}" cy="{y:g}" r="20" class="unit"/>'
        yield (
            f'<text x="{x}" y="{y + 4:g}" data-q="{column.symbol}" data-i="{unit}" data-short="1">'
            f"{float(value):.3g}</text>"
        )


def _edges(drawn: list[Column], height: int) -> Iterator[str]:
    for place, (before, after) in enumerate(pairwise(drawn)):
        if not (before.units and after.units):
            yield _line(place, _y(0, 1, height), _y(0, 1, height), "flow", "")
            continue
        weight = _weights(after.part)
        if weight is not None and weight.shape != (after.units, before.units):
            weight = None  # what lies between is not drawn
        for unit in range(after.units):
            for source in range(before.units):
                if weight is None and unit != source:
                    continue
                y0 = _y(source, before.units, height)
                y1 = _y(unit, after.units, height)
                if weight is None:
                    yield _line(place, y0, y1, "flow", "")
                    continue
                w = float(weight[unit, source])
                kind = "positive" if w >= 0 else "negative"
                symbol = after.part.inputs[1].symbol if after.part else ""
                mark = f'data-e="{escape(symbol, quote=True)}" data-i="{unit * before.units + source}" '
                wide = min(0.6 + abs(w), 5.0)
                yield _line(place, y0, y1, kind, f"{symbol} {number(w)}", wide, mark)


def _weights(part: Part | None) -> Array | None:
    """Return the weights (outputs, inputs) of a full layer."""
    if part is None or part.op != "linear":
        return None
    return np.asarray(part.inputs[1].value)


def _line(
    place: int, y0: float, y1: float, kind: str, title: str, width: float = 1.0, mark: str = ""
) -> str:
    label = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<line {mark}x1="{_x(place) + 20}" y1="{y0:g}" x2="{_x(place + 1) - 20}" y2="{y1:g}" '
        f'class="{kind}" stroke-width="{width:.2g}">{label}</line>'
    )
