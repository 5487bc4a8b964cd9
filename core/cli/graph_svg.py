"""The tape of a model's loss as a drawing: an op a box, in the order of depth from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 150, 40, 24, 40, 20


def graph_svg(title: str, nodes: Sequence[dict[str, Any]]) -> str:
    """Return recorded ops as an SVG file: each with its name, output shape and parameters.

    `nodes` come first to last, each with id, op, shape and inputs: ids of nodes, or names of leaves.
    """
    depth: dict[int, int] = {}
    rows: list[list[int]] = []
    for node in nodes:
        before = [depth[i] for i in node["inputs"] if isinstance(i, int)]
        depth[node["id"]] = level = max(before, default=-1) + 1
        if level == len(rows):
            rows.append([])
        rows[level].append(node["id"])
    across = max((len(row) for row in rows), default=1)
    width = across * (WIDTH + GAP_X) + 2 * MARGIN
    height = len(rows) * (HEIGHT + GAP_Y) + 2 * MARGIN
    corner = {
        number: (
            (width - len(row) * (WIDTH + GAP_X) + GAP_X) / 2 + place * (WIDTH + GAP_X),
            MARGIN + level * (HEIGHT + GAP_Y),
        )
        for level, row in enumerate(rows)
        for place, number in enumerate(row)
    }
    body = [*_lines(nodes, corner), *_boxes(nodes, corner)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(title, quote=True)}" '
        'font-family="monospace" font-size="11" text-anchor="middle">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>\n"
    )


def _lines(
    nodes: Sequence[dict[str, Any]], corner: dict[int, tuple[float, float]]
) -> Iterator[str]:
    for node in nodes:
        x, y = corner[node["id"]]
        for source in node["inputs"]:
            if isinstance(source, int):
                x0, y0 = corner[source]
                yield (
                    f'<line x1="{x0 + WIDTH / 2:g}" y1="{y0 + HEIGHT:g}" x2="{x + WIDTH / 2:g}" '
                    f'y2="{y:g}" stroke="#888"/>'
                )


def _boxes(
    nodes: Sequence[dict[str, Any]], corner: dict[int, tuple[float, float]]
) -> Iterator[str]:
    for node in nodes:
        x, y = corner[node["id"]]
        leaves = ", ".join(str(i) for i in node["inputs"] if not isinstance(i, int))
        fill = "#dbe7ff" if leaves else "#eee"
        yield (
            f"<g><title>{escape(leaves or 'no parameters')}</title>"
            f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{fill}" '
            f'stroke="#555"/><text x="{x + WIDTH / 2:g}" y="{y + 17:g}" font-weight="bold">'
            f'{escape(node["op"])}</text><text x="{x + WIDTH / 2:g}" y="{y + 32:g}">'
            f"{escape(node['shape'])}</text></g>"
        )
