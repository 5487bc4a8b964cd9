"""`signal-flow`: the picture of signals running forward and errors running back (2-3-2-1)."""

from __future__ import annotations

import numpy as np

import trine
from trine import nn
from trine.models.desk import Desk, draw_normal, half_squared_error, set_parameters, values
from trine.models.explanation import Explanation
from trine.models.lesson import Pupil
from trine.models.registry import register

SOURCE = "source notes 001"
ETA = 0.5
X = (0.3, -0.7)
TARGET = 0.9
SHAPES = {"1": (3, 2), "2": (2, 3), "3": (1, 2)}
"""Of the weights of the three layers."""


def explain(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Compute the picture's errors d, its new weights, and those of ordinary descent."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "signal-flow",
        "Signal flow: x1, x2 -> f1, f2, f3 -> f4, f5 -> f6",
        SOURCE,
        backend,
        dtype,
        [
            "e_k = sum_j w_jk y_j              y_k = f_k(e_k), logistic",
            "d_6 = t - y                       the error of the output",
            "d_j = sum_k w_jk f_k'(e_k) d_k    errors run back along the weights",
            "w'_jk = w_jk + eta d_k f_k'(e_k) y_j    (df_k(e)/de is f_k'(e_k))",
            "delta_k = dC/dz_k = -d_k f_k'(e_k),  C = 1/2 (t - y)^2",
        ],
    )
    weights = {k: desk.tensor(draw_normal(f"signal-flow {k}", s), grad=True)
               for k, s in SHAPES.items()}  # fmt: skip
    signal = desk.tensor(X).reshape(2, 1)
    outputs, sums = [signal], []
    for w in weights.values():
        e = w @ outputs[-1]
        e.retain_grad()
        sums.append(e)
        outputs.append(e.sigmoid())
    cost = ((TARGET - outputs[-1]) ** 2).sum() * 0.5
    cost.backward()

    y = [values(out)[:, 0] for out in outputs]
    w = [values(t) for t in weights.values()]
    slope = [out * (1.0 - out) for out in y[1:]]
    d = [np.zeros(0), np.zeros(0), TARGET - y[3]]
    for layer in (1, 0):
        d[layer] = w[layer + 1].T @ (slope[layer + 1] * d[layer + 1])
    first = 1
    for layer, errors in enumerate(d):
        delta = values(sums[layer].grad)[:, 0]
        for unit, error in enumerate(errors):
            k = first + unit
            note.show(f"d_{k}", "error excluding f'", error)
            note.equal(
                f"delta_{k}", "-d f'(e), and dC/dz by autograd", -error * slope[layer][unit],
                delta[unit],
            )  # fmt: skip
        first += len(errors)
        gradient = values(list(weights.values())[layer].grad)
        by_picture = w[layer] + ETA * np.outer(errors * slope[layer], y[layer])
        note.agree(
            f"w'({layer + 1}) - (w - eta dC/dw)", "both rules give the same new weights",
            by_picture, w[layer] - ETA * gradient,
        )  # fmt: skip
        note.matrices[f"w'({layer + 1})"] = by_picture
    k = 3
    new = w[0][2, 0] + ETA * d[0][2] * slope[0][2] * X[0]
    old = w[0][2, 0] - ETA * values(weights["1"].grad)[2, 0]
    note.equal("w'_(x1)3", f"w + eta d_{k} df_{k}(e)/de x1", new, old)
    note.notes.append(
        "The picture's delta is d: it leaves out f' and measures t - y, so its update has a plus"
        " sign. Section 1's delta = dC/dz holds both, so its update has a minus sign."
        " The new weights are equal."
    )
    return note


class SignalFlow(nn.Module):
    """Three layers of logistic units without biases, 2-3-2-1, with the example's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3, bias=False)
        self.second = nn.Linear(3, 2, bias=False)
        self.third = nn.Linear(2, 1, bias=False)
        for layer, (k, shape) in zip(self.layers(), SHAPES.items(), strict=True):
            set_parameters(layer, weight=draw_normal(f"signal-flow {k}", shape))

    def layers(self) -> tuple[nn.Linear, ...]:
        """Return the three layers in order."""
        return self.first, self.second, self.third

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        for layer in self.layers():
            x = layer(x).sigmoid()
        return x


def pupil() -> Pupil:
    """Return the network with its one example."""
    return Pupil(SignalFlow(), [X], [[TARGET]], half_squared_error, rate=ETA)


register(
    name="signal-flow",
    family="worked example",
    year=1986,
    source=SOURCE,
    summary="signals forward, errors back through 2-3-2-1: two sign conventions, one update",
    explain=explain,
    pupil=pupil,
)
