"""Metrics as (sum, count), so that averages over unequal batches are right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import trine
from trine.backends import Backend
from trine.dtypes import Array, float64
from trine.errors import suggest
from trine.tensor import Tensor

Metric = Callable[[Any, Tensor], tuple[Tensor, int]]
"""metric(output, target) -> (sum over samples, number of samples)."""


def accuracy(output: Tensor | tuple[Tensor, ...], target: Tensor) -> tuple[Tensor, int]:
    """Count the samples whose class is right.

    output: (N, C) scores with target (N,) labels or (N, C) of which the largest counts; or one
    number a sample, right where it lies on the target's side of 1/2.
    Of several outputs in a tuple the first counts: a net with auxiliary heads, say.
    """
    if isinstance(output, tuple):
        output = output[0]
    if output.ndim >= 2 and output.shape[1] > 1:
        predicted = output.argmax(1)
        labels = target.argmax(1) if target.shape == output.shape else target
        right = predicted == labels
    else:
        right = (output > 0.5) == (target > 0.5)
    return right.long().sum(), right.numel()


METRICS: dict[str, Metric] = {"accuracy": accuracy}


def resolve(metrics: Mapping[str, Metric] | Iterable[str]) -> dict[str, Metric]:
    """Return metrics by name; names are looked up. Raises ValueError for an unknown one."""
    if isinstance(metrics, Mapping):
        return dict(metrics)
    found = {}
    for name in metrics:
        if name not in METRICS:
            raise suggest("metrics", "metric", name, METRICS)
        found[name] = METRICS[name]
    return found


class Sums:
    """Running sums of loss and metrics, kept on the device and read only when asked for."""

    def __init__(self, backend: Backend, names: Iterable[str]) -> None:
        self.backend = backend
        self.sums: dict[str, Array] = {n: backend.zeros((), float64) for n in names}
        self.counts = dict.fromkeys(self.sums, 0)

    def add(self, name: str, value: Tensor) -> None:
        """Add a number on the device, in place, so that a captured step can do it too."""
        with trine.no_grad():
            array = self.backend.astype(value.detach().data, dtype=float64)
            self.backend.accumulate(self.sums[name], self.backend.reshape(array, shape=()))

    def count(self, numbers: Mapping[str, int]) -> None:
        """Say over how many samples the numbers that were added are sums."""
        for name, number in numbers.items():
            self.counts[name] += number

    def clear(self) -> None:
        """Start anew."""
        for name, total in self.sums.items():
            self.backend.assign(total, 0.0)
            self.counts[name] = 0

    def means(self) -> dict[str, float]:
        """Return the means; waits for the device. NaN where nothing was added."""
        return {
            name: float(self.backend.to_numpy(total)) / self.counts[name]
            if self.counts[name]
            else float("nan")
            for name, total in self.sums.items()
        }

    def state(self) -> dict[str, list[str | int]]:
        """Return sums, exactly, and counts."""
        return {
            name: [float(self.backend.to_numpy(total)).hex(), self.counts[name]]
            for name, total in self.sums.items()
        }

    def load_state(self, state: Mapping[str, list[str | int]]) -> None:
        """Continue from a state."""
        for name, (total, count) in state.items():
            value = float.fromhex(str(total))
            self.backend.assign(self.sums[name], value)
            self.counts[name] = int(count)
