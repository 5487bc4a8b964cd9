"""A recurrent layer time step by time step: its gates, its states and their errors.

A fused op hands out its states only. Here one sample's steps are run again, forward and backward, by
the equations of the layer's cell: `LSTM` by those of the source notes, `RNN` and `GRU` by those of
`trine.functional`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trine.models.anatomy import Part
from trine.models.lstm import Step, logistic, step_backward, step_forward, to_source

Array = npt.NDArray[Any]
Values = dict[str, Array]

UNITS = 4
"""Hidden units that are shown, and NUMBERS of each quantity; of a longer sequence fewer units."""
NUMBERS = 256


class Cell(Protocol):
    """One step of a recurrent layer; its states, and their errors, go by the names in `states`."""

    states: tuple[str, ...]

    def forward(self, x: Array, before: Values) -> Values:
        """Return gates and new states from an input (I,) and the states before."""

    def backward(self, step: Values, before: Values, errors: Values) -> tuple[Values, Values]:
        """Return the step's errors by name, and the errors of the states before.

        `errors` are the whole ones of the states: from above and, by each, from step t + 1.
        """


@dataclass(frozen=True)
class Weights:
    """The four parameters of a layer; biases are zeros where it has none."""

    w_ih: Array
    w_hh: Array
    b_ih: Array
    b_hh: Array


class RNN:
    """h = act(z), z = W_ih x + b_ih + W_hh h_(t-1) + b_hh; dz = dh act'(z), dh_(t-1) = W_hh^T dz."""

    states = ("h",)

    def __init__(self, weights: Weights, attrs: Mapping[str, Any]) -> None:
        self.weights = weights
        self.relu = attrs.get("nonlinearity") == "relu"

    def forward(self, x: Array, before: Values) -> Values:
        w = self.weights
        z = w.w_ih @ x + w.b_ih + w.w_hh @ before["h"] + w.b_hh
        return {"z": z, "h": np.maximum(z, 0.0) if self.relu else np.tanh(z)}

    def backward(self, step: Values, before: Values, errors: Values) -> tuple[Values, Values]:
        h = step["h"]
        dz = errors["h"] * ((h > 0) if self.relu else 1.0 - h * h)
        return {"dz": dz}, {"h": self.weights.w_hh.T @ dz}


class GRU:
    """r, z = s(z_r), s(z_z); m = W_hn h_(t-1) + b_hn; n = tanh(z_n); h = (1 - z) n + z h_(t-1).

    Backward: dz_n = dh (1 - z) (1 - n^2), dz_z = dh (h_(t-1) - n) z (1 - z),
    dz_r = dz_n m r (1 - r), dh_(t-1) = z dh + W_hh^T (dz_r, dz_z, r dz_n).
    """

    states = ("h",)

    def __init__(self, weights: Weights, attrs: Mapping[str, Any]) -> None:
        self.weights = weights

    def forward(self, x: Array, before: Values) -> Values:
        w, h = self.weights, before["h"]
        x_r, x_z, x_n = np.split(w.w_ih @ x + w.b_ih, 3)
        h_r, h_z, m = np.split(w.w_hh @ h + w.b_hh, 3)
        r, z = logistic(x_r + h_r), logistic(x_z + h_z)
        n = np.tanh(x_n + r * m)
        return {"r": r, "z": z, "m": m, "n": n, "h": (1.0 - z) * n + z * h}

    def backward(self, step: Values, before: Values, errors: Values) -> tuple[Values, Values]:
        r, z, m, n = (step[name] for name in "rzmn")
        dh = errors["h"]
        dz_n = dh * (1.0 - z) * (1.0 - n * n)
        dz_z = dh * (before["h"] - n) * z * (1.0 - z)
        dz_r = dz_n * m * r * (1.0 - r)
        earlier = z * dh + self.weights.w_hh.T @ np.concatenate([dz_r, dz_z, r * dz_n])
        return {"dz_r": dz_r, "dz_z": dz_z, "dz_n": dz_n}, {"h": earlier}


