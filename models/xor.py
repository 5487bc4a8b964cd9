"""`xor`: one perceptron cannot compute exclusive or; a hidden layer of two units can."""

from __future__ import annotations

import numpy as np

import trine
from trine import nn, optim
from trine.data import Splits
from trine.models.desk import Desk, half_squared_error, made_splits, over_square, run_over, values
from trine.models.explanation import Explanation
from trine.models.registry import system

SOURCE = "source notes 001, section 2.2.1"
INPUTS = ((0, 0), (0, 1), (1, 0), (1, 1))
TABLES = {"AND": (0, 0, 0, 1), "OR": (0, 1, 1, 1), "XOR": (0, 1, 1, 0)}
SIDES = (-0.5, 1.5)
"""Of the square in which the boundary is drawn."""
START = 4.0
"""The slope of both hidden units at the start of training."""


class Xor(nn.Module):
    """Two inputs, two logistic hidden units, one logistic output.

    Training starts near two parallel lines, x1 + x2 = 1/2 and x1 + x2 = 3/2, whose weights get
    random additions of standard deviation 0.3; the output's weights start random. So every seed
    learns XOR, while from PyTorch's ordinary start about half of all seeds end in a local minimum.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, 2)
        self.output = nn.Linear(2, 1)
        for p in self.parameters():
            nn.init.normal_(p, std=0.3)
        lines = np.array([[START, START], [START, START]]), np.array([-0.5 * START, -1.5 * START])
        with trine.no_grad():
            for p, line in zip((self.hidden.weight, self.hidden.bias), lines, strict=True):
                p.add_(trine.tensor(line, dtype=p.dtype, backend=p.backend.name))

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        return self.output(self.hidden(x).sigmoid()).sigmoid()


def truth_table(name: str = "XOR") -> Splits:
    """Return a truth table of two inputs, the same four rows to train on and to test with."""
    x = np.asarray(INPUTS * 2, dtype=np.float32)
    y = np.asarray(TABLES[name] * 2, dtype=np.float32).reshape(8, 1)
    about = f"the truth table of {name}"
    return made_splits(name.lower(), x, y, train=4, description=about)


def perceptron(table: tuple[int, ...], desk: Desk, epochs: int = 25) -> tuple[int, np.ndarray]:
    """Train one threshold unit by w += (t - y) x; return how many rows it gets right, and w.

    The unit step is 0 at 0; the third weight is the bias. If a line parts the two classes, 25
    rounds of the four rows are enough to find one.
    """
    rows = [desk.tensor([[a, b, 1.0]]) for a, b in INPUTS]
    targets = [desk.tensor([[t]]) for t in table]
    w = desk.tensor([[0.0, 0.0, 0.0]])
    with trine.no_grad():
        for _ in range(epochs):
            for x, t in zip(rows, targets, strict=True):
                w = w + (t - _fires(x, w)) * x
        right = sum(_fires(x, w).item() == t for x, t in zip(rows, table, strict=True))
    return right, values(w)[0]


def _fires(x: trine.Tensor, w: trine.Tensor) -> trine.Tensor:
    return trine.where((x * w).sum() > 0.0, 1.0, 0.0)


def train(desk: Desk, steps: int = 400) -> tuple[Xor, float]:
    """Train the 2-2-1 network by batch descent (Adam, rate 0.1) and return it with its cost."""
    model = Xor()
    desk.place(model)
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    x, t = desk.tensor(INPUTS), desk.tensor(TABLES["XOR"]).reshape(4, 1)
    for _ in range(steps):
        optimizer.zero_grad()
        cost = half_squared_error(model(x), t)
        cost.backward()
        optimizer.step()
    return model, half_squared_error(model(x), t).item()


def explain(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Show the network with fixed weights, what one perceptron learns, and a trained network."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "xor",
        "Exclusive or needs a hidden layer",
        SOURCE,
        backend,
        dtype,
        [
            "p = s(20 a + 20 b - 10)      OR",
            "q = s(-20 a - 20 b + 30)     NAND",
            "y = s(20 p + 20 q - 30)      AND of the two",
        ],
    )
    a, b = (desk.tensor([row[i] for row in INPUTS]) for i in range(2))
    p = (20.0 * a + 20.0 * b - 10.0).sigmoid()
    q = (-20.0 * a - 20.0 * b + 30.0).sigmoid()
    y = values((20.0 * p + 20.0 * q - 30.0).sigmoid())
    printed = ("4.5439e-05", "0.99995452", "0.99995452", "4.5439e-05")
    for row, value, quoted in zip(INPUTS, y, printed, strict=True):
        note.quote(f"y{row}", "s(20 p + 20 q - 30)", value, quoted)
    for name, table in TABLES.items():
        right, w = perceptron(table, desk)
        if name == "XOR":
            note.truth(name, "one perceptron fails: fewer than 4 of 4 rows right", right < 4)
        else:
            note.equal(name, "one perceptron: rows right of 4", right, 4)
        note.matrices[f"perceptron weights for {name} (w1, w2, bias)"] = w
    model, cost = train(desk)
    out = values(model(desk.tensor(INPUTS)))[:, 0]
    right = int(((out > 0.5) == (np.asarray(TABLES["XOR"]) == 1)).sum())
    note.show("C", "cost of the trained 2-2-1 network", cost)
    note.equal("XOR", "trained 2-2-1 network: rows right of 4", right, 4)
    note.matrices["trained outputs"] = out
    note.matrices["trained hidden weights"] = values(model.hidden.weight)
    return note


def shows(model: Xor, splits: Splits) -> Explanation:
    """Count the rows that a trained network gets right, and draw where its output is above 1/2."""
    desk = Desk.of(model)
    note = Explanation("xor", "Exclusive or, learned", SOURCE, desk.backend, desk.dtype)
    out = run_over(model, desk, splits.test.x)[:, 0]
    truth = splits.test.y[:, 0]
    note.equal("XOR", "rows right of 4", int(((out > 0.5) == (truth > 0.5)).sum()), 4)
    targets = {f"target {t}": splits.test.x[truth == t] for t in (0, 1)}
    title = "Output of the trained 2-2-1 network"
    note.drawings["boundary"] = over_square(model, desk, title, SIDES, 61, targets)
    return note


@system(
    "xor",
    family="worked example",
    year=1969,
    source=SOURCE,
    summary="exclusive or: a perceptron fails, a 2-2-1 network learns it",
    data=truth_table,
    loss=half_squared_error,
    optimizer="adam",
    lr=0.1,
    batch_size=4,
    epochs=400,
    expected={"test_accuracy": 1.0},
    explain=explain,
    shows=shows,
)
def build() -> Xor:
    """Return the 2-2-1 network at the start of training."""
    return Xor()
