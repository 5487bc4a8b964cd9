"""What `trine explain` shows: formulas, the numbers that Trine computes for them, and references.

A number quoted from a source is given as text, so that the digits printed there decide how closely
it can be compared: one unit of its last digit, since sources go on with rounded numbers, or the
tolerance of the element type where that is wider (float64: 1e-8 of the value; float32: 1e-6).
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trine.models.figures import Drawing, Figure

if TYPE_CHECKING:
    from trine.models.anatomy import Anatomy

FLOAT32_TOLERANCE = 1e-6
FLOAT64_TOLERANCE = 1e-8


def printed_tolerance(text: str) -> float:
    """Return one unit of the last digit of a printed number: 1e-4 for "0.3775"."""
    mantissa, _, exponent = text.lower().partition("e")
    digits = len(mantissa.partition(".")[2])
    return float(10.0 ** (int(exponent or 0) - digits))


def tolerance_for(reference: float, dtype: str) -> float:
    """Return how far a value of a dtype may lie from a reference."""
    if dtype == "float64":
        return FLOAT64_TOLERANCE * abs(reference)
    return FLOAT32_TOLERANCE * max(1.0, abs(reference))


@dataclass(frozen=True)
class Row:
    """One quantity: its symbol, its formula, the value computed, and the value it should have."""

    symbol: str
    formula: str
    value: float
    reference: float | None = None
    tolerance: float | None = None
    printed: str | None = None
    relation: str = "="
    """What the value must be to its reference: "=", ">=" or "<=", each within the tolerance.

    "is" marks a property, whose value is 1 where it holds and 0 where not.
    """

    @property
    def ok(self) -> bool:
        """Return whether the value agrees with its reference; True without one."""
        if self.reference is None or self.tolerance is None:
            return True
        above = self.value - self.reference
        if not math.isfinite(above):
            return False
        too_low = self.relation != "<=" and above < -self.tolerance
        return not too_low and (self.relation == ">=" or above <= self.tolerance)

    def text(self, dtype: str) -> str:
        """Return the value with the digits that its dtype has; yes or no for a property."""
        if self.relation == "is":
            return "yes" if self.value else "no"
        return f"{self.value:.10g}" if dtype == "float64" else f"{self.value:.7g}"

    def judgement(self) -> str:
        """Return in words how the value stands to its reference."""
        if self.reference is None or self.tolerance is None:
            return ""
        shown = self.printed if self.printed is not None else f"{self.reference:.10g}"
        if self.relation == "is":
            return "= yes" if self.ok else "DIFFERS FROM yes"
        if self.relation != "=":
            return f"{self.relation} {shown}" if self.ok else f"NOT {self.relation} {shown}"
        return f"{'=' if self.ok else 'DIFFERS FROM'} {shown} (tolerance {self.tolerance:.1g})"


@dataclass
class Explanation:
    """A worked example: equations, rows of numbers, matrices, notes and perhaps figures.

    `figure` is its plot of curves; `drawings` holds other figures by name. `anatomies` are what a
    model does, op by op, after so many training steps each; `sample` is the one that is shown.
    """

    name: str
    title: str
    source: str
    backend: str
    dtype: str
    equations: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    matrices: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    figure: Figure | None = None
    drawings: dict[str, Drawing] = field(default_factory=dict)
    anatomies: list[tuple[int, Anatomy]] = field(default_factory=list)
    sample: int = 0

    def show(self, symbol: str, formula: str, value: Any) -> None:
        """Add a number that has no reference."""
        self.rows.append(Row(symbol, formula, float(value)))

    def quote(
        self, symbol: str, formula: str, value: Any, printed: str, tolerance: float | None = None
    ) -> None:
        """Add a number and what the source prints for it."""
        reference = float(printed)
        if tolerance is None:
            tolerance = max(printed_tolerance(printed), tolerance_for(reference, self.dtype))
        self.rows.append(Row(symbol, formula, float(value), reference, tolerance, printed))

    def equal(
        self, symbol: str, formula: str, value: Any, reference: Any, tolerance: float | None = None
    ) -> None:
        """Add a number computed in one way and, as its reference, in another."""
        expected = float(reference)
        if tolerance is None:
            tolerance = tolerance_for(max(1.0, abs(expected)), self.dtype)
        self.rows.append(Row(symbol, formula, float(value), expected, tolerance))

    def agree(
        self, symbol: str, formula: str, value: Any, reference: Any, tolerance: float | None = None
    ) -> None:
        """Add the largest difference between two arrays, to be 0 within the tolerance."""
        a, b = np.asarray(value, dtype=np.float64), np.asarray(reference, dtype=np.float64)
        if a.shape != b.shape:
            raise ValueError(f"[explain] {symbol}: shapes {a.shape} and {b.shape} differ.")
        scale = max(1.0, float(np.max(np.abs(b), initial=0.0)))
        if tolerance is None:
            tolerance = tolerance_for(scale, self.dtype)
        worst = float(np.max(np.abs(a - b), initial=0.0))
        self.rows.append(Row(f"max |{symbol}|", formula, worst, 0.0, tolerance))

    def truth(self, symbol: str, formula: str, value: bool) -> None:
        """Add a property that must hold."""
        self.rows.append(Row(symbol, formula, float(value), 1.0, 0.0, relation="is"))

    def at_least(self, symbol: str, formula: str, value: Any, bound: float) -> None:
        """Add a number that must not lie below a bound."""
        self.rows.append(Row(symbol, formula, float(value), float(bound), 0.0, relation=">="))

    def at_most(self, symbol: str, formula: str, value: Any, bound: float) -> None:
        """Add a number that must not lie above a bound."""
        self.rows.append(Row(symbol, formula, float(value), float(bound), 0.0, relation="<="))

    @property
    def ok(self) -> bool:
        """Return whether every row agrees with its reference."""
        return all(row.ok for row in self.rows)

    def failures(self) -> list[str]:
        """Return one line for each row that disagrees."""
        return [_failure(row) for row in self.rows if not row.ok]

    def json(self) -> dict[str, Any]:
        """Return all of it as plain lists, numbers and text."""
        return {
            "name": self.name,
            "title": self.title,
            "source": self.source,
            "backend": self.backend,
            "dtype": self.dtype,
            "ok": self.ok,
            "equations": list(self.equations),
            "rows": [
                {
                    "symbol": row.symbol,
                    "formula": row.formula,
                    "value": row.value,
                    "reference": row.reference,
                    "tolerance": row.tolerance,
                    "relation": row.relation,
                    "ok": row.ok,
                }
                for row in self.rows
            ],
            "matrices": {name: np.asarray(m).tolist() for name, m in self.matrices.items()},
            "notes": list(self.notes),
            "curves": [
                {"label": c.label, "x": list(c.x), "y": list(c.y)}
                for c in (self.figure.curves if self.figure else ())
            ],
        }

    def text(self, width: int = 200) -> str:
        """Return it as plain text for a terminal so many columns wide."""
        lines = [self.title, f"{self.source} · {self.backend} · {self.dtype}", ""]
        for equation in self.equations:
            lines += _wrapped(equation, width, "    ")
        if self.equations:
            lines.append("")
        lines += self._row_lines(width)
        for name, matrix in self.matrices.items():
            lines += ["", f"{name} =", _matrix(matrix, min(width, 100))]
        for note in self.notes:
            lines += ["", *_wrapped(note, width)]
        return "\n".join(lines)

    def _row_lines(self, width: int) -> list[str]:
        """Return the rows in columns; where these are too wide, the values below the formulas."""
        cells = [(r.symbol, r.formula, r.text(self.dtype), r.judgement()) for r in self.rows]
        widths = [max((len(row[i]) for row in cells), default=0) for i in range(3)]
        lines = [
            f"{symbol:<{widths[0]}}  {formula:<{widths[1]}}  {value:>{widths[2]}}  {judgement}".rstrip()
            for symbol, formula, value, judgement in cells
        ]
        if max(map(len, lines), default=0) <= width:
            return lines
        lines = []
        for symbol, formula, value, judgement in cells:
            lines += _wrapped(f"{symbol:<{widths[0]}}  {formula}", width)
            lines += _wrapped(f"{value}  {judgement}".rstrip(), width, " " * (widths[0] + 2))
        return lines

    def html(self) -> str:
        """Return it as one HTML page that needs nothing from outside."""
        from trine.models.explain_page import page  # noqa: PLC0415 (only where a page is asked for)

        return page(self)

    def csv(self) -> str:
        """Return every number as a table for a spreadsheet: the rows, or all of the anatomies."""
        from trine.models.snapshots import as_csv, rows_as_csv  # noqa: PLC0415 (like the page)

        if self.anatomies:
            return as_csv(self.anatomies, self.sample)
        return rows_as_csv(self.rows)


def _failure(row: Row) -> str:
    if row.relation == "is":
        return f"{row.symbol}: not so: {row.formula}"
    if row.relation != "=":
        return f"{row.symbol}: {row.value:.6g} is not {row.relation} {row.reference:.6g}"
    return (
        f"{row.symbol}: {row.value!r} differs from {row.reference!r} by more than"
        f" {row.tolerance:.3g}"
    )


def _matrix(matrix: npt.NDArray[Any], width: int) -> str:
    return np.array2string(
        np.asarray(matrix), precision=6, suppress_small=False, max_line_width=width
    )


def _wrapped(line: str, width: int, indent: str = "") -> list[str]:
    """Return a line, and what does not fit on lines of its own further in; spaces inside stay."""
    return textwrap.wrap(
        line, width, initial_indent=indent, subsequent_indent=indent + "    ",
        drop_whitespace=True, break_long_words=False, break_on_hyphens=False,
    ) or [indent]  # fmt: skip
