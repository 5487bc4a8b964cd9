"""The gates of an LSTM and their errors, time step by time step, by the equations of the notes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trine.models.anatomy import Part
from trine.models.lstm import Step, step_backward, step_forward, to_source

Array = npt.NDArray[Any]

UNITS = 4
"""Hidden units that are shown."""


def lstm_steps(part: Part, sample: int) -> dict[str, Array]:
    """Return gates, states and errors (T, up to UNITS) of one sample; empty for other layouts.

    g, i, f, o, c, h as they were; dh and dc the whole errors of h_t and c_t, with what comes from
    t + 1; dz_g, dz_i, dz_f, dz_o the errors in front of the gates. Equations 4-1 to 4-12.
    """
    values = {operand.symbol.rstrip("0123456789"): operand.value for operand in part.inputs}
    whole = {"W_ih", "W_hh", "b_ih", "b_hh"} <= values.keys()
    if not whole or part.attrs.get("reverse") or part.delta is None:
        return {}
    x = part.inputs[0].value[:, sample]
    w, b = to_source(
        {
            "weight_ih_l0": values["W_ih"],
            "weight_hh_l0": values["W_hh"],
            "bias_ih_l0": values["b_ih"],
            "bias_hh_l0": values["b_hh"],
        }
    )
    hidden = len(b) // 4
    h, c = (values[k][sample] if k in values else np.zeros(hidden) for k in ("h", "c"))
    steps: list[Step] = []
    for row in x:
        steps.append(step_forward(row, h, c, w, b))
        h, c = steps[-1].h, steps[-1].c
    dh_next, dc = (_last(part, k, sample, hidden) for k in range(2))
    found: dict[str, list[Array]] = {k: [] for k in ("dh", "dc", "dz_g", "dz_i", "dz_f", "dz_o")}
    for t in reversed(range(len(steps))):
        step = steps[t]
        dh = part.delta[t, sample] + dh_next
        whole_dc = dc + dh * step.o * (1.0 - np.tanh(step.c) ** 2)
        dz, stacked, dc = step_backward(step, dh, dc, w)
        dh_next = stacked[x.shape[1] :]
        for name, value in zip(found, (dh, whole_dc, *np.split(dz, 4)), strict=True):
            found[name].insert(0, value)
    forward = {k: [getattr(step, k) for step in steps] for k in ("g", "i", "f", "o", "c", "h")}
    return {name: np.array(rows)[:, :UNITS] for name, rows in (forward | found).items()}


def _last(part: Part, place: int, sample: int, hidden: int) -> Array:
    """Return the error that reaches the last h or c by itself."""
    deltas = part.last_deltas
    known = deltas[place] if place < len(deltas) else None
    return np.zeros(hidden) if known is None else np.asarray(known[sample])
