"""Training steps in torch eager, from weights that trine drew: the loop that users write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim

from trine.bench.models import Model


def make_step(
    model: Model, batch: int, weights: dict[str, Any] | None, seed: int
) -> Callable[[], float]:
    """Return a training step of a model; without weights, from torch's own."""
    x, y = (torch.from_numpy(a) for a in model.draw(np.random.default_rng(seed), batch))
    network = model.build(nn)
    if weights is not None:
        network.load_state_dict({k: torch.from_numpy(w.copy()) for k, w in weights.items()})
    optimizer = model.optimizer(optim, network.parameters())

    def step() -> float:
        optimizer.zero_grad()
        loss = model.loss(F, network, x, y)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step
