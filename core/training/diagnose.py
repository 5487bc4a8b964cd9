"""NaN and Inf: noticed before the update, and traced to where they came from.

The guard never waits for a device in each step. On the CPU it looks at every step; elsewhere it
looks now and then, and a factor that stays NaN from the first bad step on suppresses all updates
after it. So the weights are those of before the bad step whenever it is found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trine import nn, optim
from trine.dtypes import Array, float64
from trine.errors import DivergenceError
from trine.optim.clip import clip_factor
from trine.tensor import Tensor
from trine.training import checkpoint
from trine.training.batches import Batch


@dataclass
class Window:
    """The batches of one optimiser step, and where the run stood before it."""

    batches: list[Batch]
    epoch: int
    step: int
    random: dict[str, int]
    """State of the default generator, so that the step can be run again."""

    @property
    def samples(self) -> int:
        """How many samples the step takes."""
        return sum(len(x) for x, _, _ in self.batches)


class Guard:
    """Clips by the total norm, and lets no update through in which something is not finite."""

    def __init__(self, optimizer: optim.Optimizer, clip_norm: float | None, every: int) -> None:
        self.optimizer = optimizer
        self.limit = math.inf if clip_norm is None else clip_norm
        backend = optimizer.backend
        self.every = 1 if backend.device == "cpu" else every
        self._poison = backend.zeros((1,), float64)
        self._pending: list[tuple[Array, Window]] = []

    def protect(self, loss: Array) -> tuple[Array, Array]:
        """Set the factor of the coming update; return the norm and what `see` looks at.

        loss: (), of the whole step. Both results are float64 (1,). All on the device.
        """
        norm = self.optimizer.grad_norm()
        backend = self.optimizer.backend
        wide = backend.astype(backend.reshape(loss, shape=(1,)), dtype=float64)
        # norm + (loss - loss) is the norm, or not finite if either is not
        probe = backend.add(norm, backend.sub(wide, wide))
        backend.accumulate(self._poison, backend.sub(probe, probe))
        factor = clip_factor(backend, norm, self.limit)
        self.optimizer.set_scale(backend.add(factor, self._poison))
        return norm, probe

    def see(self, window: Window, probe: Array) -> Window | None:
        """Look at a step that was done, now or later; return the first bad one, if found now."""
        self._pending.append((probe, window))
        return self.look() if len(self._pending) >= self.every else None

    def look(self) -> Window | None:
        """Read what was not read yet; return the first bad step. Waits for the device."""
        if not self._pending:
            return None
        backend = self.optimizer.backend
        probes = [probe for probe, _ in self._pending]
        joined = probes[0] if len(probes) == 1 else backend.concat(probes, axis=0)
        finite = np.isfinite(backend.to_numpy(joined))
        windows = [window for _, window in self._pending]
        self._pending.clear()
        return None if finite.all() else windows[int(np.argmin(finite))]


def diverged(
    bad: Window, place: str, weights: checkpoint.Arrays, file: Path | None
) -> DivergenceError:
    """Save a bad step's batches and the weights in `file`, if given; return the error to raise."""
    saved = ""
    if file is not None:
        arrays = {f"model.{name}": array for name, array in weights.items()}
        for i, (x, y, indices) in enumerate(bad.batches):
            arrays |= {f"batch.{i}.x": x, f"batch.{i}.y": y, f"batch.{i}.indices": indices}
        facts = {"kind": "snapshot", "step": bad.step, "epoch": bad.epoch, "place": place}
        checkpoint.save(file, arrays, {**facts, "random": bad.random})
        saved = f" Batch and weights are in {file}."
    return DivergenceError(
        f"[train] expected finite numbers in step {bad.step + 1} (epoch {bad.epoch + 1}), got NaN or "
        f"Inf in {place}; the update was not applied.{saved} Try a smaller --lr, or clip_norm, and "
        "look at the data."
    )


def first_nonfinite(
    model: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    loss: Callable[..., Tensor],
) -> str:
    """Return in words what of a step is first not finite: weight, layer, loss or gradient.

    Where the samples are to blame it says so, with the first layer that they reached.
    """
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"parameter {name}"
    model.zero_grad()
    for x, target in batches:
        value, layer = _watched(model, x, target, loss)
        where = layer or ("" if _finite(value) else "the loss, all layers being finite")
        for name, tensor in (("input batch", x), ("targets of the batch", target)):
            if not _finite(tensor):
                return f"the {name}" + (f", and so in {where}" if where else "")
        if where:
            return where
        if isinstance(model, nn.Learner):
            model.learn(x, target)
        else:
            value.backward()
    # Gradients flow backwards: the last parameter with a bad one was reached first.
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not _finite(parameter.grad):
            return f"the gradient of {name}, loss and layers being finite"
    return "the sum of the gradients, or a step that comes out otherwise when it is run again"


def _watched(
    model: nn.Module, x: Tensor, target: Tensor, loss: Callable[..., Tensor]
) -> tuple[Tensor, str | None]:
    """Return the loss, and in words the first layer whose output is not finite."""
    found: list[str] = []
    handles = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not found and not all(_finite(t) for t in _tensors(output)):
                found.append(f"the output of layer {name or 'model'} ({type(module).__name__})")

        return hook

    for name, module in model.named_modules():  # inner modules finish first, so they speak first
        handles.append(module.register_forward_hook(watch(name)))
    try:
        return loss(model(x), target), found[0] if found else None
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    return (
        [t for part in output for t in _tensors(part)] if isinstance(output, (tuple, list)) else []
    )


def _finite(x: Tensor) -> bool:
    return bool(np.isfinite(x.backend.to_numpy(x.data)).all())
