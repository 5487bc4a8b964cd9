"""The roofline as inline SVG: operations a second over operations a byte, both logarithmic.

A point below the slanted lines is bound by that level of memory, below the flat one by arithmetic;
the gap is what a better kernel could gain.
"""

from __future__ import annotations

import math
from html import escape

from trine.bench.report import duration
from trine.bench.results import BenchResult, Report

WIDTH, HEIGHT = 900, 460
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 16, 44
COLOURS = ("#3b7dd8", "#d8663b", "#3ba55d", "#a04fd0", "#c9a227", "#2aa5a5", "#d04f8b", "#777777")


class _Axes:
    """Logarithmic axes over what is to be shown."""

    def __init__(self, xs: list[float], ys: list[float]) -> None:
        self.x0, self.x1 = math.floor(math.log10(min(xs))), math.ceil(math.log10(max(xs)))
        self.y0, self.y1 = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
        self.x1, self.y1 = max(self.x1, self.x0 + 1), max(self.y1, self.y0 + 1)

    def x(self, value: float) -> float:
        """Return where an intensity lies."""
        share = (math.log10(value) - self.x0) / (self.x1 - self.x0)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return where a rate in GFLOP/s lies."""
        share = (math.log10(value) - self.y0) / (self.y1 - self.y0)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def roofline(report: Report, dtype: str) -> str:
    """Return the plot of a report's rows of a dtype, "" if there is nothing to show."""
    roofs = report.roofs
    rows = [
        r for r in report
        if r.dtype == dtype and r.rounds and r.flops and r.bytes and r.backend != "cupy"
    ]  # fmt: skip
    if roofs is None or not rows or dtype not in roofs.peak:
        return ""
    peak = roofs.peak[dtype] / 1e9
    xs = [r.flops / r.bytes for r in rows] + [peak / (v.bandwidth / 1e9) for v in roofs.levels]
    xs.append(min(xs) / 4)  # where the slanted lines can be read
    ys = [r.gflops for r in rows] + [peak * 1.2]
    axes = _Axes(xs, ys)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img" '
        f'aria-label="roofline, {escape(dtype)}">',
        *_grid(axes, dtype),
    ]
    low, high = 10.0**axes.x0, 10.0**axes.x1
    floor = 10.0**axes.y0
    parts.append(_line(axes, low, peak, high, peak, f"peak {peak:.0f} GFLOP/s"))
    for level in roofs.levels:
        rate = level.bandwidth / 1e9
        start = max(low, floor / rate)
        end = min(high, peak / rate)
        if start < end:
            name = f"{level.name} {rate:.0f} GB/s"
            parts.append(_line(axes, start, start * rate, end, end * rate, name, slanted=True))
    parts += _points(axes, rows)
    return "".join(parts) + "</svg>"


def _grid(axes: _Axes, dtype: str) -> list[str]:
    bottom, parts = HEIGHT - BOTTOM, []
    for power in range(axes.x0, axes.x1 + 1):
        x = axes.x(10.0**power)
        parts.append(
            f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="currentColor" opacity="0.12"/>'
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{10.0**power:g}</text>'
        )
    for power in range(axes.y0, axes.y1 + 1):
        y = axes.y(10.0**power)
        parts.append(
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="currentColor" opacity="0.12"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">operations a byte '
        f"({escape(dtype)})</text>"
        f'<text x="14" y="{TOP + 180}" transform="rotate(-90 14 {TOP + 180})">GFLOP/s</text>'
    )
    return parts


def _line(
    axes: _Axes, x0: float, y0: float, x1: float, y1: float, name: str, slanted: bool = False
) -> str:
    a, b, c, d = axes.x(x0), axes.y(y0), axes.x(x1), axes.y(y1)
    if slanted:
        angle = math.degrees(math.atan2(d - b, c - a))
        label = (
            f'<text x="{a + 6:.1f}" y="{b - 6:.1f}" opacity="0.7" '
            f'transform="rotate({angle:.1f} {a:.1f} {b:.1f})">{escape(name)}</text>'
        )
    else:
        label = f'<text x="{c:.1f}" y="{d - 6:.1f}" text-anchor="end">{escape(name)}</text>'
    path = f"M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}"
    return f'<path class="roof" d="{path}" stroke="currentColor" fill="none" opacity="0.6"/>{label}'


def _points(axes: _Axes, rows: list[BenchResult]) -> list[str]:
    names = list(dict.fromkeys(r.name for r in rows))
    parts = []
    for row in rows:
        colour = COLOURS[names.index(row.name) % len(COLOURS)]
        x, y = axes.x(row.flops / row.bytes), axes.y(row.gflops)
        title = (
            f"{row.op}, {row.shape}: {row.name}, {duration(row.median)}, {row.gflops:.3g} GFLOP/s"
        )
        parts.append(
            f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}" '
            f'fill-opacity="0.75"><title>{escape(title)}</title></circle>'
        )
    for i, name in enumerate(names):
        y = TOP + 60 + 18 * i
        x = WIDTH - RIGHT + 14
        parts.append(
            f'<circle cx="{x}" cy="{y}" r="5" fill="{COLOURS[i % len(COLOURS)]}"/>'
            f'<text x="{x + 10}" y="{y + 4}">{escape(name)}</text>'
        )
    return parts
