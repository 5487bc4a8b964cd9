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
from trine.nn.running import running

Array = npt.NDArray[Any]

WEIGHTED = {"linear", "conv2d", "conv_transpose2d", "rnn", "lstm", "gru", "embedding"}
"""Ops with weights: each begins a layer."""
RECURRENT = {"rnn", "lstm", "gru"}
VIEWS = {"reshape", "transpose", "clone", "astype"}
"""Ops that hand on the same numbers; they are no parts."""
ACTIVATIONS = {"relu", "sigmoid", "tanh", "softplus", "softmax", "log_softmax"}
RECURRENT_ROLES = ("W_ih", "W_hh", "b_ih", "b_hh", "lengths")
AFFINE_ROLES = ("", "gamma", "beta")
ROLES = {
    "linear": ("", "W", "b"),
    "conv2d": ("", "W", "b"),
    "conv_transpose2d": ("", "W", "b"),
    "embedding": ("W", ""),
    "rnn": ("", "h", *RECURRENT_ROLES),
    "gru": ("", "h", *RECURRENT_ROLES),
    "lstm": ("", "h", "c", *RECURRENT_ROLES),
    "batch_norm": AFFINE_ROLES,
    "batch_norm_eval": (*AFFINE_ROLES, "mean", "var"),
    "layer_norm": AFFINE_ROLES,
    "group_norm": AFFINE_ROLES,
}
"""What the inputs of an op are for; parameters are called so, the layer's number to follow."""


@dataclass(frozen=True)
class Operand:
    """An input of an op: its symbol, its values, the parameter's path if it is one, what it is for."""

    symbol: str
    value: Array
    parameter: str | None = None
    role: str = ""


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
    batch: int = 1
    """Samples of the model's input."""

    @property
    def by_sample(self) -> bool:
        """Whether the output has an axis of samples; rows of all time steps, say, are none."""
        axis = 1 if self.op in RECURRENT else 0  # (T, N, H)
        return self.output.ndim > axis and self.output.shape[axis] == self.batch

    def of(self, array: Array, sample: int) -> Array:
        """Return one sample's share of the output or of something of its shape, else all of it."""
        if not self.by_sample:
            return array
        return np.asarray(array[:, sample] if self.op in RECURRENT else array[sample])

    @property
    def parameters(self) -> list[Operand]:
        """The inputs that are learned."""
        return [operand for operand in self.inputs if operand.parameter is not None]


@dataclass
class Anatomy:
    """A forward and a backward pass of a model on one batch."""

    parts: list[Part]
    input: Array
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
        self.batch = x.shape[0] if x.ndim else 1
        self.stack: list[str] = []
        self.seen: list[tuple[Part, list[trine.Tensor]]] = []
        self.held: list[Any] = []
        self.symbols = {id(x): "a0"}
        if target is not None:
            self.symbols[id(target)] = "t"
        self.paths = {id(p): path for path, p in model.named_parameters()}
        self.taken = set(self.symbols.values())
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
        if op.name in VIEWS and operands[0].parameter is not None:
            self.paths[id(result)] = operands[0].parameter  # a norm takes its weights as one row
            return
        self.symbols[id(result)] = symbol
        if op.name in VIEWS:
            return
        if op.name in RECURRENT:
            for state, last in zip("hc", results[1:], strict=False):
                self.symbols[id(last)] = f"{state}{self.layer}_T"
        for one in results:
            if one.requires_grad:
                one.retain_grad()
        path = self.stack[-1] if self.stack else ""
        output = np.array(result.detach().numpy())
        part = Part(
            self.layer, path, op.name, dict(attrs), operands, symbol, output, batch=self.batch
        )
        self.seen.append((part, results))

    def _operand(self, op: str, place: int, tensor: trine.Tensor) -> Operand:
        path = self.paths.get(id(tensor))
        roles = ROLES.get(op, ())
        role = roles[place] if place < len(roles) else ""
        value = np.array(tensor.detach().numpy())
        if path is not None and role:
            wanted = f"{role}{self.layer}"
            symbol = self.symbols.setdefault(id(tensor), path if wanted in self.taken else wanted)
            self.taken.add(symbol)
        else:
            plain = f"{value.item():.6g}" if value.size == 1 else role or "const"
            symbol = self.symbols.get(id(tensor)) or path or plain
        return Operand(symbol, value, path, role)

    def _symbol(self, op: str, attrs: Mapping[str, Any], operands: list[Operand]) -> str:
        first = operands[0].symbol if operands else "const"
        if op in VIEWS:
            return first
        fused = attrs.get("activation", "none") != "none"
        of = first[1:] if first[0] in "azp" and first[1:].isdigit() else self.layer
        wanted = ""
        if op in WEIGHTED:
            plain = op in ("linear", "conv2d", "conv_transpose2d") and not fused
            wanted = f"z{self.layer}" if plain else f"a{self.layer}"
        elif op in ACTIVATIONS:
            wanted = f"a{of}"
        elif "pool2d" in op:
            wanted = f"p{of}"
        if not wanted or wanted in self.taken:  # such as the second pool of a layer
            self.others += 1
            wanted = f"y{self.others}"
        self.taken.add(wanted)
        return wanted


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
    training = model.training
    model.eval()
    model.zero_grad()
    cost = None
    try:
        with running(model) as watcher.stack, autograd.watching(watcher):
            output = model(x)
            if target is not None and loss is not None:
                cost = loss(output, target)
    finally:
        model.train(training)
    if cost is not None:
        cost.backward()
        if watcher.seen:
            watcher.seen[-1][0].symbol = "C"
    for part, results in watcher.seen:
        part.delta, *part.last_deltas = [
            None if one.grad is None else np.array(one.grad.numpy()) for one in results
        ]
    if cost is not None:  # what does not lead to the cost, such as unused last states, is no part
        watcher.seen = [
            (part, results) for part, results in watcher.seen
            if part.delta is not None or not results[0].requires_grad
        ]  # fmt: skip
    named = dict(model.named_parameters())
    first = output[0] if isinstance(output, tuple) else output
    return Anatomy(
        [part for part, _ in watcher.seen],
        np.array(x.detach().numpy()),
        None if cost is None else cost.item(),
        values(first),
        None if target is None else np.array(target.numpy()),
        {path: values(p) for path, p in named.items()},
        {path: values(p.grad) for path, p in named.items() if p.grad is not None},
        rate,
    )
