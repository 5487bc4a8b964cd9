"""Tables of rows as Markdown: the columns are what the rows have, in the order in which it comes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def table(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(cell(row.get(name)) for name in columns)} |" for row in rows]
    return lines


def cell(value: Any) -> str:
    """Return a value in as many digits as it deserves."""
    if value is None or value == "":
        return ""
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        small = value != 0 and abs(value) < 1e-3
        return (
            f"{value:.1e}" if small else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        )
    return str(value).replace("|", "\\|").replace("\n", " ")
