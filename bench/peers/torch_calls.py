"""How a torch function becomes a peer's call, and what its functions share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from trine.bench.peers import PeerCall

aten = torch.ops.aten
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "none": lambda z: z, "relu": torch.relu_, "sigmoid": torch.sigmoid_, "tanh": torch.tanh_,
}  # fmt: skip


_channels_last = False


@contextmanager
def channels_last(wanted: bool) -> Iterator[None]:
    """Let images that are made inside the block have their channels last in memory."""
    global _channels_last  # noqa: PLW0603  one layout at a time
    before, _channels_last = _channels_last, wanted
    try:
        yield
    finally:
        _channels_last = before


def _laid_out(made: Any) -> Any:
    if _channels_last and made.ndim == 4:
        return made.contiguous(memory_format=torch.channels_last)
    return made


def tensor(array: Any) -> Any:
    """Return an array's values as a tensor of its own on torch's default device; None stays None."""
    if array is None:
        return None
    made = torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape).copy())
    return _laid_out(made.to(torch.get_default_device()))


def empty(shape: Any, like: Any) -> Any:
    """Return a tensor that only tells a shape, of the type of an array."""
    dtype = torch.from_numpy(np.empty(0, like.dtype)).dtype
    return _laid_out(torch.empty(tuple(shape), dtype=dtype))


def host(made: Any) -> Any:
    """Return a tensor's values as an array; None stays None."""
    return None if made is None else made.detach().cpu().numpy()


def make_call(function: Callable[..., Any], *arrays: Any, shown: int | None = None) -> PeerCall:
    """Make a call of a function on tensors of the arrays; `shown` outputs are compared."""
    tensors = [tensor(a) for a in arrays]

    def call() -> Any:
        with torch.no_grad():
            return function(*tensors)

    def outputs(result: Any) -> list[Any]:
        several = list(result) if isinstance(result, (tuple, list)) else [result]
        return [host(r) for r in several[:shown]]

    return PeerCall(call, outputs)


def slope(delta: Any, out: Any, activation: str) -> Any:
    """Return delta f'(z) from the activation's output."""
    if activation == "relu":
        return aten.threshold_backward(delta, out, 0)
    if activation == "sigmoid":
        return aten.sigmoid_backward(delta, out)
    return aten.tanh_backward(delta, out) if activation == "tanh" else delta
