"""Whose backward rule is wrong: every op that a model's loss records, checked by itself.

A wrong rule spoils the gradients of all parameters before it, so the worst of them does not tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import trine
from trine import nn
from trine.autograd import Op, apply, watching
from trine.dtypes import is_float
from trine.nn.running import running

AWAY = 0.5
"""How much of themselves numbers lose at most."""


@dataclass(frozen=True)
class WrongOp:
    """An op whose gradient is not the slope of what it computes."""

    op: str
    layer: str
    """Path and kind of the module that called it."""
    report: str


@dataclass(frozen=True)
class _Call:
    op: Op
    layer: str
    inputs: tuple[trine.Tensor | None, ...]
    attrs: dict[str, Any]


def wrong_ops(
    model: nn.Module,
    x: trine.Tensor,
    target: trine.Tensor,
    loss: Callable[..., trine.Tensor],
) -> list[WrongOp]:
    """Return the ops of loss(model(x), target) whose backward rule is wrong, in the order of calls.

    The model is in float64 and computes the same at each call.
    """
    found, rng = [], np.random.default_rng(0)
    for call in _calls(model, x, target, loss):
        inputs = [None if t is None else _leaf(t, rng) for t in call.inputs]
        wanted = [t for t in inputs if t is not None and t.requires_grad]

        def again(*_: trine.Tensor, call: _Call = call, inputs: Any = tuple(inputs)) -> Any:
            return apply(call.op, *inputs, **call.attrs)

        result = trine.gradcheck(again, wanted, names=_names(inputs), raise_exception=False)
        if result.wrong:
            found.append(WrongOp(call.op.name, call.layer, str(result)))
    return found


def _calls(
    model: nn.Module, x: trine.Tensor, target: trine.Tensor, loss: Callable[..., trine.Tensor]
) -> list[_Call]:
    """Return the ops that are recorded, each with the module in which it ran."""
    calls: list[_Call] = []
    with running(model) as stack:

        def watch(op: Op, inputs: Any, attrs: Any, results: Any) -> None:
            layer = stack[-1] if stack else "the loss"
            calls.append(_Call(op, layer, tuple(inputs), dict(attrs)))

        with watching(watch):
            loss(model(x), target)
    return calls


def _leaf(tensor: trine.Tensor, rng: np.random.Generator) -> trine.Tensor:
    """Return a tensor on its own, if it is real and has a gradient with other values of its kind.

    Pooling after ReLU meets windows of zeros, a kink in all directions; where no two numbers are the
    same there is none. Numbers keep their sign and none is larger than the largest, so that they
    stay in the domain.
    """
    values = np.array(tensor.detach().numpy())
    if not (is_float(tensor.dtype) and tensor.requires_grad):
        return trine.tensor(values, backend=tensor.backend)
    largest = float(np.abs(values).max()) if values.any() else 1.0
    moved = values * (1.0 - AWAY * rng.random(values.shape))
    moved = np.where(values == 0.0, largest * rng.random(values.shape), moved)
    return trine.tensor(moved, backend=tensor.backend, requires_grad=True)


def _names(inputs: Sequence[trine.Tensor | None]) -> list[str]:
    return [f"input {i}" for i, t in enumerate(inputs) if t is not None and t.requires_grad]
