"""`hand`: back-propagation by hand through a 2-2-2 network (source notes 001, section 3.4)."""

from __future__ import annotations

from typing import Any

import numpy as np

import trine
from trine import nn, optim
from trine.data import Splits
from trine.models.desk import Desk, half_squared_error, made_splits, set_parameters, values
from trine.models.explanation import Explanation
from trine.models.registry import register

SOURCE = "source notes 001, section 3.4"
INPUT = ((0.05, 0.10),)
TARGET = ((0.01, 0.99),)
ETA = 0.5

EQUATIONS = [
    "net_h = W_h i + b1      out_h = s(net_h)      s(z) = 1 / (1 + exp(-z))",
    "net_o = W_o out_h + b2  out_o = s(net_o)      E = sum 1/2 (t - out_o)^2",
    "delta_o = (out_o - t) (.) out_o (1 - out_o)                  (BP1)",
    "delta_h = (W_o^T delta_o) (.) out_h (1 - out_h)              (BP2)",
    "dE/dW_o = delta_o out_h^T    dE/dW_h = delta_h i^T           (BP3)",
    "W <- W - eta dE/dW, with the old W_o in delta_h; b1 and b2 stay",
]


class Hand(nn.Module):
    """Two inputs, two hidden units, two outputs, logistic; the biases are fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, 2)
        self.output = nn.Linear(2, 2)
        self.start()
        self.hidden.bias.requires_grad = False
        self.output.bias.requires_grad = False

    def start(self) -> None:
        """Give the parameters the example's values, exact to the dtype they have now."""
        set_parameters(
            self,
            hidden__weight=[[0.15, 0.20], [0.25, 0.30]],
            hidden__bias=[0.35, 0.35],
            output__weight=[[0.40, 0.45], [0.50, 0.55]],
            output__bias=[0.60, 0.60],
        )

    def trace(self, x: trine.Tensor) -> dict[str, trine.Tensor]:
        """Return the weighted input and the output of both layers."""
        net_h = self.hidden(x)
        out_h = net_h.sigmoid()
        net_o = self.output(out_h)
        return {"net_h": net_h, "out_h": out_h, "net_o": net_o, "out_o": net_o.sigmoid()}

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        return self.trace(x)["out_o"]


def _descend(model: Hand, desk: Desk, optimizer: optim.SGD, steps: int) -> None:
    x, t = desk.tensor(INPUT), desk.tensor(TARGET)

    @trine.capture  # ten thousand steps are the same launches over and over
    def update(x: trine.Tensor, t: trine.Tensor) -> None:
        optimizer.zero_grad()
        half_squared_error(model(x), t).backward()
        optimizer.step()

    for _ in range(steps):
        update(x, t)


def _error(model: Hand, desk: Desk) -> tuple[float, Any]:
    out = model(desk.tensor(INPUT))
    return half_squared_error(out, desk.tensor(TARGET)).item(), values(out)[0]


def explain(backend: str = "numpy", dtype: str = "float64", step: int = 1) -> Explanation:
    """Work the example: one step in every detail, then the cost after `step` steps.

    Raises ValueError for a negative number of steps.
    """
    if step < 0:
        raise ValueError(f"[hand] expected a number of steps of at least 0, got {step}. Raise it.")
    desk = Desk(backend, dtype)
    model = Hand()
    desk.place(model)
    model.start()
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=ETA)
    note = Explanation("hand", "Back-propagation by hand, 2-2-2", SOURCE, backend, dtype, EQUATIONS)
    _first_step(note, model, desk, optimizer)
    if step == 0:
        model.start()
    else:
        _descend(model, desk, optimizer, step - 1)
    error, out = _error(model, desk)
    label = f"after {step} step{'' if step == 1 else 's'}"
    known = {0: "0.298371109", 1: "0.29102777369359933", 10_000: "3.510187783e-05"}.get(step)
    if known is None:
        note.show("E", label, error)
    else:
        note.quote("E", label, error, known)
    for i, printed in enumerate(("0.015913620", "0.984064274")):
        symbol = f"out_o{i + 1}"
        if step == 10_000:
            note.quote(symbol, label, out[i], printed)
        else:
            note.show(symbol, label, out[i])
    note.matrices["W_h"] = values(model.hidden.weight)
    note.matrices["W_o"] = values(model.output.weight)
    if step == 1:
        note.notes.append(
            "E = 0.291027924 here would betray that delta_h was computed from the updated W_o."
        )
    return note


