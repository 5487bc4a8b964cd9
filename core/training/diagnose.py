"""Where NaN or Inf came from: a step is run again with its outputs watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trine import nn
from trine.tensor import Tensor


def first_nonfinite(
    model: nn.Module, x: Tensor, target: Tensor, loss: Callable[..., Tensor]
) -> str:
    """Return in words what of a step is first not finite: input, weight, layer, loss or gradient."""
    if not _finite(x):
        return "the input batch"
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"parameter {name}"
    found: list[str] = []
    handles = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            outputs = output if isinstance(output, tuple) else (output,)
            if any(isinstance(o, Tensor) and not _finite(o) for o in outputs):
                found.append(f"the output of layer {name or 'model'} ({type(module).__name__})")

        return hook

    for name, module in model.named_modules():
        if not list(module.children()):
            handles.append(module.register_forward_hook(watch(name)))
    try:
        value = loss(model(x), target)
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return found[0]
    if not _finite(value):
        return "the loss"
    model.zero_grad()
    value.backward()
    # Gradients flow backwards: the last parameter with a bad one was reached first.
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not _finite(parameter.grad):
            return f"the gradient of {name}"
    return "the norm of the gradients, which overflows"


def _finite(x: Tensor) -> bool:
    return bool(np.isfinite(x.backend.to_numpy(x.data)).all())
