"""What commands print: tables for people on stdout, one JSON value as the last line for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Lines of a log or a pipe are not wrapped at 80 characters.
console = Console(width=None if sys.stdout.isatty() else 200)
"""Results go to stdout."""

notes = Console(stderr=True, width=None if sys.stderr.isatty() else 200)
"""What accompanies them (choices made, progress, warnings) goes to stderr."""


WHOLE = 20
"""Columns of cells up to so long are not wrapped; the longer ones share what is left."""


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; columns whose cells are all numbers are aligned to the right."""
    body = [[str(cell) for cell in row] for row in rows]
    result = Table(title=title, title_justify="left", header_style="bold")
    for i, name in enumerate(columns):
        numeric = bool(body) and all(_is_number(row[i]) for row in body)
        short = max((len(row[i]) for row in body), default=0) <= WHOLE
        last = i == len(columns) - 1
        result.add_column(
            name,
            justify="right" if numeric else "left",
            overflow="fold",
            no_wrap=short and not last,
        )
    for row in body:
        result.add_row(*map(Text, row))  # as Text: brackets in cells are no markup
    console.print(result)


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "").replace("-", "").replace("%", "").isdigit()


def emit_json(value: Any) -> None:
    """Print a value as one line of JSON: NaN and Inf as null, which JSON lacks."""
    print(json.dumps(_plain(value), allow_nan=False), flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
