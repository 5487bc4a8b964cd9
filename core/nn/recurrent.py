"""Recurrent layers over sequences: the plain one, the GRU and the LSTM, stacked and in both ways."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy.typing as npt

import trine.functional as F
from trine import random
from trine.backends import Backend
from trine.errors import suggest
from trine.functional.recurrent import NONLINEARITIES, as_lengths
from trine.joining import cat, stack
from trine.nn import init
from trine.nn.checks import require_positive, require_probability
from trine.nn.module import Module
from trine.nn.parameter import Parameter, new_parameter
from trine.tensor import Tensor

State = tuple[Tensor, Tensor]
States = tuple[Tensor, ...]
Lengths = Tensor | Sequence[int] | None


class Recurrent(Module):
    """What the recurrent layers share: parameters, directions, layouts, dropout between layers."""

    blocks: ClassVar[int]
    """Blocks of hidden_size rows in the weights."""
    states: ClassVar[tuple[str, ...]] = ("h_0",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: npt.DTypeLike | None = None,
        backend: str | Backend | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        require_positive(
            name, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers
        )
        require_probability(name, dropout)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.bidirectional = bidirectional
        rows = self.blocks * hidden_size
        for layer in range(num_layers):
            width = input_size if layer == 0 else hidden_size * self._directions
            for suffix in self._suffixes(layer):
                shapes: dict[str, tuple[int, ...]] = {
                    "weight_ih": (rows, width),
                    "weight_hh": (rows, hidden_size),
                }
                if bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                for kind, shape in shapes.items():
                    parameter = new_parameter(shape, dtype=dtype, backend=backend)
                    self.register_parameter(f"{kind}_{suffix}", parameter)
        self.reset_parameters()

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _suffixes(self, layer: int) -> tuple[str, ...]:
        return (f"l{layer}", f"l{layer}_reverse")[: self._directions]

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _weights(self, suffix: str) -> tuple[Parameter | None, ...]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return tuple(self._parameters.get(f"{name}_{suffix}") for name in names)

    def _run(
        self, x: Tensor, start: States | None, weights: tuple[Any, ...], **options: Any
    ) -> tuple[Tensor, States]:
        """Run one layer in one direction: the outputs and the last states."""
        raise NotImplementedError

    def _layers(self, input: Tensor, hx: States | None, lengths: Lengths) -> tuple[Tensor, States]:
        """Run the sequence through all layers."""
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            order = "(N, T, I)" if self.batch_first else "(T, N, I)"
            raise ValueError(
                f"[{type(self).__name__}] expected input {order} or (T, I) with I = "
                f"{self.input_size}, got shape {input.shape}. Reshape it, or change input_size."
            )
        single = input.ndim == 2
        x = input.unsqueeze(1) if single else input
        if self.batch_first and not single:
            x = x.transpose(0, 1)
        start = self._start(hx, x.shape[1], single)
        ends = as_lengths(type(self).__name__, lengths, x)
        last: list[States] = []
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                key = random.default_generator().key(self.stream("dropout"))
                x = F.dropout(x, self.dropout, True, key)
            outputs = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                place = layer * self._directions + direction
                state = None if start is None else tuple(s[place] for s in start)
                output, found = self._run(
                    x, state, self._weights(suffix), lengths=ends, reverse=direction == 1
                )
                outputs.append(output)
                last.append(found)
            x = outputs[0] if len(outputs) == 1 else cat(outputs, 2)
        states = tuple(stack(tensors) for tensors in zip(*last, strict=True))
        if single:
            return x.squeeze(1), tuple(s.squeeze(1) for s in states)
        return (x.transpose(0, 1) if self.batch_first else x), states

    def _start(self, hx: States | None, batch: int, single: bool) -> States | None:
        if hx is None:
            return None
        layers = self.num_layers * self._directions
        wanted = (layers, self.hidden_size) if single else (layers, batch, self.hidden_size)
        for name, tensor in zip(self.states, hx, strict=True):
            if tensor.shape != wanted:
                raise ValueError(
                    f"[{type(self).__name__}] expected {name} of shape {wanted}, got "
                    f"{tensor.shape}. Pass the state that the layer returned, or None."
                )
        return tuple(s.unsqueeze(1) for s in hx) if single else hx

    def extra_repr(self) -> str:
        """Sizes and whatever differs from the defaults."""
        text = f"{self.input_size}, {self.hidden_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if not self.bias:
            text += ", bias=False"
        if self.batch_first:
            text += ", batch_first=True"
        if self.dropout:
            text += f", dropout={self.dropout}"
        return text + (", bidirectional=True" if self.bidirectional else "")


class RNN(Recurrent):
    """Layers of plain recurrent nets over a sequence; see `trine.functional.rnn`.

    input: (T, N, input_size), or (N, T, input_size) with `batch_first`, or (T, input_size) for one
    sequence; returns (output, h_n) with output (T, N, D hidden_size), D = 2 if `bidirectional`, and
    h_n: (num_layers D, N, hidden_size). Parameters weight_ih_l0 (H, I), weight_hh_l0 (H, H),
    bias_ih_l0, bias_hh_l0 (H,), ..., with "_reverse" for the second direction, all from [-k, k)
    with k = 1 / sqrt(H), as in PyTorch.
    """

    blocks = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: npt.DTypeLike | None = None,
        backend: str | Backend | None = None,
    ) -> None:
        if nonlinearity not in NONLINEARITIES:
            raise suggest("RNN", "nonlinearity", str(nonlinearity), NONLINEARITIES)
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            dtype=dtype, backend=backend,
        )  # fmt: skip
        self.nonlinearity = nonlinearity

    def _run(
        self, x: Tensor, start: States | None, weights: tuple[Any, ...], **options: Any
    ) -> tuple[Tensor, States]:
        h_0 = None if start is None else start[0]
        output, h_n = F.rnn(x, h_0, *weights, nonlinearity=self.nonlinearity, **options)
        return output, (h_n,)

    def forward(
        self, input: Tensor, hx: Tensor | None = None, lengths: Lengths = None
    ) -> tuple[Tensor, Tensor]:
        """Run the sequence through all layers; `hx` is h_0, zeros for None.

        `lengths` (N,) ends padded sequences earlier, as PyTorch's packed sequences do.
        """
        output, (h_n,) = self._layers(input, None if hx is None else (hx,), lengths)
        return output, h_n


class GRU(Recurrent):
    """Layers of gated recurrent units over a sequence; see `trine.functional.gru`.

    Shapes and names as in `RNN`, with 3H rows in the order r, z, n in weight_ih_l0 (3H, I),
    weight_hh_l0 (3H, H), bias_ih_l0 and bias_hh_l0 (3H,).
    """

    blocks = 3

    def _run(
        self, x: Tensor, start: States | None, weights: tuple[Any, ...], **options: Any
    ) -> tuple[Tensor, States]:
        output, h_n = F.gru(x, None if start is None else start[0], *weights, **options)
        return output, (h_n,)

    def forward(
        self, input: Tensor, hx: Tensor | None = None, lengths: Lengths = None
    ) -> tuple[Tensor, Tensor]:
        """Run the sequence through all layers; `hx` is h_0, zeros for None.

        `lengths` (N,) ends padded sequences earlier, as PyTorch's packed sequences do.
        """
        output, (h_n,) = self._layers(input, None if hx is None else (hx,), lengths)
        return output, h_n


class LSTM(Recurrent):
    """Layers of long short-term memory over a sequence; see `trine.functional.lstm`.

    input: (T, N, input_size), or (N, T, input_size) with `batch_first`, or (T, input_size) for one
    sequence; returns (output, (h_n, c_n)) with output (T, N, D hidden_size), D = 2 if
    `bidirectional`, and h_n, c_n: (num_layers D, N, hidden_size). Parameters weight_ih_l0 (4H, I),
    weight_hh_l0 (4H, H), bias_ih_l0, bias_hh_l0 (4H,), ..., with "_reverse" for the second
    direction, rows in the order i, f, g, o, all from [-k, k) with k = 1 / sqrt(H), as in PyTorch.
    """

    blocks = 4
    states = ("h_0", "c_0")

    def _run(
        self, x: Tensor, start: States | None, weights: tuple[Any, ...], **options: Any
    ) -> tuple[Tensor, States]:
        state = None if start is None else (start[0], start[1])
        return F.lstm(x, state, *weights, **options)

    def forward(
        self, input: Tensor, hx: State | None = None, lengths: Lengths = None
    ) -> tuple[Tensor, State]:
        """Run the sequence through all layers; `hx` is (h_0, c_0), zeros for None.

        `lengths` (N,) ends padded sequences earlier, as PyTorch's packed sequences do.
        """
        output, (h_n, c_n) = self._layers(input, hx, lengths)
        return output, (h_n, c_n)
