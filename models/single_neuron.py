"""`single-neuron`: the gradient of one logistic neuron by the chain rule."""

from __future__ import annotations

import trine
from trine import nn
from trine.models.desk import Desk, set_parameters, values
from trine.models.explanation import Explanation
from trine.models.lesson import Pupil
from trine.models.registry import register

SOURCE = "source notes 002"
W1, W2, B = 0.8, -0.4, 0.3
X1, X2, TARGET = 1.5, -2.0, 0.25


def explain(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Compare the formula of the gradient with autograd and with a difference quotient."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "single-neuron",
        "One neuron: y = s(w1 x1 + w2 x2 + b)",
        SOURCE,
        backend,
        dtype,
        [
            "z = w1 x1 + w2 x2 + b    y = s(z)    C = (y - t)^2",
            "dC/dw1 = dC/dy dy/dz dz/dw1 = 2 (y - t) (1 - y) y x1",
        ],
    )
    w1, w2, b = (desk.tensor(value, grad=True) for value in (W1, W2, B))
    y = (w1 * X1 + w2 * X2 + b).sigmoid()
    cost = (y - TARGET) ** 2
    cost.backward()
    out = y.item()
    common = 2.0 * (out - TARGET) * (1.0 - out) * out
    note.show("z", "w1 x1 + w2 x2 + b", W1 * X1 + W2 * X2 + B)
    note.show("y", "s(z)", out)
    note.show("C", "(y - t)^2", cost.item())
    note.equal("dC/dw1", "autograd = 2 (y - t)(1 - y) y x1", values(w1.grad), common * X1)
    note.equal("dC/dw2", "autograd = 2 (y - t)(1 - y) y x2", values(w2.grad), common * X2)
    note.equal("dC/db", "autograd = 2 (y - t)(1 - y) y", values(b.grad), common)
    step = 1e-6 if dtype == "float64" else 1e-2
    ahead, behind = (
        ((desk.tensor(W1 + h) * X1 + W2 * X2 + B).sigmoid() - TARGET).item() ** 2
        for h in (step, -step)
    )
    # A central difference errs by about step^2 and by rounding / step, whichever is larger.
    margin = 1e-8 if dtype == "float64" else 1e-4
    quotient = (ahead - behind) / (2.0 * step)
    note.equal("dC/dw1", "difference quotient", quotient, common * X1, margin)
    return note


class Neuron(nn.Module):
    """y = s(w1 x1 + w2 x2 + b)."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = nn.Linear(2, 1)
        set_parameters(self, neuron__weight=[[W1, W2]], neuron__bias=[B])

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        return self.neuron(x).sigmoid()


def squared(output: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
    """Return C = (y - t)^2, without the half that others have."""
    return ((output - target) ** 2).sum()


def pupil() -> Pupil:
    """Return the neuron with its one example."""
    return Pupil(Neuron(), [[X1, X2]], [[TARGET]], squared, rate=0.5)


register(
    name="single-neuron",
    family="worked example",
    year=1986,
    source=SOURCE,
    summary="the chain rule through one logistic neuron",
    explain=explain,
    pupil=pupil,
)