class LSTM:
    """Equations 4-1 to 4-12 of the source notes, whose order of gates is g, i, f, o."""

    states = ("h", "c")

    def __init__(self, weights: Weights, attrs: Mapping[str, Any]) -> None:
        self.w, self.b = to_source(
            {
                "weight_ih_l0": weights.w_ih,
                "weight_hh_l0": weights.w_hh,
                "bias_ih_l0": weights.b_ih,
                "bias_hh_l0": weights.b_hh,
            }
        )
        self.inputs = weights.w_ih.shape[1]

    def forward(self, x: Array, before: Values) -> Values:
        step = step_forward(x, before["h"], before["c"], self.w, self.b)
        names = ("stacked", "g", "i", "f", "o", "c", "h")
        return {name: getattr(step, name) for name in names}

    def backward(self, step: Values, before: Values, errors: Values) -> tuple[Values, Values]:
        whole = Step(c_before=before["c"], **step)
        dz, stacked, dc_before = step_backward(whole, errors["h"], errors["c"], self.w)
        dc = errors["c"] + errors["h"] * step["o"] * (1.0 - np.tanh(step["c"]) ** 2)
        gates = dict(zip(("dz_g", "dz_i", "dz_f", "dz_o"), np.split(dz, 4), strict=True))
        return {"dc": dc, **gates}, {"h": stacked[self.inputs :], "c": dc_before}


CELLS: dict[str, type[RNN] | type[GRU] | type[LSTM]] = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


def recurrent_steps(part: Part, sample: int) -> Values:
    """Return gates, states and errors, each (T, units shown), of one sample of a recurrent op.

    rnn: z, h, dh, dz. gru: r, z, m = W_hn h_(t-1) + b_hn, n, h, dh, dz_r, dz_z, dz_n. lstm: g, i, f,
    o, c, h, dh, dc, dz_g, dz_i, dz_f, dz_o. dh and dc are whole errors, with what comes from the
    step after; dz those in front of a gate. Steps beyond the sequence's length are zeros. Without a
    backward pass the errors are left out.
    """
    given = {operand.role: operand.value for operand in part.inputs}
    units = given["W_hh"].shape[1]
    none = np.zeros(len(given["W_hh"]))
    weights = Weights(
        given["W_ih"], given["W_hh"], given.get("b_ih", none), given.get("b_hh", none)
    )
    cell: Cell = CELLS[part.op](weights, part.attrs)
    x = part.inputs[0].value[:, sample]
    order = list(range(int(given["lengths"][sample]) if "lengths" in given else len(x)))
    if part.attrs.get("reverse"):
        order.reverse()
    found: Values = {}

    def keep(t: int, values: Values) -> None:
        for name, value in values.items():
            found.setdefault(name, np.zeros((len(x), units)))[t] = value

    states = [{name: given[name][sample] for name in cell.states}]
    steps: list[Values] = []
    for t in order:
        steps.append(cell.forward(x[t], states[-1]))
        states.append({name: steps[-1][name] for name in cell.states})
        keep(t, {name: value for name, value in steps[-1].items() if name != "stacked"})
    if part.delta is not None:
        errors = {name: _last(part, place, sample, units) for place, name in enumerate(cell.states)}
        for t, step, before in reversed(list(zip(order, steps, states, strict=False))):
            errors["h"] = errors["h"] + part.delta[t, sample]
            keep(t, {"dh": errors["h"]})
            own, errors = cell.backward(step, before, errors)
            keep(t, own)
    shown = max(1, min(UNITS, NUMBERS // len(x)))
    return {name: rows[:, :shown] for name, rows in found.items()}


def _last(part: Part, place: int, sample: int, units: int) -> Array:
    """Return the error that reaches the last h or c by itself."""
    deltas = part.last_deltas
    known = deltas[place] if place < len(deltas) else None
    return np.zeros(units) if known is None else np.asarray(known[sample])
