"""Reports as one HTML page: a roofline and tables, no script, nothing from anywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from trine import atomic
from trine.bench.report import cells, columns, remarks
from trine.bench.results import Report
from trine.bench.roofline import roofline

STYLE = """
:root { color-scheme: light dark; --line: #8886; --dim: #777; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; font-size: 0.88rem; }
th, td { padding: 0.2rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; }
th.left, td.left { text-align: left; } td.error { text-align: left; color: #c33; }
tr.peer td { color: var(--dim); font-style: italic; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 1rem; font-size: 0.9rem; }
dt { color: var(--dim); } dd { margin: 0; }
svg text { fill: currentColor; font: 12px system-ui, sans-serif; }
.scroll { overflow-x: auto; }
"""
LEFT = ("op", "shape", "backend", "kernel", "bound", "rounds")


def page(report: Report) -> str:
    """Return a report as an HTML page that needs no other file."""
    rows = len(report.results)
    timed = sum(bool(r.rounds) for r in report)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>trine bench: {rows} rows</title><style>{STYLE}</style></head><body>",
        "<h1>trine bench</h1>",
        f"<p>{timed} of {rows} rows have a time. Every kernel was held against the float64 "
        "reference before and after timing; a time that beats the machine's measured limits is "
        "refused.</p>",
    ]
    plots = [roofline(report, dtype) for dtype in dict.fromkeys(r.dtype for r in report)]
    if any(plots):
        parts += ["<h2>Roofline</h2>", *(p for p in plots if p)]
    parts.append("<h2>Results</h2>")
    parts += list(_tables(report))
    parts += ["<h2>How to read it</h2>", _list(remarks(report)), "<h2>Environment</h2>"]
    parts += [_environment(report), "</body></html>"]
    return "\n".join(parts) + "\n"


def write_html(report: Report, path: str | Path) -> None:
    """Write the page, replacing the file in one step; raises OSError with the remedy."""
    atomic.write_text(Path(path), page(report))


def _tables(report: Report) -> Iterable[str]:
    names = columns(report)
    for op in dict.fromkeys(r.op for r in report):
        yield f'<h3>{escape(op)}</h3><div class="scroll"><table><thead><tr>'
        yield "".join(_cell("th", name, name) for name in names[1:]) + "</tr></thead><tbody>"
        for row in report:
            if row.op != op:
                continue
            kind = ' class="peer"' if row.side != "trine" else ""
            yield f"<tr{kind}>" + _row(names[1:], cells(report, row, names)[1:], row.error)
        yield "</tbody></table></div>"


def _row(names: Sequence[str], texts: Sequence[str], error: str) -> str:
    if not error:
        return "".join(_cell("td", n, t) for n, t in zip(names, texts, strict=True)) + "</tr>"
    head = [n for n in names if n in ("shape", "backend", "kernel")]
    cells_ = "".join(_cell("td", n, texts[names.index(n)]) for n in head)
    rest = len(names) - len(head)
    return f'{cells_}<td class="error" colspan="{rest}">no time: {escape(error)}</td></tr>'


def _cell(tag: str, column: str, text: str) -> str:
    kind = ' class="left"' if column in LEFT else ""
    return f"<{tag}{kind}>{escape(text)}</{tag}>"


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _environment(report: Report) -> str:
    items = []
    for name, value in report.environment.items():
        if isinstance(value, dict):
            text = ", ".join(f"{k} {v}" for k, v in value.items())
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        items.append(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>")
    return "<dl>" + "".join(items) + "</dl>"
