"""`mlp`: a multilayer perceptron on 28x28 images."""

from __future__ import annotations

import trine.functional as F
from trine import nn
from trine.models.registry import system


@system(
    "mlp",
    family="feed-forward",
    year=1986,
    source="source notes 000 to 004",
    summary="784-128-10 with ReLU: the plain network of every textbook",
    data="digits",
    loss=F.cross_entropy,
    optimizer="adam",
    lr=1e-3,
    batch_size=32,
    epochs=20,
    expected={"test_accuracy": 0.97},
)
def build() -> nn.Sequential:
    """Return a network with one hidden layer of 128 units: 101,770 parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 128), nn.ReLU(), nn.Linear(128, 10))
