"""`mcculloch-pitts`, `perceptron` and `adaline`: units that add up and compare with a threshold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn, optim
from trine.data import Splits
from trine.models.desk import (
    Desk,
    draw_normal,
    half_squared_error,
    made_splits,
    over_square,
    values,
)
from trine.models.explanation import Explanation
from trine.models.registry import register, system

SOURCE = "source notes 001"
ROWS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
"""The four truth values of (x1, x2)."""
TABLES = {"AND": (0, 0, 0, 1), "OR": (0, 1, 1, 1), "XOR": (0, 1, 1, 0)}
GATES = {"AND": ((1, 1), 2), "OR": ((1, 1), 1)}
"""Weights and threshold of units by hand."""


def fires(x: trine.Tensor, weight: trine.Tensor, threshold: float) -> trine.Tensor:
    """Return McCulloch and Pitts' unit for inputs (N, I): 1 where x . w >= threshold, else 0."""
    return F.unit_step(x @ weight - threshold, at_zero=1.0)


def explain_mcculloch_pitts(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Show AND, OR and NOT as one unit each, and XOR as three."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "mcculloch-pitts",
        "Logic by units that add up and compare with a threshold",
        "source notes 001, 002 and 004; McCulloch and Pitts, 1943",
        backend,
        dtype,
        [
            "y = 1 if sum_i w_i x_i >= theta, else 0",
            "AND: w = (1, 1), theta = 2      OR: w = (1, 1), theta = 1      NOT: w = -1, theta = 0",
            "x1 XOR x2 = (x1 OR x2) AND NOT (x1 AND x2): two layers",
        ],
    )
    x = desk.tensor(ROWS)
    columns = [ROWS]
    outputs = {}
    for gate, (weight, threshold) in GATES.items():
        outputs[gate] = fires(x, desk.tensor(weight), threshold)
        note.agree(gate, "unit - truth table", values(outputs[gate]), TABLES[gate])
        columns.append(values(outputs[gate])[:, None])
    negated = fires(desk.tensor([[0], [1]]), desk.tensor([-1]), 0)
    note.agree("NOT", "unit - truth table", values(negated), [1, 0])
    hidden = trine.stack([outputs["OR"], outputs["AND"]], 1)
    exclusive = fires(hidden, desk.tensor([1, -1]), 1)
    note.agree("XOR", "two layers - truth table", values(exclusive), TABLES["XOR"])
    columns.append(values(exclusive)[:, None])
    note.matrices["x1, x2, AND, OR, XOR"] = np.concatenate(columns, axis=1)
    note.matrices["x, NOT x"] = np.stack([[0, 1], values(negated)], axis=1)
    return note


register(
    name="mcculloch-pitts",
    family="threshold units",
    year=1943,
    source="source notes 001, 002 and 004; McCulloch and Pitts, 1943",
    summary="AND, OR, NOT as one unit each, XOR as three",
    explain=explain_mcculloch_pitts,
)


# The perceptron


def truth_tables(*gates: str) -> Splits:
    """Return the four rows of (x1, x2) with a target for each gate; training set = test set."""
    x = np.concatenate([ROWS, ROWS])
    y = np.array([TABLES[gate] for gate in gates], dtype=np.float32).T
    about = f"the truth tables of {', '.join(gates)}"
    return made_splits("truth-tables", x, np.concatenate([y, y]), train=4, description=about)


