"""A model's anatomy before, during and after some training steps on one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy.typing as npt

import trine
from trine import nn, optim
from trine.models.anatomy import Anatomy, record
from trine.models.desk import Desk
from trine.models.registry import System

SHOTS = 24
"""Anatomies of a long training; more would make a page heavy without showing more."""
KEPT = 4_000_000
"""Weights that the anatomies of a training hold together; each holds them and their gradients."""
BATCH = 4
"""Samples of a lesson where the system's own batch is larger."""


@dataclass(frozen=True)
class Pupil:
    """A small net with one batch to learn, for an example that is not trained otherwise."""

    model: nn.Module
    x: npt.ArrayLike
    target: npt.ArrayLike
    loss: Callable[..., trine.Tensor]
    rate: float


def moments(steps: int, shots: int = SHOTS) -> list[int]:
    """Return after which steps to look: always the first and the last, closer at the beginning."""
    if steps < shots:
        return list(range(steps + 1))
    return sorted({round(steps * (k / shots) ** 2) for k in range(shots + 1)})


def lesson(
    model: nn.Module,
    x: trine.Tensor,
    target: trine.Tensor,
    loss: Callable[..., trine.Tensor],
    rate: float,
    steps: int,
) -> list[tuple[int, Anatomy]]:
    """Train a model on one batch by gradient descent; return (step, anatomy) at some moments."""
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    size = sum(p.numel() for p in model.parameters())
    wanted = set(moments(steps, min(SHOTS, max(1, KEPT // max(1, size)))))
    found = []
    model.eval()
    for step in range(steps + 1):
        if step in wanted:
            found.append((step, record(model, x, target, loss=loss, rate=rate)))
        if step < steps:
            optimizer.zero_grad()
            loss(model(x), target).backward()
            optimizer.step()
    return found


def lesson_of(system: System, backend: str, dtype: str, steps: int) -> list[tuple[int, Anatomy]]:
    """Return the anatomies of a system's own net while it learns the first few of its samples.

    Gradient descent, at the system's rate where that is its optimiser and at 0.1 elsewhere; a
    system without a net of its own has a `pupil`, or none: an empty list.
    """
    desk = Desk(backend, dtype)
    trine.seed(0)
    with trine.use(backend):
        if system.pupil is not None:
            pupil = system.pupil()
            desk.place(pupil.model)
            x, target = desk.tensor(pupil.x), desk.tensor(pupil.target)
            return lesson(pupil.model, x, target, pupil.loss, pupil.rate, steps)
        if system.build is None or system.loss is None:
            return []
        model = system.build()
        if isinstance(model, nn.Learner):
            return []
        desk.place(model)
        if hasattr(model, "start"):
            model.start()  # numbers that are given, in the dtype that the model has now
        data, count = system.splits().train, min(system.batch_size, BATCH)
        x, y = desk.given(data.x[:count]), desk.given(data.y[:count])
        rate = system.lr if system.optimizer == "sgd" else 0.1
        return lesson(model, x, y, system.loss, rate, steps)
