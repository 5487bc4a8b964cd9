"""The table of systems as a page of the guide."""

from __future__ import annotations

from itertools import groupby

from trine.bench.environment import environment
from trine.models.measured import Measured

FIGURES = 6
"""Figures of a run that its line shows; the JSON file has all of them."""


def page(rows: list[Measured]) -> str:
    """Return the table as Markdown, a section for each family."""
    machine = environment()
    lines = [
        "# Every system, trained",
        "",
        f"`make models` on {machine['cpu']['model']}, {machine['cpus']} CPUs, writes this page. Seconds "
        "are those of the whole process: start, data, training, evaluation; those in brackets are CPU "
        "seconds of all its threads, which tell more where other work ran beside it. The reference "
        "that a figure is to reach stands in brackets after it; it comes from the source in the same "
        "line, or from a baseline that the same run computes on the same split, which the words before "
        "the figure name. The hash is that of the data's bytes. All figures, where a line has more, "
        "are in `models/measured.json`; `trine train NAME` prints them.",
        "",
    ]
    if len({row.commit for row in rows}) == 1:
        lines += [f"Everything was measured at commit `{rows[0].commit}`.", ""]
    by_family = sorted(rows, key=lambda row: (row.family.lower(), row.name, row.data))
    for family, members in groupby(by_family, lambda row: row.family):
        lines += [
            f"## {family[0].upper()}{family[1:]}",
            "",
            "| system | parameters | data | backend | epochs | seconds (CPU) | reached | source "
            "| commit |",
            "|---|---|---|---|---|---|---|---|---|",
            *(_line(row) for row in members),
            "",
        ]
    return "\n".join(lines)


def _line(row: Measured) -> str:
    cpu = f" ({row.cpu_seconds:g})" if row.cpu_seconds else ""
    cells = [
        f"`{row.name}`", str(row.parameters or ""), f"{row.data} {row.data_hash[:8]}".strip(),
        row.backend, str(row.epochs or ""), f"{row.seconds:g}{cpu}", _cell(row), row.source,
        row.commit,
    ]  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"  # a bar ends a cell


def _cell(row: Measured) -> str:
    """Return the first figures below one another, and what failed or fell short in bold."""
    if row.failed:
        return f"**failed: {row.failed}**"
    figures = [f"{f.what}: **{f.value}**" + (f" ({f.wanted})" if f.wanted else "")
               for f in row.reached[:FIGURES]]  # fmt: skip
    more = len(row.reached) - FIGURES
    figures += [f"{more} more"] if more > 0 else []
    figures += [f"**short: {row.short}**"] if row.short else []
    return "<br>".join(figures)
