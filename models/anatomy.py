"""What a model does with an input, op by op: the tape's record as arrays with the names of formulas.

The forward pass is watched while the tape records it, so whatever a model calls is seen, layer or
function, and a fused op shows as one. Names count the layers that have parameters: a0 is the input,
z1 = W1 a0 + b1 the first weighted input, a1 = act(z1) its output, d(...) the derivative of the cost C.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

import trine
from trine import autograd, nn
from trine.dtypes import is_float
from trine.models.desk import values

Array = npt.NDArray[Any]

WEIGHTED = {"linear", "conv2d", "conv_transpose2d", "rnn", "lstm", "gru", "embedding"}
"""Ops with weights: each begins a layer."""
RECURRENT = {"rnn", "lstm", "gru"}
VIEWS = {"reshape", "transpose", "clone", "astype"}
"""Ops that hand on the same numbers; they are no parts."""
ACTIVATIONS = {"relu", "sigmoid", "tanh", "softplus", "softmax", "log_softmax"}
ROLES = {
    "linear": ("", "W", "b"),
    "conv2d": ("", "W", "b"),
    "conv_transpose2d": ("", "W", "b"),
    "embedding": ("", "W"),
    "rnn": ("", "h", "W_ih", "W_hh", "b_ih", "b_hh"),
    "gru": ("", "h", "W_ih", "W_hh", "b_ih", "b_hh"),
    "lstm": ("", "h", "c", "W_ih", "W_hh", "b_ih", "b_hh"),
}
"""What the inputs of an op with weights are called, the layer's number to follow."""


@dataclass(frozen=True)
class Operand:
    """An input of an op: its symbol, its values, and the parameter's path if it is one."""

    symbol: str
    value: Array
    parameter: str | None = None


@dataclass
class Part:
    """One op: what went in, what came out, and the derivative of the cost by what came out."""

    layer: int
    """The number of the layer with weights to which it belongs; 0 before the first."""
    path: str
    """The module in which it ran, with its kind."""
    op: str
    attrs: Mapping[str, Any]
    inputs: list[Operand]
    symbol: str
    output: Array
    delta: Array | None = None
    last_deltas: list[Array | None] = field(default_factory=list)
    """dC/d of the op's further outputs, such as the last states of an LSTM."""

    def of(self, array: Array, sample: int) -> Array:
        """Return one sample's share of the output or of something of its shape."""
        if self.op in RECURRENT:  # (T, N, H)
            return np.asarray(array[:, sample])
        return np.asarray(array[sample])

    def has(self, sample: int) -> bool:
        """Return whether the output has samples, and so many."""
        axis = 1 if self.op in RECURRENT else 0
        return self.output.ndim > axis and sample < self.output.shape[axis]

    @property
    def parameters(self) -> list[Operand]:
        """The inputs that are learned."""
        return [operand for operand in self.inputs if operand.parameter is not None]


@dataclass
class Anatomy:
    """A forward and a backward pass of a model on one batch."""

    parts: list[Part]
    cost: float | None
    output: Array
    target: Array | None
    weights: dict[str, Array]
    """Every parameter's values, by path."""
    grads: dict[str, Array] = field(default_factory=dict)
    rate: float | None = None
    """eta of the step that `updated` shows."""

    def updated(self, path: str) -> Array | None:
        """Return a parameter after one step of gradient descent: W - eta dC/dW."""
        if self.rate is None or path not in self.grads:
            return None
        return self.weights[path] - self.rate * self.grads[path]


