"""Launches of recurrent.cu: recurrent nets over a sequence, and their gradients.

The inputs' product for all steps is one; then each step is one launch, which no step can begin before
the last has ended. The gradient goes the other way, and ends with the weights' products over all steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trine.dtypes import Array
from trine.kernels.cuda import tiles
from trine.kernels.cuda.launch import Launch, Launches, Scratch, blocks
from trine.kernels.cuda.products import delta_sum, product

SOURCE = "recurrent.cu"
THREADS = 256
ACTIVATIONS = (3, 1)
"""The choices of `nonlinearity` as positions among activations."""

GATES = {"rnn": 1, "gru": 3, "lstm": 4}

UNITS_OF_A_TILE = 8
"""Units of a net with gates that a `Step` tile holds: 4 columns each."""


def _count(lengths: Array | None) -> str:
    return "int" if lengths is not None and lengths.dtype.itemsize == 4 else "long long"


def _steps(count: int, reverse: bool) -> list[tuple[int, int, int]]:
    """Return (step, the one before, the one after) in the order in which they run."""
    move = -1 if reverse else 1
    steps = range(count)[::move]
    return [(t, t - move, t + move) for t in steps]


def _project(
    op: str, x: Array, w_ih: Array, b_ih: Array | None, precision: str
) -> tuple[Scratch, list[Launch]]:
    """Return where W_ih x + b_ih of all steps comes to lie, and the launches that put it there."""
    z = Scratch((*x.shape[:2], w_ih.shape[0]), x.dtype)
    sizes = (x.shape[0] * x.shape[1], w_ih.shape[0], x.shape[2])
    return z, product(op, x, w_ih, b_ih, z, sizes, precision=precision)


def _rnn(precision: str) -> Callable[..., Launches]:
    tile = tiles.TILES[precision][2]

    def launch(
        x: Array, h0: Array, w_ih: Array, w_hh: Array, b_ih: Array | None, b_hh: Array | None,
        lengths: Array | None, nonlinearity: int, reverse: bool, out: Array, h_n: Array,
    ) -> Launches:  # fmt: skip
        if not h_n.size:
            return ()
        (sequences, units), count = h0.shape, x.shape[0]
        z, launches = _project("rnn", x, w_ih, b_ih, precision)
        grid = tile.grid("rnn", sequences, units, 1)
        function = f"plain_step<{{T}}, {_count(lengths)}, {tile.name}>"
        for t, before, _ in _steps(count, reverse):
            arrays = (z, h0, w_hh, b_hh, lengths, out, h_n)
            numbers = (t, before, count, sequences, units, ACTIVATIONS[nonlinearity])
            launches.append(Launch(grid, (tile.threads,), (*arrays, *numbers), function=function))
        return launches

    return launch


def _gated(
    op: str, x: Array, states: tuple[Array, Array | None], weights: tuple[Any, ...],
    lengths: Array | None, reverse: bool, outputs: tuple[Any, ...], precision: str,
) -> Launches:  # fmt: skip
    h0, c0 = states
    if not h0.size:
        return ()
    tile = tiles.TILES[precision][2]
    w_ih, w_hh, b_ih, b_hh = weights
    (sequences, units), count = h0.shape, x.shape[0]
    z, launches = _project(op, x, w_ih, b_ih, precision)
    columns = -(-units // UNITS_OF_A_TILE) * tile.columns
    grid = tile.grid(op, sequences, columns, 1)
    function = f"gated_step<{{T}}, {op.upper()}, {_count(lengths)}, {tile.name}>"
    for t, before, _ in _steps(count, reverse):
        arrays = (z, h0, c0, w_hh, b_hh, lengths, *outputs)
        numbers = (t, before, count, sequences, units)
        launches.append(Launch(grid, (tile.threads,), (*arrays, *numbers), function=function))
    return launches


def _gru(precision: str) -> Callable[..., Launches]:
    def launch(
        x: Array, h0: Array, w_ih: Array, w_hh: Array, b_ih: Array | None, b_hh: Array | None,
        lengths: Array | None, reverse: bool, out: Array, h_n: Array, gates: Array,
    ) -> Launches:  # fmt: skip
        weights, outputs = (w_ih, w_hh, b_ih, b_hh), (out, h_n, None, None, gates)
        return _gated("gru", x, (h0, None), weights, lengths, reverse, outputs, precision)

    return launch


def _lstm(precision: str) -> Callable[..., Launches]:
    def launch(
        x: Array, h0: Array, c0: Array, w_ih: Array, w_hh: Array, b_ih: Array | None,
        b_hh: Array | None, lengths: Array | None, reverse: bool, out: Array, h_n: Array,
        c_n: Array, c: Array, gates: Array,
    ) -> Launches:  # fmt: skip
        weights, outputs = (w_ih, w_hh, b_ih, b_hh), (out, h_n, c, c_n, gates)
        return _gated("lstm", x, (h0, c0), weights, lengths, reverse, outputs, precision)

    return launch


def _backward(
    op: str, grads: tuple[Array, Array, Array | None], x: Array, states: tuple[Array, Array | None],
    weights: tuple[Array, Array], saved: tuple[Array, Array | None, Array | None],
    lengths: Array | None, reverse: bool, activation: int, results: tuple[Array, ...],
    biases: tuple[Array, ...], precision: str,
) -> Launches:  # fmt: skip
    """Return the launches of a gradient.

    `results` are grad_x, grad_h0, grad_c0, grad_w_ih, grad_w_hh; `biases` those of one or both.
    """
    (h0, c0), (w_ih, w_hh), (out, *rest) = states, weights, saved
    grad_x, grad_h0, grad_c0, grad_w_ih, grad_w_hh = results
    (sequences, units), count, inputs = h0.shape, x.shape[0], x.shape[2]
    rows, width, kind = count * sequences, GATES[op] * units, _count(lengths)
    d_x = Scratch((count, sequences, width), x.dtype)
    d_h = Scratch(d_x.shape, x.dtype) if op == "gru" else d_x
    launches: list[Launch] = []
    tile = tiles.TILES[precision][2]
    if h0.size:
        grid = tile.grid(op, sequences, units, 1)
        backwards = _steps(count, reverse)[::-1]
        end = backwards[-1][0]
        for t, before, after in [*backwards, (count, count, end)]:  # the last for the first states
            arrays = (*grads, h0, c0, w_hh, out, *rest, lengths, d_x, d_h, grad_h0, grad_c0)
            numbers = (t, before, after, count, sequences, units, activation)
            function = f"step_backward<{{T}}, {op.upper()}, {kind}, {tile.name}>"
            launches.append(Launch(grid, (tile.threads,), (*arrays, *numbers), function=function))
    if grad_x.size:
        sizes = (rows, inputs, width)
        deep = (True, False)
        launches += product(op, d_x, w_ih, None, grad_x, sizes, deep=deep, precision=precision)
    flat = (False, False)
    kept: Any = x
    if lengths is not None and x.size:
        kept = Scratch(x.shape, x.dtype)
        arguments: tuple[Any, ...] = (x, lengths, kept, count, sequences, inputs)
        launches.append(_each(f"inputs_alive<{{T}}, {kind}>", x.size, arguments))
    before_all = Scratch(out.shape, x.dtype)
    if out.size:
        arguments = (out, h0, lengths, before_all, count, sequences, units, int(reverse))
        launches.append(_each(f"states_before<{{T}}, {kind}>", out.size, arguments))
    if grad_w_ih.size:
        sizes = (width, inputs, rows)
        launches += product(op, d_x, kept, None, grad_w_ih, sizes, deep=flat, precision=precision)
    sizes = (width, units, rows)
    launches += product(op, d_h, before_all, None, grad_w_hh, sizes, deep=flat, precision=precision)
    for d, bias in zip((d_x, d_h), biases, strict=False):
        launches += delta_sum((d, d, 0), bias)
    return launches


def _each(function: str, size: int, arguments: tuple[Any, ...]) -> Launch:
    """Return a launch of a thread an element."""
    return Launch(blocks(size, THREADS), (THREADS,), arguments, function=function)


def _rnn_backward(precision: str) -> Callable[..., Launches]:
    def launch(
        grad_out: Array, grad_h_n: Array, x: Array, h0: Array, w_ih: Array, w_hh: Array, out: Array,
        lengths: Array | None, nonlinearity: int, reverse: bool, input_grad: bool, grad_x: Array,
        grad_h0: Array, grad_w_ih: Array, grad_w_hh: Array, grad_b: Array,
    ) -> Launches:  # fmt: skip
        results: Any = (grad_x, grad_h0, None, grad_w_ih, grad_w_hh)
        return _backward(
            "rnn", (grad_out, grad_h_n, None), x, (h0, None), (w_ih, w_hh), (out, None, None),
            lengths, reverse, ACTIVATIONS[nonlinearity], results, (grad_b,), precision,
        )  # fmt: skip

    return launch


def _gru_backward(precision: str) -> Callable[..., Launches]:
    def launch(
        grad_out: Array, grad_h_n: Array, x: Array, h0: Array, w_ih: Array, w_hh: Array, out: Array,
        gates: Array, lengths: Array | None, reverse: bool, input_grad: bool, grad_x: Array,
        grad_h0: Array, grad_w_ih: Array, grad_w_hh: Array, grad_b_ih: Array, grad_b_hh: Array,
    ) -> Launches:  # fmt: skip
        results: Any = (grad_x, grad_h0, None, grad_w_ih, grad_w_hh)
        return _backward(
            "gru", (grad_out, grad_h_n, None), x, (h0, None), (w_ih, w_hh), (out, None, gates),
            lengths, reverse, 0, results, (grad_b_ih, grad_b_hh), precision,
        )  # fmt: skip

    return launch


def _lstm_backward(precision: str) -> Callable[..., Launches]:
    def launch(
        grad_out: Array, grad_h_n: Array, grad_c_n: Array, x: Array, h0: Array, c0: Array,
        w_ih: Array, w_hh: Array, out: Array, c: Array, gates: Array, lengths: Array | None,
        reverse: bool, input_grad: bool, grad_x: Array, grad_h0: Array, grad_c0: Array,
        grad_w_ih: Array, grad_w_hh: Array, grad_b: Array,
    ) -> Launches:  # fmt: skip
        results = (grad_x, grad_h0, grad_c0, grad_w_ih, grad_w_hh)
        return _backward(
            "lstm", (grad_out, grad_h_n, grad_c_n), x, (h0, c0), (w_ih, w_hh), (out, c, gates),
            lengths, reverse, 0, results, (grad_b,), precision,
        )  # fmt: skip

    return launch


def _has_steps_and_units(x: Array, h0: Array, **_: Any) -> bool:
    return bool(x.shape[0] > 0 and h0.shape[1] > 0)


for _op, _function, _make in (
    ("rnn", "plain_step<{T}, long long, STEP>", _rnn),
    ("gru", "gated_step<{T}, GRU, long long, STEP>", _gru),
    ("lstm", "gated_step<{T}, LSTM, long long, STEP>", _lstm),
    ("rnn_backward", "step_backward<{T}, RNN, long long, STEP>", _rnn_backward),
    ("gru_backward", "step_backward<{T}, GRU, long long, STEP>", _gru_backward),
    ("lstm_backward", "step_backward<{T}, LSTM, long long, STEP>", _lstm_backward),
):
    tiles.in_every_precision(
        _op,
        name="steps",
        source=SOURCE,
        function=_function,
        make=_make,
        supports=_has_steps_and_units,
    )
