"""The page of `trine explain`: one HTML file without anything from outside.

It holds the network's drawing, the formulas in MathML, every op's numbers for one sample, and, where
training steps were recorded, a slider over them. Without scripts it shows the last step.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trine.dtypes import is_float
from trine.models.anatomy import Anatomy, Part
from trine.models.formulas import backward_formulas, formula, number
from trine.models.mathml import mathml
from trine.models.network_svg import network_svg
from trine.models.snapshots import BINS, SUMMARY, Quantity, quantities, snapshot
from trine.models.worked import worked
from trine.models.worked_back import worked_back

if TYPE_CHECKING:
    from trine.models.explanation import Explanation

Array = npt.NDArray[Any]
MAPS = 16
"""Maps of a layer that are shown as pictures."""
TINY = 16
"""Maps of up to so many numbers are not."""


def page(note: Explanation) -> str:
    """Return an explanation as an HTML page."""
    steps = note.anatomies
    body = [
        f"<header><h1>{escape(note.title)}</h1>",
        f"<p>{escape(note.source)} · {escape(note.backend)} · {escape(note.dtype)}</p></header><main>",
    ]
    if note.equations:
        body += ['<section aria-label="Equations">', *map(_formula, note.equations), "</section>"]
    if steps:
        body += _walk(note)
    if note.rows:
        body += ["<section><h2>Numbers</h2>", _rows(note), "</section>"]
    for name, matrix in note.matrices.items():
        body += [f"<section><h2>{escape(name)}</h2>", _table(np.asarray(matrix), ""), "</section>"]
    body += [f"<p>{escape(text)}</p>" for text in note.notes]
    data = [snapshot(anatomy, note.sample) for _, anatomy in steps]
    names = json.dumps([step for step, _ in steps])
    script = SCRIPT.replace("STEPS", names).replace("DATA", json.dumps(data).replace("</", "<\\/"))
    return (
        HEAD.replace("TITLE", escape(note.title))
        + "\n".join(body)
        + (
            f"</main><script>{script}</script></body></html>\n"
            if steps
            else "</main></body></html>\n"
        )
    )


def _walk(note: Explanation) -> Iterator[str]:
    step, anatomy = note.anatomies[-1]
    yield '<section aria-label="Network">'
    if len(note.anatomies) > 1:
        last = len(note.anatomies) - 1
        yield (
            '<p class="slider"><label for="step">Training step</label>'
            f'<input id="step" type="range" min="0" max="{last}" value="{last}" step="1" '
            f'aria-describedby="shown"><output id="shown" for="step">{step}</output></p>'
        )
    if anatomy.cost is not None:
        cost = f'<span data-q="cost" data-i="0">{number(anatomy.cost)}</span>'
        yield f"<p>Cost C = {cost}</p>"
    yield f'<div class="wide">{network_svg(anatomy, note.sample)}</div>'
    x = anatomy.input
    if x.ndim == 4 and is_float(x.dtype) and x.shape[2] * x.shape[3] > TINY:
        yield f"<h3>{mathml('a0')} <small>input</small></h3>{_maps('a0', x[note.sample])}"
    yield "</section>"
    for place, part in enumerate(anatomy.parts):
        yield from _part(part, place, anatomy, note.sample)


def _part(part: Part, place: int, anatomy: Anatomy, sample: int) -> Iterator[str]:
    shapes = " × ".join(map(str, part.output.shape)) or "a number"
    where = f" in {escape(part.path)}" if part.path else ""
    yield f'<section class="part"><h2>{escape(part.symbol)}: {escape(part.op)}{where}</h2>'
    yield f"<p>output {shapes}</p>{_formula(formula(part))}"
    yield from _lines(f"f{place}", worked(part, sample))
    if part.delta is not None:
        yield from map(_formula, backward_formulas(part))
        yield from _lines(f"b{place}", worked_back(part, anatomy, sample))
    for quantity in quantities(part, anatomy, sample):
        yield _quantity(quantity)
    if part.output.ndim == 4 and part.by_sample and part.output[0, 0].size > TINY:
        yield _maps(part.symbol, part.output[sample])
    yield "</section>"


def _lines(key: str, lines: list[str]) -> Iterator[str]:
    """Yield formulas with numbers, which the slider's script finds by their key."""
    if lines:
        yield '<div class="wide worked">'
        for i, line in enumerate(lines):
            yield f'<div data-w="{key}" data-i="{i}">{escape(line)}</div>'
        yield "</div>"


def _formula(line: str) -> str:
    return f'<div class="formula">{mathml(line)}</div>'


def _quantity(quantity: Quantity) -> str:
    head = f"<h3>{mathml(quantity.symbol)} <small>{escape(quantity.meaning)}</small></h3>"
    if quantity.small:
        return head + _table(quantity.value, quantity.symbol, numbered=quantity.steps)
    shape = " × ".join(map(str, quantity.value.shape))
    key = escape(f"|{quantity.symbol}|", quote=True)
    cells = "".join(
        f'<tr><th>{name}<td data-q="{key}" data-i="{i}">{number(value)}</tr>'
        for i, (name, value) in enumerate(zip(SUMMARY, quantity.summary(), strict=True))
    )
    return f"{head}<p>{shape}</p><table>{cells}</table>{_bars(quantity)}"


def _bars(quantity: Quantity) -> str:
    counts = quantity.histogram()
    top = max(*counts, 1)
    key = escape(quantity.symbol, quote=True)
    bars = "".join(
        f'<rect x="{10 * i}" y="{40 - 40 * n / top:.1f}" width="9" height="{40 * n / top:.1f}" '
        f'data-h="{key}" data-i="{i}"/>'
        for i, n in enumerate(counts)
    )
    return (
        f'<svg class="bars" viewBox="0 0 {10 * BINS} 40" role="img" '
        f'aria-label="histogram of {key}">{bars}</svg>'
    )


