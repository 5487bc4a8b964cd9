"""One step of a recurrent net as a layer: the op over a sequence of length 1."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy.typing as npt

import trine.functional as F
from trine.backends import Backend
from trine.errors import suggest
from trine.functional.recurrent import NONLINEARITIES
from trine.nn import init
from trine.nn.checks import require_positive
from trine.nn.module import Module
from trine.nn.parameter import Parameter, new_parameter
from trine.nn.recurrent import State, States
from trine.tensor import Tensor


class Cell(Module):
    """What the cells share: parameters, and inputs with or without a batch."""

    blocks: ClassVar[int]
    states: ClassVar[tuple[str, ...]] = ("h_0",)
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike | None = None,
        backend: str | Backend | None = None,
    ) -> None:
        super().__init__()
        require_positive(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows = self.blocks * hidden_size
        self.weight_ih = new_parameter((rows, input_size), dtype=dtype, backend=backend)
        self.weight_hh = new_parameter((rows, hidden_size), dtype=dtype, backend=backend)
        for name in ("bias_ih", "bias_hh"):
            one = new_parameter((rows,), dtype=dtype, backend=backend) if bias else None
            self.register_parameter(name, one)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew, from [-k, k) with k = 1 / sqrt(H)."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _run(self, x: Tensor, states: States | None) -> States:
        """Run one step on (1, N, I); returns the new states."""
        raise NotImplementedError

    def _step(self, input: Tensor, hx: States | None) -> States:
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise ValueError(
                f"[{type(self).__name__}] expected input (N, I) or (I,) with I = "
                f"{self.input_size}, got shape {input.shape}. Pass one step of the sequence."
            )
        single = input.ndim == 1
        for name, state in zip(self.states, hx or (), strict=hx is not None):
            wanted = (*input.shape[:-1], self.hidden_size)
            if state.shape != wanted:
                raise ValueError(
                    f"[{type(self).__name__}] expected {name} of shape {wanted}, got "
                    f"{state.shape}. Pass the state that the cell returned, or None."
                )
        x = input.reshape(1, -1, self.input_size)
        if hx is not None and single:
            hx = tuple(s.unsqueeze(0) for s in hx)
        found = self._run(x, hx)
        return tuple(s.squeeze(0) for s in found) if single else found

    def extra_repr(self) -> str:
        """Sizes and whatever differs from the defaults."""
        text = f"{self.input_size}, {self.hidden_size}"
        return text if self.bias else f"{text}, bias=False"


class RNNCell(Cell):
    """h' = act(W_ih x + b_ih + W_hh h + b_hh); see `trine.functional.rnn`.

    input: (N, input_size) or (input_size,), hx: (N, hidden_size), zeros for None -> h' like hx.
    Parameters weight_ih (H, I), weight_hh (H, H), bias_ih, bias_hh (H,).
    """

    blocks = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        dtype: npt.DTypeLike | None = None,
        backend: str | Backend | None = None,
    ) -> None:
        if nonlinearity not in NONLINEARITIES:
            raise suggest("RNNCell", "nonlinearity", str(nonlinearity), NONLINEARITIES)
        super().__init__(input_size, hidden_size, bias, dtype=dtype, backend=backend)
        self.nonlinearity = nonlinearity

    def _run(self, x: Tensor, states: States | None) -> States:
        h_0 = None if states is None else states[0]
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return (F.rnn(x, h_0, *weights, nonlinearity=self.nonlinearity)[1],)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Return the next hidden state."""
        return self._step(input, None if hx is None else (hx,))[0]

    def extra_repr(self) -> str:
        """Sizes and whatever differs from the defaults."""
        text = super().extra_repr()
        return text if self.nonlinearity == "tanh" else f"{text}, nonlinearity={self.nonlinearity}"


class GRUCell(Cell):
    """One step of gated recurrent units; see `trine.functional.gru`.

    input: (N, input_size) or (input_size,), hx: (N, hidden_size), zeros for None -> h' like hx.
    Parameters weight_ih (3H, I), weight_hh (3H, H), bias_ih, bias_hh (3H,), rows r, z, n.
    """

    blocks = 3

    def _run(self, x: Tensor, states: States | None) -> States:
        h_0 = None if states is None else states[0]
        return (F.gru(x, h_0, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)[1],)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Return the next hidden state."""
        return self._step(input, None if hx is None else (hx,))[0]


class LSTMCell(Cell):
    """One step of long short-term memory; see `trine.functional.lstm`.

    input: (N, input_size) or (input_size,), hx: (h, c), each (N, hidden_size), zeros for None ->
    (h', c'). Parameters weight_ih (4H, I), weight_hh (4H, H), bias_ih, bias_hh (4H,), rows in the
    order i, f, g, o.
    """

    blocks = 4
    states = ("h_0", "c_0")

    def _run(self, x: Tensor, states: States | None) -> States:
        start = None if states is None else (states[0], states[1])
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return F.lstm(x, start, *weights)[1]

    def forward(self, input: Tensor, hx: State | None = None) -> State:
        """Return the next hidden and cell state."""
        h, c = self._step(input, hx)
        return h, c
