"""Batches on their way through a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt

from trine import nn
from trine.autograd import no_grad
from trine.tensor import Tensor

Batch = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]
"""Samples, targets, indices."""


def check_scalar(loss: Any) -> None:
    """Raise ValueError unless a loss is a tensor of one element."""
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = loss.shape if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(
            f"[Trainer] expected the loss as a scalar tensor, got {shape}. Reduce it with mean() or "
            "sum()."
        )


def detached(output: Any) -> Any:
    """Return a model's output, a tensor or a tuple, list or dict of such, outside the graph."""
    if isinstance(output, (tuple, list)):
        parts = [detached(part) for part in output]
        return parts if isinstance(output, list) else tuple(parts)
    if isinstance(output, dict):
        return {name: detached(part) for name, part in output.items()}
    return output.detach() if isinstance(output, Tensor) else output


def groups(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield lists of `size` batches; the last one may be shorter."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def closable(batches: Iterator[Batch]) -> Any:
    """Return the iterator as a generator, whose end ends the loader's thread at once."""
    yield from batches


def learn(
    model: nn.Module, loss: Callable[..., Tensor], x: Tensor, y: Tensor, share: float = 1.0
) -> tuple[Any, Tensor]:
    """Bring a batch's gradients into the parameters; return the model's output and its loss.

    The gradients are those of `share` times the loss, or what a `Learner`'s own rule says.
    """
    if isinstance(model, nn.Learner):
        output = model.learn(x, y)
        with no_grad():
            value = loss(detached(output), y)
        check_scalar(value)
        return output, value
    output = model(x)
    value = loss(output, y)
    check_scalar(value)
    (value * share if share != 1.0 else value).backward()
    return output, value
