"""`role-of-w-and-b`: the weight sets how steep the S curve is, the bias where it stands."""

from __future__ import annotations

import numpy as np

from trine.models.desk import Desk, values
from trine.models.explanation import Explanation
from trine.models.figures import Curve, Figure
from trine.models.registry import register

SOURCE = "source notes 002"


def explain(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Draw s(w x + b) for several w and b and check its slope and its middle."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "role-of-w-and-b",
        "What weight and bias do to the S curve",
        SOURCE,
        backend,
        dtype,
        [
            "y = s(w x + b)",
            "y = 1/2 at x = -b / w      dy/dx there is w / 4",
        ],
    )
    xs = np.linspace(-6.0, 6.0, 121)
    curves = []
    for w, b in ((0.5, 0.0), (1.0, 0.0), (4.0, 0.0), (1.0, -2.0), (1.0, 2.0), (2.0, 3.0)):
        y = values((w * desk.tensor(xs) + b).sigmoid())
        curves.append(Curve(f"w = {w:g}, b = {b:g}", xs.tolist(), y.tolist()))
        middle = desk.tensor(-b / w, grad=True)
        out = (w * middle + b).sigmoid()
        out.backward()
        note.equal("y", f"at x = -b / w; w = {w:g}, b = {b:g}", out.item(), 0.5)
        note.equal("dy/dx", f"there = w / 4; w = {w:g}, b = {b:g}", values(middle.grad), w / 4.0)
    note.figure = Figure("y = s(w x + b)", "x", "y", curves)
    return note


register(
    name="role-of-w-and-b",
    family="mathematics",
    year=1986,
    source=SOURCE,
    summary="the weight sets the steepness of the S curve, the bias shifts it",
    explain=explain,
)
