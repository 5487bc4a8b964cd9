"""Sums over all states of a few binary units: what makes a Boltzmann machine's numbers exact."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

import trine
from trine import nn
from trine.models.desk import values

MOST_UNITS = 16


def binary_states(units: int) -> npt.NDArray[np.float32]:
    """Return all states of binary units, (2^units, units); unit j is bit j of the row's number.

    Raises ValueError above 16 units.
    """
    if units > MOST_UNITS:
        raise ValueError(
            f"[enumeration] expected at most {MOST_UNITS} units, got {units}: 2^{units} states. "
            "Use a smaller model for exact numbers."
        )
    numbers = np.arange(1 << units)[:, None]
    return (numbers >> np.arange(units) & 1).astype(np.float32)


def log_sum_exp(x: trine.Tensor) -> trine.Tensor:
    """Return ln sum_j e^(x_ij) of rows (..., J), without overflow; differentiable."""
    largest = x.detach().amax(dim=-1, keepdim=True)
    return (x - largest).exp().sum(dim=-1).log() + largest.squeeze(-1)


def gradients(parameters: Iterable[nn.Parameter]) -> npt.NDArray[np.float64]:
    """Return the gradients, or a rule's directions, of parameters as one row of numbers."""
    return np.concatenate([values(p.grad).ravel() for p in parameters])


def cosine(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Return the cosine of the angle between two rows of numbers."""
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
