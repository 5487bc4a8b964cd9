"""Recurrent nets over a whole sequence, one layer in one direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trine.autograd import apply, define
from trine.backends import Backend
from trine.creation import tensor
from trine.dtypes import Array, int64
from trine.errors import suggest
from trine.functional.checks import check_values, require_float, require_like
from trine.joining import stack, where
from trine.tensor import Tensor

Saved = tuple[Any, ...]
Step = Callable[..., tuple[Tensor, ...]]

NONLINEARITIES = ("tanh", "relu")


def _or_zeros(be: Backend, grads: Saved, out: Array, states: int) -> list[Array]:
    """Return the gradients of the output and the last states, zeros for those that nobody used."""
    shapes = [out.shape, *[out.shape[1:]] * states]
    return [
        be.zeros(shape, out.dtype) if grad is None else grad
        for grad, shape in zip(grads, shapes, strict=True)
    ]


def _rnn(
    be: Backend, x: Array, h0: Array, w_ih: Array, w_hh: Array, *rest: Any, **attrs: Any
) -> Any:
    out, h_n = be.rnn(x, h0, w_ih, w_hh, *rest, **attrs)
    return (out, h_n), (x, h0, w_ih, w_hh, out, rest[-1])


def _rnn_backward(be: Backend, saved: Saved, grads: Saved, needs: Saved, **attrs: Any) -> Saved:
    grads = tuple(_or_zeros(be, grads, saved[4], 1))
    *others, grad_b = be.rnn_backward(*grads, *saved, input_grad=needs[0], **attrs)
    return (*others, grad_b, grad_b, None)


def _gru(
    be: Backend, x: Array, h0: Array, w_ih: Array, w_hh: Array, *rest: Any, **attrs: Any
) -> Any:
    out, h_n, gates = be.gru(x, h0, w_ih, w_hh, *rest, **attrs)
    return (out, h_n), (x, h0, w_ih, w_hh, out, gates, rest[-1])


def _gru_backward(be: Backend, saved: Saved, grads: Saved, needs: Saved, **attrs: Any) -> Saved:
    grads = tuple(_or_zeros(be, grads, saved[4], 1))
    return (*be.gru_backward(*grads, *saved, input_grad=needs[0], **attrs), None)


def _lstm(
    be: Backend, x: Array, h0: Array, c0: Array, w_ih: Array, w_hh: Array, *rest: Any, **attrs: Any
) -> Any:
    out, h_n, c_n, c, gates = be.lstm(x, h0, c0, w_ih, w_hh, *rest, **attrs)
    return (out, h_n, c_n), (x, h0, c0, w_ih, w_hh, out, c, gates, rest[-1])


def _lstm_backward(be: Backend, saved: Saved, grads: Saved, needs: Saved, **attrs: Any) -> Saved:
    grads = tuple(_or_zeros(be, grads, saved[5], 2))
    *others, grad_b = be.lstm_backward(*grads, *saved, input_grad=needs[0], **attrs)
    return (*others, grad_b, grad_b, None)


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    z: Tensor = x @ weight.T
    return z if bias is None else z + bias


def _unrolled(
    step: Step, x: Tensor, states: tuple[Tensor, ...], lengths: Tensor | None, reverse: bool
) -> tuple[Tensor, ...]:
    """Run `step(x_t, *states) -> states` over time; returns the outputs and the last states."""
    steps = x.shape[0]
    outputs: list[Tensor] = []
    for t in range(steps - 1, -1, -1) if reverse else range(steps):
        if lengths is None:
            states = step(x[t], *states)
            outputs.append(states[0])
        else:
            alive = (lengths > t).reshape(x.shape[1], 1)
            new = step(where(alive, x[t], 0.0), *states)
            states = tuple(where(alive, a, b) for a, b in zip(new, states, strict=True))
            outputs.append(where(alive, new[0], 0.0))
    return stack(outputs[::-1] if reverse else outputs), *states


def _rnn_composed(
    x: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
    lengths: Tensor | None, *, nonlinearity: str, reverse: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    def step(x_t: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        z = _affine(x_t, w_ih, b_ih) + _affine(h, w_hh, b_hh)
        return (z.tanh() if nonlinearity == "tanh" else z.relu(),)

    return _unrolled(step, x, (h0,), lengths, reverse)


def _gru_composed(
    x: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
    lengths: Tensor | None, *, reverse: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    units = h0.shape[1]

    def step(x_t: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        z_x, z_h = _affine(x_t, w_ih, b_ih), _affine(h, w_hh, b_hh)
        r = (z_x[:, :units] + z_h[:, :units]).sigmoid()
        z = (z_x[:, units : 2 * units] + z_h[:, units : 2 * units]).sigmoid()
        n = (z_x[:, 2 * units :] + r * z_h[:, 2 * units :]).tanh()
        return ((1.0 - z) * n + z * h,)

    return _unrolled(step, x, (h0,), lengths, reverse)


def _lstm_composed(
    x: Tensor, h0: Tensor, c0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None,
    b_hh: Tensor | None, lengths: Tensor | None, *, reverse: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    units = h0.shape[1]

    def step(x_t: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        z = _affine(x_t, w_ih, b_ih) + _affine(h, w_hh, b_hh)
        i, f = z[:, :units].sigmoid(), z[:, units : 2 * units].sigmoid()
        g, o = z[:, 2 * units : 3 * units].tanh(), z[:, 3 * units :].sigmoid()
        c = f * c + i * g
        return o * c.tanh(), c

    return _unrolled(step, x, (h0, c0), lengths, reverse)


RNN = define("rnn", _rnn, _rnn_backward, keeps=(0, 1, 2, 3, 6), composed=_rnn_composed)
GRU = define("gru", _gru, _gru_backward, keeps=(0, 1, 2, 3, 6), composed=_gru_composed)
LSTM = define("lstm", _lstm, _lstm_backward, keeps=(0, 1, 2, 3, 4, 7), composed=_lstm_composed)

GATES = {"rnn": "one block", "gru": "the gates r, z, n", "lstm": "the gates i, f, g, o"}


def _check(
    op: str, blocks: int, input: Tensor, states: tuple[Tensor | None, ...], w_ih: Tensor,
    w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Check shapes and dtypes; returns the states, zeros for None."""
    require_float(op, "input", input)
    if input.ndim != 3 or input.shape[0] == 0:
        raise ValueError(
            f"[{op}] expected input of shape (T, N, I) with T >= 1, got {input.shape}. Time comes "
            "first: transpose (N, T, I) with input.transpose(0, 1)."
        )
    require_float(op, "w_hh", w_hh)
    if w_hh.ndim != 2 or w_hh.shape[0] != blocks * w_hh.shape[1]:
        wanted = "(H, H)" if blocks == 1 else f"({blocks}H, H)"
        raise ValueError(
            f"[{op}] expected w_hh of shape {wanted}, got {w_hh.shape}. Stack the rows of "
            f"{GATES[op]}."
        )
    rows, units = w_hh.shape
    _, batch, features = input.shape
    require_like(op, "w_ih", w_ih, (rows, features), input)
    require_like(op, "w_hh", w_hh, (rows, units), input)
    for name, bias in (("b_ih", b_ih), ("b_hh", b_hh)):
        if bias is not None:
            require_like(op, name, bias, (rows,), input)
    found = []
    for name, state in zip(("h_0", "c_0"), states, strict=False):
        if state is None:
            zeros = input.backend.zeros((batch, units), input.dtype)
            found.append(Tensor._wrap(zeros, input.backend))
        else:
            require_like(op, name, state, (batch, units), input)
            found.append(state)
    return tuple(found)


