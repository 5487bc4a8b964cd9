"""How a torch function becomes a peer's call, and what its functions share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from trine.bench.peers import PeerCall

aten = torch.ops.aten
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "none": lambda z: z, "relu": torch.relu_, "sigmoid": torch.sigmoid_, "tanh": torch.tanh_,
}  # fmt: skip


def tensor(array: Any) -> Any:
    """Return an array's values as a tensor of its own; None stays None."""
    return None if array is None else torch.from_numpy(np.ascontiguousarray(array).copy())


def make_call(function: Callable[..., Any], *arrays: Any, shown: int | None = None) -> PeerCall:
    """Make a call of a function on tensors of the arrays; `shown` outputs are compared."""
    tensors = [tensor(a) for a in arrays]

    def call() -> Any:
        with torch.no_grad():
            return function(*tensors)

    def outputs(result: Any) -> list[Any]:
        several = list(result) if isinstance(result, (tuple, list)) else [result]
        return [None if r is None else r.detach().numpy() for r in several[:shown]]

    return PeerCall(call, outputs)


def slope(delta: Any, out: Any, activation: str) -> Any:
    """Return delta f'(z) from the activation's output."""
    if activation == "relu":
        return aten.threshold_backward(delta, out, 0)
    if activation == "sigmoid":
        return aten.sigmoid_backward(delta, out)
    return aten.tanh_backward(delta, out) if activation == "tanh" else delta
