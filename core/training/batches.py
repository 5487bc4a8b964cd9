"""Batches on their way through a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.tensor import Tensor

Batch = tuple[Any, Any, npt.NDArray[np.int64]]
"""Samples and targets, as arrays on the host or as tensors where the model is; indices."""


def check_scalar(loss: Any) -> None:
    """Raise ValueError unless a loss is a tensor of one element."""
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = loss.shape if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(
            f"[Trainer] expected the loss as a scalar tensor, got {shape}. Reduce it with mean() or "
            "sum()."
        )


def detached(output: Any) -> Any:
    """Return a model's output outside the graph, if it is a tensor."""
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