def as_lengths(op: str, lengths: Tensor | Sequence[int] | None, input: Tensor) -> Tensor | None:
    """Return the lengths of (T, N, I) as int64 beside it; values are checked where that is free."""
    if lengths is None:
        return None
    steps, batch = input.shape[:2]
    if not isinstance(lengths, Tensor):
        lengths = tensor(lengths, int64, backend="numpy")
    if lengths.shape != (batch,) or lengths.dtype.kind != "i":
        raise ValueError(
            f"[{op}] expected lengths as {batch} whole numbers, one a sequence, got "
            f"{lengths.dtype.name} {lengths.shape}. Pass as many as the batch has sequences."
        )
    values = lengths.data

    def check() -> None:
        if values.min() < 1 or values.max() > steps:
            raise ValueError(
                f"[{op}] expected lengths from 1 to T = {steps}, got {values.min()} to "
                f"{values.max()}. Pad the input, or leave empty sequences out."
            )

    check_values(lengths, check)
    return lengths.astype(int64).to(input.backend.name)


def rnn(
    input: Tensor,
    hx: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: Tensor | Sequence[int] | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Plain recurrent net over a sequence; returns (output, h_n).

        h_t = act(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh),  act tanh or ReLU

    input: (T, N, I) with T >= 1; hx: (N, H), zeros for None; w_ih: (H, I), w_hh: (H, H), biases:
    (H,) or None -> output: (T, N, H), h_n: (N, H). `lengths` (N,), from 1 to T, ends sequences
    earlier: beyond them the output is zero and h_n is the state at the own last step. `reverse`
    runs from the last step, each sequence's own, to the first. Raises ValueError for shapes and
    names that do not match, TypeError for other dtypes. Source: Elman, 1990.
    """
    if nonlinearity not in NONLINEARITIES:
        raise suggest("rnn", "nonlinearity", str(nonlinearity), NONLINEARITIES)
    (h0,) = _check("rnn", 1, input, (hx,), w_ih, w_hh, b_ih, b_hh)
    ends = as_lengths("rnn", lengths, input)
    result: tuple[Tensor, Tensor] = apply(
        RNN, input, h0, w_ih, w_hh, b_ih, b_hh, ends, nonlinearity=nonlinearity, reverse=reverse
    )
    return result


def gru(
    input: Tensor,
    hx: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    lengths: Tensor | Sequence[int] | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Gated recurrent units over a sequence; returns (output, h_n).

        r, z = logistic(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), each on its block of H rows
        n = tanh(W_in x_t + b_in + r (W_hn h_(t-1) + b_hn));  h_t = (1 - z) n + z h_(t-1)

    input: (T, N, I) with T >= 1; hx: (N, H), zeros for None; w_ih: (3H, I), w_hh: (3H, H), biases:
    (3H,) or None, rows in the order r, z, n -> output: (T, N, H), h_n: (N, H). `lengths` and
    `reverse` as in `rnn`. Raises ValueError for shapes that do not match, TypeError for other
    dtypes. Source: Cho et al., 2014, in PyTorch's form, where r acts after the product.
    """
    (h0,) = _check("gru", 3, input, (hx,), w_ih, w_hh, b_ih, b_hh)
    ends = as_lengths("gru", lengths, input)
    result: tuple[Tensor, Tensor] = apply(
        GRU, input, h0, w_ih, w_hh, b_ih, b_hh, ends, reverse=reverse
    )
    return result


def lstm(
    input: Tensor,
    hx: tuple[Tensor, Tensor] | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    lengths: Tensor | Sequence[int] | None = None,
    reverse: bool = False,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Long short-term memory over a sequence; returns (output, (h_n, c_n)).

        z_t = W_ih x_t + b_ih + W_hh h_(t-1) + b_hh, in four blocks of H rows for i, f, g, o
        i, f, o = logistic(z), g = tanh(z);  c_t = f c_(t-1) + i g;  h_t = o tanh(c_t)

    input: (T, N, I) with T >= 1; hx: (h_0, c_0), each (N, H), zeros for None; w_ih: (4H, I), w_hh:
    (4H, H), biases: (4H,) or None -> output: (T, N, H), h_n, c_n: (N, H). `lengths` and `reverse`
    as in `rnn`. Raises ValueError for shapes that do not match, TypeError for other dtypes.
    Source: Hochreiter and Schmidhuber, 1997, with the forget gate of Gers et al., 2000.
    """
    h0, c0 = _check("lstm", 4, input, hx or (None, None), w_ih, w_hh, b_ih, b_hh)
    ends = as_lengths("lstm", lengths, input)
    output, h_n, c_n = apply(LSTM, input, h0, c0, w_ih, w_hh, b_ih, b_hh, ends, reverse=reverse)
    return output, (h_n, c_n)
