"""The numbers of an anatomy by name, as a table for spreadsheets and as steps of a page's slider."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.models.anatomy import RECURRENT, Anatomy, Part
from trine.models.recurrent_steps import recurrent_steps
from trine.models.worked import SLOPES, slope, worked
from trine.models.worked_back import worked_back

Array = npt.NDArray[Any]

SMALL = 64
"""Quantities of up to so many numbers are given whole, larger ones as a summary."""
BINS = 16
SUMMARY = ("norm", "smallest", "largest")


@dataclass(frozen=True)
class Quantity:
    """One array with the symbol that formulas give it."""

    symbol: str
    meaning: str
    value: Array
    steps: bool = False
    """Whether rows are time steps, which are all given."""

    @property
    def small(self) -> bool:
        """Whether it is given whole."""
        return self.steps or self.value.size <= SMALL

    def summary(self) -> list[float]:
        """Return Euclidean norm, smallest and largest value."""
        flat = np.asarray(self.value, dtype=np.float64).ravel()
        if not flat.size:
            return [0.0, 0.0, 0.0]
        return [float(np.linalg.norm(flat)), float(flat.min()), float(flat.max())]

    def histogram(self) -> list[int]:
        """Return how many values lie in each of BINS parts between the smallest and the largest."""
        flat = np.asarray(self.value, dtype=np.float64).ravel()
        counts, _ = np.histogram(flat[np.isfinite(flat)], bins=BINS)
        return [int(n) for n in counts]


def quantities(part: Part, anatomy: Anatomy, sample: int) -> Iterator[Quantity]:
    """Yield what there is to see of an op: output, slope, error, weights, gradients, new weights."""
    rows = "" if part.by_sample else ", all rows"
    if not part.output.ndim:
        yield Quantity(part.symbol, "number", part.output.reshape(1))
    else:
        yield Quantity(part.symbol, f"output{rows}", part.of(part.output, sample))
    steep = slope(part)
    if steep is not None and part.output.ndim:
        z = part.inputs[0].symbol if part.op in SLOPES else f"z{part.layer}"
        yield Quantity(f"act'({z})", f"slope{rows}", part.of(steep, sample))
    if part.delta is not None and part.output.ndim:
        yield Quantity(f"dC/d{part.symbol}", f"error{rows}", part.of(part.delta, sample))
    if part.op in RECURRENT:
        for name, steps in recurrent_steps(part, sample).items():
            meaning = f"a row a time step, the first {steps.shape[1]} units"
            yield Quantity(f"{name}{part.layer}", meaning, steps, steps=True)
    for operand in part.parameters:
        assert operand.parameter is not None  # these are the learned ones
        path, symbol = operand.parameter, operand.symbol
        yield Quantity(symbol, path, anatomy.weights[path])
        if path in anatomy.grads:
            yield Quantity(f"dC/d{symbol}", f"gradient of {path}", anatomy.grads[path])
        new = anatomy.updated(path)
        if new is not None:
            step = f"{path} after a step: {symbol} - {anatomy.rate:g} dC/d{symbol}"
            yield Quantity(f"{symbol}'", step, new)


def snapshot(anatomy: Anatomy, sample: int) -> dict[str, Any]:
    """Return an anatomy's numbers for the page's script: whole, summaries, bars, worked lines."""
    whole: dict[str, list[float]] = {}
    bars: dict[str, list[int]] = {}
    lines: dict[str, list[str]] = {}
    for place, part in enumerate(anatomy.parts):
        for quantity in quantities(part, anatomy, sample):
            if quantity.small:
                whole[quantity.symbol] = _plain(quantity.value)
            else:
                whole[f"|{quantity.symbol}|"] = _plain(np.array(quantity.summary()))
                bars[quantity.symbol] = quantity.histogram()
        lines[f"f{place}"] = worked(part, sample)
        lines[f"b{place}"] = worked_back(part, anatomy, sample)
    x = anatomy.input
    if x.ndim > 1 and x[sample].size <= SMALL:
        whole["a0"] = _plain(x[sample])
    if anatomy.cost is not None:
        whole["cost"] = [anatomy.cost]
    return {"q": whole, "h": bars, "w": lines}


def _plain(values: Array) -> list[float]:
    return [float(f"{float(v):.10g}") for v in np.asarray(values).ravel()]


def as_csv(anatomies: Sequence[tuple[int, Anatomy]], sample: int) -> str:
    """Return all small quantities and the summaries of large ones, one number a line.

    Columns: step, layer, module, quantity, meaning, index, value.
    """
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    write(("step", "layer", "module", "quantity", "meaning", "index", "value"))
    for step, anatomy in anatomies:
        for part in anatomy.parts:
            for quantity in quantities(part, anatomy, sample):
                head = (step, part.layer, part.path, quantity.symbol, quantity.meaning)
                if quantity.small:
                    for index, value in np.ndenumerate(quantity.value):
                        write((*head, " ".join(str(i + 1) for i in index), repr(float(value))))
                else:
                    for name, value in zip(SUMMARY, quantity.summary(), strict=True):
                        write((*head, name, repr(value)))
    return text.getvalue()


def rows_as_csv(rows: Sequence[Any]) -> str:
    """Return an explanation's rows: quantity, formula, value, reference."""
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    write(("quantity", "formula", "value", "reference"))
    for row in rows:
        write(
            (
                row.symbol,
                row.formula,
                repr(row.value),
                "" if row.reference is None else repr(row.reference),
            )
        )
    return text.getvalue()
