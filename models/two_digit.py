"""`two-digit`: a 12-3-2 network tells 4x3 images of 0 from those of 1, with three detectors.

Cells are numbered 1 to 12 row by row, so the middle rows hold 4 5 6 and 7 8 9. A 0 has strokes on
the left (4, 7) and on the right (6, 9), a 1 has its stroke in the middle (5, 8).
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

import trine
from trine import nn, optim
from trine.data import Splits
from trine.models.desk import (
    Desk,
    draw_order,
    flipped,
    half_squared_error,
    made_splits,
    set_parameters,
    values,
)
from trine.models.explanation import Explanation
from trine.models.registry import system

SOURCE = "source notes 000 and 004"
IMAGES = 64
RATE = 0.2
"""The step size of descent by the sum over the batch."""

ZERO = np.array([[1, 1, 1], [1, 0, 1], [1, 0, 1], [1, 1, 1]], dtype=np.float32)
ONE = np.array([[0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]], dtype=np.float32)
DETECTORS = {"A": (4, 7), "B": (5, 8), "C": (6, 9)}


def images() -> Splits:
    """Make the images: a ring of ten cells or a bar of four, with up to two cells flipped.

    Of the 1 + 12 + 66 images of each digit a fixed permutation gives 32 for training and 32 for
    the test, no image twice; the digits take turns.
    """
    flips = [cells for n in range(3) for cells in combinations(range(12), n)]
    drawn = []
    for digit, template in enumerate((ZERO, ONE)):
        order = draw_order(f"two-digit {digit}", len(flips))[:IMAGES]
        drawn.append([flipped(template, flips[k]) for k in order])
    x = np.stack([drawn[i % 2][i // 2] for i in range(2 * IMAGES)])[:, None]
    y = np.arange(2 * IMAGES, dtype=np.int64) % 2
    about = "4x3 images of 0 and 1: a ring or a bar with up to two cells flipped"
    return made_splits("two-digit", x, y, train=IMAGES, num_classes=2, description=about)


class TwoDigit(nn.Module):
    """Twelve cells, three logistic detectors, two logistic outputs: 47 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(12, 3)
        self.output = nn.Linear(3, 2)
        for p in self.parameters():
            nn.init.normal_(p)

    def detect(self, x: trine.Tensor) -> trine.Tensor:
        """Return what the three hidden units make of images (N, 1, 4, 3): (N, 3)."""
        return self.hidden(x.flatten(1)).sigmoid()

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        return self.output(self.detect(x)).sigmoid()


def with_detectors() -> TwoDigit:
    """Return the network by hand: A, B, C look at two cells each; A and C speak for 0, B for 1."""
    model = TwoDigit()
    weight = np.zeros((3, 12))
    for unit, cells in enumerate(DETECTORS.values()):
        weight[unit, [cell - 1 for cell in cells]] = 10.0
    # A detector fires from about one and a half of its two cells on.
    set_parameters(
        model,
        hidden__weight=weight,
        hidden__bias=[-15.0, -15.0, -15.0],
        output__weight=[[10.0, -10.0, 10.0], [-10.0, 10.0, -10.0]],
        output__bias=[-1.0, 1.0],
    )
    return model


def correct(model: nn.Module, x: trine.Tensor, y: npt.NDArray[np.int64]) -> int:
    """Return how many images the model classifies as labelled."""
    return int((values(model(x)).argmax(axis=1) == y).sum())


def train(desk: Desk, steps: int = 200) -> tuple[TwoDigit, list[float]]:
    """Train by batch descent from a random start; return the model and the cost of each step."""
    model = TwoDigit()
    desk.place(model)
    data = images().train
    x, y = desk.tensor(data.x), desk.integers(data.y)
    optimizer = optim.SGD(model.parameters(), lr=RATE * IMAGES)
    costs = []
    for _ in range(steps):
        optimizer.zero_grad()
        cost = half_squared_error(model(x), y)
        cost.backward()
        optimizer.step()
        costs.append(cost.item() * IMAGES)
    return model, costs


def explain(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Show the detectors by hand, then what batch descent finds on its own."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "two-digit",
        "0 or 1 in twelve cells: three detectors, two outputs",
        SOURCE,
        backend,
        dtype,
        [
            "a_j = s(sum_i w_ji x_i + b_j)    j = A, B, C",
            "out_k = s(sum_j v_kj a_j + c_k)  k = 0, 1;   target (1, 0) for 0, (0, 1) for 1",
            "C = sum over 64 images of 1/2 sum_k (t_k - out_k)^2",
            "47 parameters = 3 (12 + 1) + 2 (3 + 1), fewer than the 64 images",
        ],
    )
    data = images().train
    x = desk.tensor(data.x)
    by_hand = with_detectors()
    desk.place(by_hand)
    perfect = desk.tensor(np.stack([ZERO, ONE])[:, None])
    seen = values(by_hand.detect(perfect))
    for digit in range(2):
        for unit, (name, cells) in enumerate(DETECTORS.items()):
            fires = name == "B" if digit else name != "B"
            note.truth(
                f"{name}{cells}", f"{'fires' if fires else 'is silent'} for a clean {digit}",
                bool((seen[digit, unit] > 0.5) == fires),
            )  # fmt: skip
    note.show("right", "of 64 by the detectors alone", correct(by_hand, x, data.y))
    model, costs = train(desk)
    right = correct(model, x, data.y)
    note.show("C", "before training", costs[0])
    note.show("C", "after batch descent", costs[-1])
    note.show("right", "of 64 after batch descent", right)
    note.truth("right >= 62", "of 64 after batch descent", right >= 62)
    note.matrices["0, 1"] = np.concatenate([ZERO, ONE], axis=1)
    for unit, kernel in enumerate(values(model.hidden.weight).reshape(3, 4, 3)):
        note.matrices[f"learned weights of hidden unit {unit + 1}"] = kernel
    note.matrices["learned weights of the outputs"] = values(model.output.weight)
    return note


@system(
    "two-digit",
    family="worked example",
    year=1986,
    source=SOURCE,
    summary="4x3 images of 0 and 1 by a 12-3-2 network: 47 parameters, 64 images",
    data=images,
    loss=half_squared_error,
    optimizer="sgd",
    lr=RATE * IMAGES,
    batch_size=IMAGES,
    epochs=200,
    expected={"test_accuracy": 0.95},
    explain=explain,
)
def build() -> TwoDigit:
    """Return the 12-3-2 network at a random start."""
    return TwoDigit()
