"""What `trine explain` shows: formulas, the numbers that Trine computes for them, and references.

A number quoted from a source is given as text, so that the digits printed there decide how closely
it can be compared: one unit of its last digit, since sources go on with rounded numbers, or the
tolerance of the element type where that is wider (float64: 1e-8 of the value; float32: 1e-6).
"""

from __future__ import annotations

import html as html_text
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.models.figures import Drawing, Figure

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
    """What the value must be to its reference: "=", ">=" or "<=", each within the tolerance."""

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


@dataclass
class Explanation:
    """A worked example: equations, rows of numbers, matrices, notes and perhaps figures.

    `figure` is its plot of curves; `drawings` holds other figures by name.
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
        """Add a property that must hold: 1 for true."""
        self.rows.append(Row(symbol, formula, float(value), 1.0, 0.0))

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

    def text(self) -> str:
        """Return it as plain text for a terminal."""
        lines = [self.title, f"{self.source} · {self.backend} · {self.dtype}", ""]
        lines += [f"    {equation}" for equation in self.equations]
        if self.equations:
            lines.append("")
        cells = [
            (r.symbol, r.formula, _number(r.value, self.dtype), _judgement(r)) for r in self.rows
        ]
        widths = [max((len(row[i]) for row in cells), default=0) for i in range(3)]
        for symbol, formula, value, judgement in cells:
            line = (
                f"{symbol:<{widths[0]}}  {formula:<{widths[1]}}  {value:>{widths[2]}}  {judgement}"
            )
            lines.append(line.rstrip())
        for name, matrix in self.matrices.items():
            lines += ["", f"{name} =", _matrix(matrix)]
        if self.notes:
            lines += ["", *self.notes]
        return "\n".join(lines)

    def html(self) -> str:
        """Return it as one HTML page without scripts or outside files."""
        e = html_text.escape
        body = [f"<h1>{e(self.title)}</h1>"]
        body.append(f"<p>{e(self.source)} · {e(self.backend)} · {e(self.dtype)}</p>")
        if self.equations:
            body.append("<pre>" + e("\n".join(self.equations)) + "</pre>")
        if self.rows:
            body.append("<table><tr><th>quantity<th>formula<th>value<th>reference</tr>")
            for row in self.rows:
                mark = "" if row.ok else ' class="wrong"'
                body.append(
                    f"<tr{mark}><td>{e(row.symbol)}<td>{e(row.formula)}"
                    f"<td>{e(_number(row.value, self.dtype))}<td>{e(_judgement(row))}</tr>"
                )
            body.append("</table>")
        for name, matrix in self.matrices.items():
            body.append(f"<h2>{e(name)}</h2><pre>{e(_matrix(matrix))}</pre>")
        body += [f"<p>{e(note)}</p>" for note in self.notes]
        return _PAGE.format(title=e(self.title), body="\n".join(body))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif }}
body {{ max-width: 62rem; margin: 2rem auto; padding: 0 1rem }}
pre, td {{ font-family: ui-monospace, monospace; font-size: 14px }} pre {{ overflow-x: auto }}
table {{ border-collapse: collapse }} td, th {{ padding: .2rem .8rem; text-align: left }}
tr:nth-child(even) {{ background: #f3f3f3 }} .wrong {{ background: #ffd5d5 }}
</style></head><body>
{body}
</body></html>
"""


def _number(value: float, dtype: str) -> str:
    return f"{value:.10g}" if dtype == "float64" else f"{value:.7g}"


def _failure(row: Row) -> str:
    if row.relation != "=":
        return f"{row.symbol}: {row.value:.6g} is not {row.relation} {row.reference:.6g}"
    return (
        f"{row.symbol}: {row.value!r} differs from {row.reference!r} by more than"
        f" {row.tolerance:.3g}"
    )


def _judgement(row: Row) -> str:
    if row.reference is None or row.tolerance is None:
        return ""
    shown = row.printed if row.printed is not None else f"{row.reference:.10g}"
    if row.relation != "=":
        return f"{row.relation} {shown}" if row.ok else f"NOT {row.relation} {shown}"
    return f"{'=' if row.ok else 'DIFFERS FROM'} {shown} (tolerance {row.tolerance:.1g})"


def _matrix(matrix: npt.NDArray[Any]) -> str:
    return np.array2string(
        np.asarray(matrix), precision=6, suppress_small=False, max_line_width=100
    )
