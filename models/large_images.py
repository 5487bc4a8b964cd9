"""What the nets of a thousand classes train on here, and what they show: sizes and first steps.

Their data, the 1.2 million pictures of ImageNet, are neither at hand nor a matter of minutes. So a
full-size net takes a few steps on made pictures of one shape each, and must learn at once that of
its 1,000 classes only three occur.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trine
import trine.functional as F
from trine import nn
from trine.data import Splits
from trine.models.desk import Desk
from trine.models.explanation import Explanation
from trine.models.shapes import shape_classes

CLASSES = 1000
TRAIN, TEST, BATCH = 80, 16, 4


def large_images(size: int) -> Callable[[], Splits]:
    """Return a function that makes RGB pictures of a size, each of one shape."""

    def make() -> Splits:
        return shape_classes(TRAIN, TEST, size)

    return make


def shows(name: str, published: int) -> Callable[[nn.Module, Splits], Explanation]:
    """Return what counts a net's parameters and measures how far its first steps brought it."""

    def show(model: nn.Module, splits: Splits) -> Explanation:
        desk = Desk.of(model)
        note = Explanation(
            name, "A net for 1,000 classes: its size and its first steps", "source notes 001",
            desk.backend, desk.dtype,
        )  # fmt: skip
        count = sum(p.numel() for p in model.parameters())
        note.equal("parameters", "weights and biases, as published", count, published, 0.0)
        total = 0.0
        with trine.no_grad():
            for first in range(0, len(splits.test), BATCH):
                part = slice(first, first + BATCH)
                scores = model(desk.tensor(splits.test.x[part]))
                target = desk.integers(splits.test.y[part])
                total += F.cross_entropy(scores, target, reduction="sum").item()
        start = math.log(CLASSES)
        note.show("ln 1000", "cost of guessing among all classes", start)
        note.at_most(
            "cost",
            "on held-out pictures; at most half of that",
            total / len(splits.test),
            start / 2,
        )
        return note

    return show
