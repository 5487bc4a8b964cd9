"""Recurrent nets over a whole sequence, one layer in one direction."""

from __future__ import annotations

from typing import Any

from trine.autograd import apply, define
from trine.backends import Backend
from trine.dtypes import Array
from trine.functional.checks import require_float, require_like
from trine.joining import stack
from trine.tensor import Tensor

Saved = tuple[Any, ...]


def _lstm(be: Backend, x: Array, h0: Array, c0: Array, *params: Any) -> tuple[Saved, Saved]:
    h, c, gates = be.lstm(x, h0, c0, *params)
    w_ih, w_hh = params[:2]
    return (h, be.copy(c[-1])), (x, h0, c0, w_ih, w_hh, h, c, gates)


def _lstm_backward(be: Backend, saved: Saved, grads: Saved, needs: Saved) -> Saved:
    h = saved[5]
    grad_h = be.zeros(h.shape, h.dtype) if grads[0] is None else grads[0]
    grad_c = be.zeros(h.shape[1:], h.dtype) if grads[1] is None else grads[1]
    *others, grad_b = be.lstm_backward(grad_h, grad_c, *saved)
    return (*others, grad_b, grad_b)


def _lstm_composed(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> tuple[Tensor, Tensor]:
    units = h0.shape[1]
    h, c, outputs = h0, c0, []
    for t in range(x.shape[0]):
        z = x[t] @ w_ih.T + h @ w_hh.T
        for bias in (b_ih, b_hh):
            z = z if bias is None else z + bias
        i, f = z[:, :units].sigmoid(), z[:, units : 2 * units].sigmoid()
        g, o = z[:, 2 * units : 3 * units].tanh(), z[:, 3 * units :].sigmoid()
        c = f * c + i * g
        h = o * c.tanh()
        outputs.append(h)
    return stack(outputs), c


LSTM = define("lstm", _lstm, _lstm_backward, keeps=(0, 1, 2, 3, 4), composed=_lstm_composed)


def lstm(
    input: Tensor,
    hx: tuple[Tensor, Tensor] | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Long short-term memory over a sequence; returns (output, (h_n, c_n)).

        z_t = W_ih x_t + b_ih + W_hh h_(t-1) + b_hh, in four blocks of H rows for i, f, g, o
        i, f, o = logistic(z), g = tanh(z);  c_t = f c_(t-1) + i g;  h_t = o tanh(c_t)

    input: (T, N, I) with T >= 1; hx: (h_0, c_0), each (N, H), zeros for None; w_ih: (4H, I), w_hh:
    (4H, H), biases: (4H,) or None -> output: (T, N, H), h_n, c_n: (N, H). Raises ValueError for
    shapes that do not match, TypeError for other dtypes. Source: Hochreiter and Schmidhuber, 1997,
    with the forget gate of Gers et al., 2000.
    """
    op = "lstm"
    require_float(op, "input", input)
    if input.ndim != 3 or input.shape[0] == 0:
        raise ValueError(
            f"[{op}] expected input of shape (T, N, I) with T >= 1, got {input.shape}. Time comes "
            "first: transpose (N, T, I) with input.transpose(0, 1)."
        )
    require_float(op, "w_hh", w_hh)
    if w_hh.ndim != 2 or w_hh.shape[0] != 4 * w_hh.shape[1]:
        raise ValueError(
            f"[{op}] expected w_hh of shape (4H, H), got {w_hh.shape}. Stack the rows of the gates i, "
            "f, g, o."
        )
    rows, units = w_hh.shape
    _, batch, features = input.shape
    require_like(op, "w_ih", w_ih, (rows, features), input)
    require_like(op, "w_hh", w_hh, (rows, units), input)
    for name, bias in (("b_ih", b_ih), ("b_hh", b_hh)):
        if bias is not None:
            require_like(op, name, bias, (rows,), input)
    if hx is None:
        zeros = input.backend.zeros((batch, units), input.dtype)
        hx = Tensor._wrap(zeros, input.backend), Tensor._wrap(zeros, input.backend)
    h0, c0 = hx
    require_like(op, "h_0", h0, (batch, units), input)
    require_like(op, "c_0", c0, (batch, units), input)
    output, c_n = apply(LSTM, input, h0, c0, w_ih, w_hh, b_ih, b_hh)
    return output, (output[-1], c_n)