def _table(values: Array, symbol: str, *, numbered: bool = False) -> str:
    """Return a matrix as a table, its rows perhaps numbered; of more axes, one table for each of the
    leading indices.
    """
    array = np.atleast_1d(np.asarray(values))
    key, index, tables = escape(symbol, quote=True), 0, []
    for matrix in array.reshape(-1, *array.shape[-2:]) if array.ndim > 1 else array[None, None]:
        lines = []
        for count, row in enumerate(matrix, 1):
            cells = [f"<th>{count}"] if numbered else []
            for value in row:
                mark = f' data-q="{key}" data-i="{index}"' if symbol else ""
                cells.append(f"<td{mark}>{number(value)}")
                index += 1
            lines.append("<tr>" + "".join(cells) + "</tr>")
        tables.append(f"<table>{''.join(lines)}</table>")
    return f'<div class="wide tables">{"".join(tables)}</div>'


def _rows(note: Explanation) -> str:
    lines = ["<tr><th>quantity<th>formula<th>value<th>reference</tr>"]
    for row in note.rows:
        mark = "" if row.ok else ' class="wrong"'
        lines.append(
            f"<tr{mark}><td>{escape(row.symbol)}<td>{escape(row.formula)}"
            f"<td>{escape(row.text(note.dtype))}<td>{escape(row.judgement())}</tr>"
        )
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _maps(symbol: str, maps: Array) -> str:
    pictures = "".join(
        f'<img alt="map {k + 1} of {escape(symbol)}" src="data:image/png;base64,{_png(m)}" '
        f'width="{4 * m.shape[1]}" height="{4 * m.shape[0]}">'
        for k, m in enumerate(maps[:MAPS])
    )
    return f'<div class="maps" aria-label="Maps after the last step">{pictures}</div>'


def _png(image: Array) -> str:
    """Return an image (H, W) as a grey PNG in base64, from its darkest to its brightest value."""
    low, high = float(image.min()), float(image.max())
    grey = ((image - low) * (255.0 / (high - low) if high > low else 0.0)).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(grey))

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    size = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 8, 0, 0, 0, 0)
    file = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )
    return base64.b64encode(file).decode()


HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>TITLE</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root { color-scheme: light dark; --line: #8885; --plus: #1a7f5a; --minus: #c2491d; --bar: #5b8def }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 0 auto; padding: 0 1rem 4rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem } h3 { font-size: 1rem; margin: .8rem 0 .2rem }
small { font-weight: normal; opacity: .7 }
.formula { overflow-x: auto; padding: .3rem 0 }
.wide { overflow-x: auto } .tables { display: flex; gap: 1.5rem }
.part { border-top: 1px solid var(--line); margin-top: 1.5rem }
table { border-collapse: collapse } td, th { padding: .15rem .7rem; text-align: left }
td, .worked { font-family: ui-monospace, monospace; font-size: 14px; white-space: nowrap }
tr:nth-child(even) { background: #8881 } .wrong { background: #d33a }
svg { max-height: 32rem; min-width: 20rem; width: 100%; font: 12px ui-monospace, monospace }
svg text { text-anchor: middle; fill: currentColor } .name { font-weight: bold }
.unit, .box { fill: #8882; stroke: currentColor } .flow { stroke: var(--line) }
.positive { stroke: var(--plus) } .negative { stroke: var(--minus); stroke-dasharray: 6 3 }
.bars { width: 16rem; min-width: 10rem; height: 4rem; fill: var(--bar) }
.slider { position: sticky; top: 0; background: Canvas; padding: .5rem 0; z-index: 1 }
.slider input { width: min(30rem, 60vw); vertical-align: middle; margin: 0 .6rem }
.maps img { image-rendering: pixelated; margin: 2px }
</style></head><body>
"""

SCRIPT = """
const steps = STEPS, data = DATA, slider = document.getElementById('step');
const short = (v, n) => String(Number(v.toPrecision(n)));
function show(k) {
  const at = data[k];
  for (const e of document.querySelectorAll('[data-q]')) {
    const values = at.q[e.dataset.q];
    if (values) e.textContent = short(values[e.dataset.i], e.dataset.short ? 3 : 6);
  }
  for (const e of document.querySelectorAll('[data-w]')) {
    e.textContent = at.w[e.dataset.w][e.dataset.i] ?? '';
  }
  for (const e of document.querySelectorAll('[data-h]')) {
    const bars = at.h[e.dataset.h];
    if (!bars) continue;
    const tall = 40 * bars[e.dataset.i] / Math.max(1, ...bars);
    e.setAttribute('y', 40 - tall); e.setAttribute('height', tall);
  }
  for (const e of document.querySelectorAll('[data-e]')) {
    const w = (at.q[e.dataset.e] ?? [])[e.dataset.i];
    if (w === undefined) continue;
    e.setAttribute('stroke-width', Math.min(0.6 + Math.abs(w), 5));
    e.setAttribute('class', w < 0 ? 'negative' : 'positive');
    e.firstChild.textContent = e.dataset.e + ' ' + short(w, 6);
  }
  const shown = document.getElementById('shown');
  if (shown) shown.textContent = steps[k];
}
if (slider) {
  const asked = steps.indexOf(Number(new URLSearchParams(location.hash.slice(1)).get("step") ?? NaN));
  if (asked >= 0) slider.value = asked;  // page.html#step=3 opens there
  slider.addEventListener('input', () => show(Number(slider.value)));
  show(Number(slider.value));
}
"""
