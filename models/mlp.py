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
    summary="784-256-10 with ReLU and dropout: the plain network of every textbook",
    data="digits",
    loss=F.cross_entropy,
    optimizer="adam",
    lr=3e-3,
    schedule="cosine",
    batch_size=32,
    epochs=60,
    expected={"test_accuracy": 0.97},
)
def build() -> nn.Sequential:
    """Return a network with one hidden layer of 256 units: 203,530 parameters."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(28 * 28, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 10),
    )