class Perceptron(nn.Learner):
    """Rosenblatt's units: a = step(W x + b), learned by W += (t - a) x^T, b += t - a.

    One row of W for each output; they learn side by side and start from zero. `mistakes` counts,
    for each output, the samples that were wrong when they came up.
    """

    mistakes: trine.Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("mistakes", trine.zeros(outputs))

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        return F.unit_step(self.linear(x), at_zero=1.0)

    def learn(self, input: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
        """Rosenblatt's rule, summed over the batch."""
        with trine.no_grad():
            output = self(input)
            error = target - output
            self.descend(self.linear.weight, -(error.T @ input))
            self.descend(self.linear.bias, -error.sum(dim=0))
            self.mistakes.add_(error.abs().sum(dim=0))
            return output


def fewest_wrong(gate: str, desk: Desk, epochs: int = 100) -> int:
    """Train one unit on a gate, a row at a time; return the fewest wrong rows after any epoch."""
    model = Perceptron(2, 1)
    desk.place(model)
    data = truth_tables(gate).train
    x, y = desk.tensor(data.x), desk.tensor(data.y)
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    fewest = len(ROWS)
    for _ in range(epochs):
        for row in range(len(ROWS)):
            optimizer.zero_grad()
            model.learn(x[row : row + 1], y[row : row + 1])
            optimizer.step()
        wrong = np.abs(values(model(x)) - np.asarray(data.y)).sum()
        fewest = min(fewest, int(wrong))
    return fewest


MISTAKES = {"AND": 3 * 17, "OR": 3 * 9}
"""Novikoff's bound R^2 |w|^2 / gamma^2 from zero: |(x1, x2, 1)|^2 <= 3, and (2, 2, -3), of length
sqrt 17, tells AND with a margin of 1, as (2, 2, -1), of length 3, does OR."""


def show_perceptron(model: nn.Module, splits: Splits) -> Explanation:
    """Say what the units learned, how many mistakes that took, and that XOR is beyond one unit."""
    desk = Desk.of(model)
    note = Explanation(
        "perceptron", "What the perceptron learned", SOURCE, desk.backend, desk.dtype,
        [
            "a = step(W x + b)      W += (t - a) x^T      b += t - a",
            "from zero: mistakes <= R^2 |w*|^2 / gamma^2 for every w* that separates with margin gamma",
        ],
    )  # fmt: skip
    output = values(model(desk.tensor(ROWS)))
    for k, gate in enumerate(("AND", "OR")):
        note.agree(gate, "learned - truth table", output[:, k], TABLES[gate])
        note.at_most("mistakes", f"on the way to {gate}", values(model.mistakes)[k], MISTAKES[gate])
    note.at_least("wrong rows", "of XOR, the fewest in 100 epochs", fewest_wrong("XOR", desk), 1)
    note.matrices["W and b of AND and of OR"] = np.concatenate(
        [values(model.linear.weight), values(model.linear.bias)[:, None]], axis=1
    )
    for k, gate in enumerate(("AND", "OR")):
        truth = np.array(TABLES[gate]) == 1

        def fires(x: trine.Tensor, unit: int = k) -> trine.Tensor:
            out: trine.Tensor = model(x)[:, unit]
            return out

        note.drawings[gate.lower()] = over_square(
            fires, desk, f"{gate}: where the unit fires", (-0.5, 1.5), 101,
            {"1": ROWS[truth], "0": ROWS[~truth]},
        )  # fmt: skip
    return note


@system(
    "perceptron",
    family="threshold units",
    year=1958,
    source=f"{SOURCE}; Rosenblatt, 1958",
    summary="AND and OR by the perceptron rule, within Novikoff's number of mistakes; XOR never",
    data=lambda: truth_tables("AND", "OR"),
    loss=F.l1_loss,
    metrics=(),
    lr=1.0,
    batch_size=1,
    epochs=50,
    stop=("test_loss", 0.0),
    shows=show_perceptron,
)
def build_perceptron() -> Perceptron:
    """Return two units over two inputs, one for AND and one for OR."""
    return Perceptron(2, 2)


# ADALINE


def two_clouds(train: int = 400, test: int = 400) -> Splits:
    """Make normal points of deviation 1 around (1, 1/2), target 1, and (-1, -1/2), target -1."""
    n = train + test
    y = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)[:, None]
    x = y * np.array([1.0, 0.5]) + draw_normal("adaline", (n, 2))
    about = "points of two normal clouds that overlap"
    features, targets = x.astype(np.float32), y.astype(np.float32)
    return made_splits("two-clouds", features, targets, train=train, description=about)


class Adaline(nn.Learner):
    """Widrow and Hoff's adaptive linear unit: z = w x + b, learned by w += eta (t - z) x.

    The rule sees the sum z before the threshold, and so keeps on learning from right answers. The
    directions are means over the batch, that is half the gradient of the mean square error.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        return self.linear(x)

    def learn(self, input: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
        """The delta rule, averaged over the batch."""
        with trine.no_grad():
            output = self(input)
            error = (target - output) / len(input)
            self.descend(self.linear.weight, -(error.T @ input))
            self.descend(self.linear.bias, -error.sum(dim=0))
            return output

    def theta(self) -> npt.NDArray[np.float64]:
        """Return w1, w2, b."""
        return np.append(values(self.linear.weight)[0], values(self.linear.bias))


def show_adaline(model: nn.Module, splits: Splits) -> Explanation:
    """Compare the weights with least squares and the rule with the gradient."""
    desk = Desk.of(model)
    note = Explanation(
        "adaline", "The delta rule finds the least-squares line", SOURCE, desk.backend, desk.dtype,
        ["z = w x + b      w += eta (t - z) x      b += eta (t - z)", "decision: the sign of z"],
    )  # fmt: skip
    train, test = splits.train, splits.test
    inputs = np.concatenate([train.x, np.ones((len(train), 1))], axis=1).astype(np.float64)
    best = np.linalg.lstsq(inputs, np.asarray(train.y, np.float64), rcond=None)[0][:, 0]
    for symbol, found, exact in zip(("w1", "w2", "b"), model.theta(), best, strict=True):
        note.equal(symbol, "learned = least squares", found, exact, 1e-5)

    fresh = Adaline(2)
    desk.place(fresh)
    x, y = desk.tensor(train.x), desk.tensor(train.y)
    fresh.learn(x, y)
    by_rule = values(fresh.linear.weight.grad)
    fresh.zero_grad()
    half_squared_error(fresh(x), y).backward()
    gradient = values(fresh.linear.weight.grad)
    note.agree("dw", "delta rule - gradient of 1/2n sum (t - z)^2", by_rule, gradient)

    z = values(model(desk.tensor(test.x)))
    right = (np.sign(z) == np.asarray(test.y)).mean()
    # The best border between the clouds errs with the probability of a normal above |mu|.
    note.at_least("right", "of the test points, by the sign of z (at best 0.87)", right, 0.84)
    positive = np.asarray(test.y)[:, 0] > 0
    note.drawings["plane"] = over_square(
        model, desk, "z of ADALINE, and its border at 0", (-4.0, 4.0), 101,
        {"-1": np.asarray(test.x)[~positive], "1": np.asarray(test.x)[positive]}, level=0.0,
    )  # fmt: skip
    return note


@system(
    "adaline",
    family="threshold units",
    year=1960,
    source=f"{SOURCE}; Widrow and Hoff, 1960",
    summary="the delta rule reaches the least-squares line between two clouds",
    data=two_clouds,
    loss=half_squared_error,
    metrics=(),
    lr=0.5,
    batch_size=400,
    epochs=100,
    shows=show_adaline,
)
def build_adaline() -> Adaline:
    """Return one linear unit over two inputs, starting from zero."""
    return Adaline(2)
