"""Figures are drawn as files, and rows with a bound are judged by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trine.models import Explanation
from trine.models.figures import Curve, Drawing, Figure, Images, Plane, Points

rng = np.random.default_rng(0)
DRAWINGS = {
    "curves": Figure("t", "x", "y", [Curve("a", [0, 1], [1, 2])]),
    "points": Points("t", "x", "y", {"a": rng.random((3, 2))}, {"a": ["u", "v", "w"]}),
    "plane": Plane("t", rng.random((5, 6)), (0, 1, 0, 1), {"a": rng.random((3, 2))}),
    "images": Images(
        "t", {"in": rng.random((3, 8, 8)), "colour": rng.random((2, 8, 8, 3))},
        {"in": [[(1, 1, 5, 5)], []]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawings_are_saved(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawing: Drawing = DRAWINGS[name]
    drawing.save(str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "a.png").stat().st_size > 3000


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [(1.0, True, True), (2.0, True, False), (0.0, False, True), (float("nan"), False, False)],
)
def test_bounds(value: float, least: bool, most: bool) -> None:
    note = Explanation("n", "t", "s", "numpy", "float32")
    note.at_least("a", "value", value, 1.0)
    note.at_most("b", "value", value, 1.0)
    assert [row.ok for row in note.rows] == [least, most]
    assert ("NOT >= 1" in note.text()) == (not least)
    assert [line.split(":")[0] for line in note.failures()] == ["a"] * (not least) + ["b"] * (
        not most
    )
