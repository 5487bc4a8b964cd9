"""Recurrent layers."""

from __future__ import annotations

import math

import numpy.typing as npt

import trine.functional as F
from trine import random
from trine.backends import Backend
from trine.joining import cat, stack
from trine.nn import init
from trine.nn.checks import require_positive, require_probability
from trine.nn.module import Module
from trine.nn.parameter import Parameter, new_parameter
from trine.tensor import Tensor

State = tuple[Tensor, Tensor]


class LSTM(Module):
    """Layers of long short-term memory over a sequence; see `trine.functional.lstm`.

    input: (T, N, input_size), or (N, T, input_size) with `batch_first`, or (T, input_size) for one
    sequence; returns (output, (h_n, c_n)) with output (T, N, D hidden_size), D = 2 if
    `bidirectional`, and h_n, c_n: (num_layers D, N, hidden_size). Parameters weight_ih_l0 (4H, I),
    weight_hh_l0 (4H, H), bias_ih_l0, bias_hh_l0 (4H,), ..., with "_reverse" for the second
    direction, rows in the order i, f, g, o, all from [-k, k) with k = 1 / sqrt(H), as in PyTorch.
    """

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
        require_positive(
            "LSTM", input_size=input_size, hidden_size=hidden_size, num_layers=num_layers
        )
        require_probability("LSTM", dropout)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.bidirectional = bidirectional
        rows = 4 * hidden_size
        for layer in range(num_layers):
            width = input_size if layer == 0 else hidden_size * self._directions
            for suffix in self._suffixes(layer):
                shapes = {"weight_ih": (rows, width), "weight_hh": (rows, hidden_size)}
                if bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}  # type: ignore[dict-item]
                for name, shape in shapes.items():
                    parameter = new_parameter(shape, dtype=dtype, backend=backend)
                    self.register_parameter(f"{name}_{suffix}", parameter)
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

    def forward(self, input: Tensor, hx: State | None = None) -> tuple[Tensor, State]:
        """Run the sequence through all layers; `hx` is (h_0, c_0), zeros for None."""
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            order = "(N, T, I)" if self.batch_first else "(T, N, I)"
            raise ValueError(
                f"[LSTM] expected input {order} or (T, I) with I = {self.input_size}, got shape "
                f"{input.shape}. Reshape it, or change input_size."
            )
        single = input.ndim == 2
        x = input.unsqueeze(1) if single else input
        if self.batch_first and not single:
            x = x.transpose(0, 1)
        start = self._start(hx, x.shape[1], single)
        h_last: list[Tensor] = []
        c_last: list[Tensor] = []
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                key = random.default_generator().key(self.stream("dropout"))
                x = F.dropout(x, self.dropout, True, key)
            outputs = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                place = layer * self._directions + direction
                state = None if start is None else (start[0][place], start[1][place])
                w_ih, w_hh, b_ih, b_hh = self._weights(suffix)
                assert w_ih is not None
                assert w_hh is not None
                sequence = x if direction == 0 else x[::-1]
                output, (h, c) = F.lstm(sequence, state, w_ih, w_hh, b_ih, b_hh)
                outputs.append(output if direction == 0 else output[::-1])
                h_last.append(h)
                c_last.append(c)
            x = outputs[0] if len(outputs) == 1 else cat(outputs, 2)
        h_n, c_n = stack(h_last), stack(c_last)
        if single:
            return x.squeeze(1), (h_n.squeeze(1), c_n.squeeze(1))
        return (x.transpose(0, 1) if self.batch_first else x), (h_n, c_n)

    def _start(self, hx: State | None, batch: int, single: bool) -> State | None:
        if hx is None:
            return None
        layers = self.num_layers * self._directions
        wanted = (layers, self.hidden_size) if single else (layers, batch, self.hidden_size)
        for name, tensor in zip(("h_0", "c_0"), hx, strict=True):
            if tensor.shape != wanted:
                raise ValueError(
                    f"[LSTM] expected {name} of shape {wanted}, got {tensor.shape}. Pass the state "
                    "that the layer returned, or None."
                )
        return (hx[0].unsqueeze(1), hx[1].unsqueeze(1)) if single else hx

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
