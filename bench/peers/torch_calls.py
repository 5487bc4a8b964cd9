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
_floats: torch.dtype | None = None


@contextmanager
def operands(*, channels_last: bool = False, floats: torch.dtype | None = None) -> Iterator[None]:
    """Let images that are made inside the block have their channels last, and floats another type."""
    global _channels_last, _floats
    before = _channels_last, _floats
    _channels_last, _floats = channels_last, floats
    try:
        yield
    finally:
        _channels_last, _floats = before


def _laid_out(made: Any) -> Any:
    if _floats is not None and made.is_floating_point():
        made = made.to(_floats)
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
    """Return a tensor's values as an array, bfloat16 as float32; None stays None."""
    if made is None:
        return None
    made = made.detach().cpu()
    return (made.float() if made.dtype == torch.bfloat16 else made).numpy()


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
