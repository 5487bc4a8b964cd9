"""The networks whose training steps are timed: one definition for trine and for torch.

Both libraries have the same names, so a network is a function of the library's modules. Both sides
start from the same weights and see the same batch; the step is the plain loop that users write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Batch = tuple[Any, Any]


def images(channels: int, size: int) -> Callable[[np.random.Generator, int], Batch]:
    """Return a function that draws images and classes 0 to 9."""

    def draw(rng: np.random.Generator, batch: int) -> Batch:
        x = rng.normal(size=(batch, channels, size, size)).astype(np.float32)
        return x, rng.integers(0, 10, batch)

    return draw


def rows(width: int, classes: int) -> Callable[[np.random.Generator, int], Batch]:
    """Return a function that draws rows and classes."""

    def draw(rng: np.random.Generator, batch: int) -> Batch:
        x = rng.normal(size=(batch, width)).astype(np.float32)
        return x, rng.integers(0, classes, batch)

    return draw


def sequences(steps: int, inputs: int, units: int) -> Callable[[np.random.Generator, int], Batch]:
    """Return a function that draws sequences and what a recurrent layer shall answer."""

    def draw(rng: np.random.Generator, batch: int) -> Batch:
        x = rng.normal(size=(steps, batch, inputs)).astype(np.float32)
        return x, np.tanh(rng.normal(size=(steps, batch, units))).astype(np.float32)

    return draw


def classify(F: Any, model: Any, x: Any, y: Any) -> Any:
    """Return the cross-entropy of a classifier."""
    return F.cross_entropy(model(x), y)


def follow(F: Any, model: Any, x: Any, y: Any) -> Any:
    """Return the squared error of a recurrent layer's output."""
    return F.mse_loss(model(x)[0], y)


@dataclass(frozen=True)
class Model:
    """A network, its loss and its optimiser, for any library with these names."""

    summary: str
    batches: tuple[int, ...]
    build: Callable[[Any], Any]
    draw: Callable[[np.random.Generator, int], Batch]
    optimizer: Callable[[Any, Any], Any]
    loss: Callable[..., Any] = classify


def lenet5(nn: Any) -> Any:
    """Two convolutions, two poolings, three full layers: 61,706 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def alexnet_small(nn: Any) -> Any:
    """AlexNet's five convolutions and three full layers, for images of 32x32."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 192, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(4096, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10),
    )  # fmt: skip


MODELS = {
    "lenet5": Model(
        "LeNet-5 with ReLU and maxima on 28x28, SGD",
        (32, 128, 512), lenet5, images(1, 28), lambda optim, p: optim.SGD(p, lr=0.01),
    ),
    "mlp": Model(
        "784-256-10 with ReLU, Adam",
        (128,), lambda nn: nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10)),
        rows(784, 10), lambda optim, p: optim.Adam(p, lr=1e-3),
    ),
    "mlp-small": Model(
        "12-3-2 with the logistic function, SGD: nothing but overhead",
        (64,), lambda nn: nn.Sequential(nn.Linear(12, 3), nn.Sigmoid(), nn.Linear(3, 2)),
        rows(12, 2), lambda optim, p: optim.SGD(p, lr=0.1),
    ),
    "lstm": Model(
        "LSTM 64 -> 128 over 50 steps, squared error, SGD",
        (32,), lambda nn: nn.LSTM(64, 128), sequences(50, 64, 128),
        lambda optim, p: optim.SGD(p, lr=0.1), follow,
    ),
    "lstm-long": Model(
        "LSTM 128 -> 256 over 128 steps, squared error, SGD",
        (8,), lambda nn: nn.LSTM(128, 256), sequences(128, 128, 256),
        lambda optim, p: optim.SGD(p, lr=0.1), follow,
    ),
    "alexnet-small": Model(
        "five convolutions and three full layers on 32x32, SGD",
        (64,), alexnet_small, images(3, 32), lambda optim, p: optim.SGD(p, lr=0.01),
    ),
}  # fmt: skip
"""Every model by the name that `--model` takes."""