class _Watcher:
    """Collects ops while a model runs; keeps their tensors, so that identities stay theirs."""

    def __init__(self, model: nn.Module, x: trine.Tensor, target: trine.Tensor | None) -> None:
        self.model = model
        self.stack: list[str] = []
        self.seen: list[tuple[Part, list[trine.Tensor]]] = []
        self.held: list[Any] = []
        self.symbols = {id(x): "a0"}
        if target is not None:
            self.symbols[id(target)] = "t"
        self.paths = {id(p): path for path, p in model.named_parameters()}
        self.layer = 0
        self.others = 0

    def __call__(
        self, op: Any, inputs: tuple[Any, ...], attrs: Any, results: list[trine.Tensor]
    ) -> None:
        result = results[0]
        if op.name in WEIGHTED:
            self.layer += 1
        operands = [
            self._operand(op.name, place, tensor)
            for place, tensor in enumerate(inputs)
            if tensor is not None
        ]
        symbol = self._symbol(op.name, attrs, operands)
        self.held.extend((*inputs, *results))
        self.symbols[id(result)] = symbol
        if op.name in VIEWS:
            return
        for one in results:
            if one.requires_grad:
                one.retain_grad()
        path = self.stack[-1] if self.stack else ""
        output = np.array(result.detach().numpy())
        part = Part(self.layer, path, op.name, dict(attrs), operands, symbol, output)
        self.seen.append((part, results))

    def _operand(self, op: str, place: int, tensor: trine.Tensor) -> Operand:
        path = self.paths.get(id(tensor))
        roles = ROLES.get(op, ())
        if path is not None and place < len(roles):
            symbol = f"{roles[place]}{self.layer}"
            self.symbols.setdefault(id(tensor), symbol)
        else:
            symbol = self.symbols.get(id(tensor)) or path or "const"
        return Operand(symbol, np.array(tensor.detach().numpy()), path)

    def _symbol(self, op: str, attrs: Mapping[str, Any], operands: list[Operand]) -> str:
        fused = attrs.get("activation", "none") != "none"
        if op in WEIGHTED:
            plain = op in ("linear", "conv2d", "conv_transpose2d") and not fused
            return f"z{self.layer}" if plain else f"a{self.layer}"
        first = operands[0].symbol if operands else ""
        if op in ACTIVATIONS and first == f"z{self.layer}":
            return f"a{self.layer}"
        if op in VIEWS:
            return first
        if "pool2d" in op:
            return f"p{self.layer}"
        self.others += 1
        return f"y{self.others}"


def _enter(watcher: _Watcher, path: str, module: nn.Module) -> tuple[Any, Any]:
    label = f"{path} ({type(module).__name__})" if path else type(module).__name__

    def before(module: nn.Module, args: Any) -> None:
        watcher.stack.append(label)

    def after(module: nn.Module, args: Any, result: Any) -> None:
        watcher.stack.pop()

    return module.register_forward_pre_hook(before), module.register_forward_hook(after)


def record(
    model: nn.Module,
    x: trine.Tensor,
    target: trine.Tensor | None = None,
    *,
    loss: Callable[..., trine.Tensor] | None = None,
    rate: float | None = None,
) -> Anatomy:
    """Run a model on a batch, and back from loss(output, target), and return all that happened.

    The model is in evaluation mode meanwhile; gradients that its parameters had are replaced.
    `rate` is the eta of the step of gradient descent that the result can show.
    """
    if is_float(x.dtype):  # so that what happens to the input itself is on the tape as well
        x = x.detach().requires_grad_()
    watcher = _Watcher(model, x, target)
    handles = [
        handle for path, module in model.named_modules() for handle in _enter(watcher, path, module)
    ]
    training = model.training
    model.eval()
    model.zero_grad()
    cost = None
    try:
        with autograd.watching(watcher):
            output = model(x)
            if target is not None and loss is not None:
                cost = loss(output, target)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    if cost is not None:
        cost.backward()
        if watcher.seen:
            watcher.seen[-1][0].symbol = "C"
    for part, results in watcher.seen:
        part.delta, *part.last_deltas = [
            None if one.grad is None else np.array(one.grad.numpy()) for one in results
        ]
    named = dict(model.named_parameters())
    first = output[0] if isinstance(output, tuple) else output
    return Anatomy(
        [part for part, _ in watcher.seen],
        None if cost is None else cost.item(),
        values(first),
        None if target is None else np.array(target.numpy()),
        {path: values(p) for path, p in named.items()},
        {path: values(p.grad) for path, p in named.items() if p.grad is not None},
        rate,
    )