def _first_step(note: Explanation, model: Hand, desk: Desk, optimizer: optim.SGD) -> None:
    x, t = desk.tensor(INPUT), desk.tensor(TARGET)
    net = model.trace(x)
    for tensor in net.values():
        tensor.retain_grad()
    cost = half_squared_error(net["out_o"], t)
    cost.backward()

    net_h, out_h = values(net["net_h"])[0], values(net["out_h"])[0]
    net_o, out_o = values(net["net_o"])[0], values(net["out_o"])[0]
    parts = 0.5 * (np.asarray(TARGET)[0] - out_o) ** 2
    note.quote("net_h1", "w1 i1 + w2 i2 + b1", net_h[0], "0.3775")
    note.quote("out_h1", "s(net_h1)", out_h[0], "0.593269992")
    note.quote("out_h2", "s(net_h2)", out_h[1], "0.596884378")
    note.quote("net_o1", "w5 out_h1 + w6 out_h2 + b2", net_o[0], "1.105905967")
    note.quote("out_o1", "s(net_o1)", out_o[0], "0.751365070")
    note.quote("out_o2", "s(net_o2)", out_o[1], "0.772928465")
    note.quote("E_o1", "1/2 (t1 - out_o1)^2", parts[0], "0.274811083")
    note.quote("E_o2", "1/2 (t2 - out_o2)^2", parts[1], "0.023560026")
    note.quote("E", "E_o1 + E_o2", cost.item(), "0.298371109")

    d_out_o, delta_o = values(net["out_o"].grad)[0], values(net["net_o"].grad)[0]
    d_out_h, delta_h = values(net["out_h"].grad)[0], values(net["net_h"].grad)[0]
    w_o = values(model.output.weight)
    note.quote("dE/dout_o1", "out_o1 - t1", d_out_o[0], "0.74136507")
    note.quote("dout_o1/dnet_o1", "out_o1 (1 - out_o1)", delta_o[0] / d_out_o[0], "0.186815602")
    note.quote("delta_o1", "their product", delta_o[0], "0.138498562")
    grad_o, grad_h = values(model.output.weight.grad), values(model.hidden.weight.grad)
    note.quote("dE/dw5", "delta_o1 out_h1", grad_o[0, 0], "0.082167041")
    note.quote("dE_o1/dout_h1", "delta_o1 w5", delta_o[0] * w_o[0, 0], "0.055399425")
    note.quote("dE_o2/dout_h1", "delta_o2 w7", delta_o[1] * w_o[1, 0], "-0.019049119")
    note.quote("dE/dout_h1", "their sum", d_out_h[0], "0.036350306")
    note.quote("dout_h1/dnet_h1", "out_h1 (1 - out_h1)", delta_h[0] / d_out_h[0], "0.241300709")
    note.quote("dE/dw1", "delta_h1 i1", grad_h[0, 0], "0.000438568")

    optimizer.step()
    new_o, new_h = values(model.output.weight).ravel(), values(model.hidden.weight).ravel()
    for k, printed in enumerate(("0.358916480", "0.408666186", "0.511301270", "0.561370121")):
        note.quote(f"w{k + 5}", f"w{k + 5} - eta dE/dw{k + 5}", new_o[k], printed)
    for k, printed in enumerate(("0.149780716", "0.19956143", "0.24975114", "0.29950229")):
        note.quote(f"w{k + 1}", f"w{k + 1} - eta dE/dw{k + 1}", new_h[k], printed)


def one_example() -> Splits:
    """Return the example's one pair, both to train on and to test with."""
    x = np.asarray(INPUT * 2, dtype=np.float32)
    y = np.asarray(TARGET * 2, dtype=np.float32)
    about = "the one input and target of the worked example"
    return made_splits("hand", x, y, train=1, description=about)


register(
    name="hand",
    family="worked example",
    year=1986,
    source=SOURCE,
    summary="back-propagation by hand through a 2-2-2 network, number by number",
    build=Hand,
    data=one_example,
    loss=half_squared_error,
    metrics=(),
    optimizer="sgd",
    lr=ETA,
    batch_size=1,
    epochs=100,
    explain=explain,
    report=True,
)
