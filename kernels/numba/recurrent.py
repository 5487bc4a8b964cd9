"""Recurrent nets over whole sequences: products for all steps at once, then the steps.

W_ih x for every step is one product, and so are the gradients of the weights after the last step.
Between them each thread takes some sequences through all steps by itself, since no sequence waits
for another: one parallel region serves the whole pass. `h_n` and `c_n` (on the way back `grad_h0`
and `grad_c0`) hold the running states.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trine.dtypes import Array
from trine.kernels.numba.gates import (
    gru_cell,
    gru_cell_back,
    lstm_cell,
    lstm_cell_back,
    rnn_cell,
    rnn_cell_back,
)
from trine.kernels.numba.gemm import INT64, multiply, panels_of, transposed
from trine.kernels.numba.jit import scratch, threads
from trine.kernels.numba.row_product import (
    TILE_ROWS,
    VECTORS,
    alive_rows,
    multiply_rows,
    row_starts,
)
from trine.kernels.numba.simd import address, lanes
from trine.kernels.numba.spread import each, inner, spread
from trine.kernels.registry import kernel

GRAIN = 1 << 17
"""Multiplications below which starting threads costs more than it saves."""


# --- what the nets share --------------------------------------------------------------------------


def _flat(x: Array) -> Array:
    """Return a sequence of matrices as one matrix."""
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2])


def _is_over(x: Array, lengths: Array) -> Array:
    """Return where in (T, N, 1) a sequence has ended."""
    return (np.arange(x.shape[0])[:, None] >= lengths)[:, :, None]


def _padded(x: Array, lengths: Array | None) -> Array:
    """Return x with zeros beyond each sequence's length."""
    if lengths is None:
        return x
    return np.where(_is_over(x, lengths), x.dtype.type(0), x)


def _end(lengths: Array | None, *arrays: Array) -> None:
    """Write zeros beyond each sequence's length, where no step comes."""
    if lengths is not None:
        for x in arrays:
            np.copyto(x, 0, where=_is_over(x, lengths))


def _bias(rows: int, like: Array, *biases: Array | None) -> Array:
    """Return the sum of the biases that there are."""
    total = np.zeros(rows, like.dtype)
    for bias in biases:
        if bias is not None:
            total += bias
    return total


def _scratch(purpose: str, shape: tuple[int, ...], like: Array) -> Array:
    """Return scratch memory of a shape."""
    size = math.prod(shape)
    return scratch(f"recurrent {purpose}", size, like.dtype)[:size].reshape(shape)


def _bias_sums(batch: int, rows: int, like: Array) -> Array:
    """Return zeros for the sums of errors over time, one vector a tile of sequences.

    Blocks of sequences are whole tiles, so that the order of sums does not depend on the threads.
    """
    return np.zeros((-(-batch // TILE_ROWS), rows), like.dtype)


def _block(batch: int) -> int:
    """Return how many sequences a thread takes: whole tiles, as many as give each thread some."""
    tiles = -(-batch // TILE_ROWS)
    return max(1, -(-tiles // threads.count)) * TILE_ROWS


def _blocks(w_hh: Array, transposed: bool, batch: int, lengths: Array | None) -> tuple[Any, ...]:
    """Return how many blocks there are, then what each needs of W_hh, the lengths and scratch."""
    panels, count = panels_of(w_hh, transposed, VECTORS)
    block = _block(batch)
    blocks = -(-batch // block)
    tables = scratch("recurrent rows", 4 * blocks * block, INT64)[: 4 * blocks * block]
    width = VECTORS * lanes(w_hh.itemsize)
    edges = _scratch("edges", (blocks, TILE_ROWS, width), w_hh)
    ends = np.empty(0, np.int64) if lengths is None else lengths
    return blocks, panels, count, ends, tables.reshape(blocks, 4, block), edges


def _weight_gradients(
    dz: Array, x: Array, lengths: Array | None, w_ih: Array, dz_h: Array, before: Array,
    grad_x: Array, grad_w_ih: Array, grad_w_hh: Array,
) -> None:  # fmt: skip
    """dx = dz W_ih, dW_ih = sum dz^T x, dW_hh = sum dz_h^T h_(t-1) over all steps."""
    flat = _flat(dz)
    if grad_x.size:  # it has no rows where nobody asked for it
        multiply(flat, False, w_ih, False, None, 0, _flat(grad_x))
    turned = transposed(flat)
    multiply(turned, False, _flat(_padded(x, lengths)), False, None, 0, grad_w_ih)
    if dz_h is not dz:
        turned = transposed(_flat(dz_h))
    multiply(turned, False, _flat(before), False, None, 0, grad_w_hh)


@inner
def _at(x: Array, row: int, width: int) -> int:
    """Return the address of a row so many elements wide."""
    start: int = address(x)
    return start + row * width * x.itemsize


@inner
def _state_at(t: int, row: int, end: int, states: Array, first: Array) -> int:
    """Return the address of one sequence's state after step t, the first one if t is none of it."""
    _, batch, units = states.shape
    place: int = _at(first, row, units)
    if 0 <= t < end:
        place = _at(states, t * batch + row, units)
    return place


@inner
def _multiply_step(
    a: Array, a_offset: int, out: Array, out_offset: int, alive: int, add: bool, panels: Array,
    count: int, table: Array, edge: Array,
) -> None:  # fmt: skip
    """Multiply the rows that go on with the panels; they lie so many rows into a and out."""
    depth, columns = a.shape[-1], out.shape[-1]
    rows, a_starts, out_starts, edge_starts = table[0], table[1], table[2], table[3]
    row_starts(rows, alive, a_offset, depth, a_starts)
    row_starts(rows, alive, out_offset, columns, out_starts)
    for g in range(TILE_ROWS):
        edge_starts[g] = g * edge.shape[1]
    multiply_rows(
        a, a_starts, alive, panels, count, depth, columns, add, out, out_starts, edge, edge_starts
    )


# --- the plain net --------------------------------------------------------------------------------


@inner
def _rnn_block(
    item: int, panels: Array, count: int, lengths: Array, tables: Array, edges: Array, relu: bool,
    reverse: bool, bias: Array, out: Array, h_n: Array,
) -> None:  # fmt: skip
    """Take a block of sequences through all steps."""
    steps, batch, units = out.shape
    zero, table = out.dtype.type(0), tables[item]
    rows = table[0]
    first = item * rows.size
    for s in range(steps):
        t = steps - 1 - s if reverse else s
        alive = alive_rows(lengths, t, first, min(batch, first + rows.size), rows)
        _multiply_step(h_n, 0, out, t * batch, alive, True, panels, count, table, edges[item])
        for i in range(alive):
            row = rows[i]
            z = _at(out, t * batch + row, units)
            rnn_cell(zero, relu, units, address(bias), z, _at(h_n, row, units))


@spread(grain=GRAIN)
def _rnn(pool: int, threads: int, items: int, *args: Any) -> None:
    """Run all steps; `out` holds W_ih x and `h_n` the first states."""
    each(_rnn_block, pool, threads, items, args)


@kernel("rnn", backend="numba", name="rows", replayable=False)
def rnn(
    x: Array, h0: Array, w_ih: Array, w_hh: Array, b_ih: Array | None, b_hh: Array | None,
    lengths: Array | None, nonlinearity: int, reverse: bool, out: Array, h_n: Array,
) -> None:  # fmt: skip
    """h_t = act(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh)."""
    h_n[...] = h0
    if not out.size:
        return
    multiply(_flat(_padded(x, lengths)), False, w_ih, True, None, 0, _flat(out))
    units = h0.shape[1]
    _rnn(
        out.size * units, *_blocks(w_hh, True, x.shape[1], lengths), nonlinearity == 1, reverse,
        _bias(units, x, b_ih, b_hh), out, h_n,
    )  # fmt: skip
    _end(lengths, out)


@inner
def _rnn_block_back(
    item: int, panels: Array, count: int, lengths: Array, tables: Array, edges: Array, relu: bool,
    reverse: bool, grad_out: Array, out: Array, h0: Array, dh: Array, dz: Array, before: Array,
    sums: Array,
) -> None:  # fmt: skip
    """Take a block of sequences through all steps back."""
    steps, batch, units = out.shape
    zero, table = out.dtype.type(0), tables[item]
    rows = table[0]
    first = item * rows.size
    for s in range(steps):
        t = s if reverse else steps - 1 - s
        earlier = t + 1 if reverse else t - 1
        alive = alive_rows(lengths, t, first, min(batch, first + rows.size), rows)
        for i in range(alive):
            row = rows[i]
            place = t * batch + row
            end = lengths[row] if lengths.size else steps
            rnn_cell_back(
                zero, relu, units, _at(out, place, units), _at(grad_out, place, units),
                _state_at(earlier, row, end, out, h0), _at(dh, row, units),
                _at(dz, place, units), _at(before, place, units),
                _at(sums, row // TILE_ROWS, units),
            )  # fmt: skip
        _multiply_step(dz, t * batch, dh, 0, alive, False, panels, count, table, edges[item])


@spread(grain=GRAIN)
def _rnn_backward(pool: int, threads: int, items: int, *args: Any) -> None:
    """Run all steps back; dh holds the gradient of the last states and becomes that of the first."""
    each(_rnn_block_back, pool, threads, items, args)


@kernel("rnn_backward", backend="numba", name="rows", replayable=False)
def rnn_backward(
    grad_out: Array, grad_h_n: Array, x: Array, h0: Array, w_ih: Array, w_hh: Array, out: Array,
    lengths: Array | None, nonlinearity: int, reverse: bool, input_grad: bool, grad_x: Array,
    grad_h0: Array, grad_w_ih: Array, grad_w_hh: Array, grad_b: Array,
) -> None:  # fmt: skip
    """dz_t = (grad_out_t + W_hh^T dz_(t+1)) act'(z_t), then the products over all steps."""
    grad_h0[...] = grad_h_n
    dz, before = _scratch("errors", out.shape, x), _scratch("states", out.shape, x)
    units = h0.shape[1]
    sums = _bias_sums(x.shape[1], units, x)
    if out.size:
        _rnn_backward(
            out.size * units, *_blocks(w_hh, False, x.shape[1], lengths), nonlinearity == 1,
            reverse, grad_out, out, h0, grad_h0, dz, before, sums,
        )  # fmt: skip
    _end(lengths, dz, before)
    _weight_gradients(dz, x, lengths, w_ih, dz, before, grad_x, grad_w_ih, grad_w_hh)
    sums.sum(axis=0, out=grad_b)


# --- the GRU --------------------------------------------------------------------------------------


@inner
def _gru_block(
    item: int, panels: Array, count: int, lengths: Array, tables: Array, edges: Array,
    reverse: bool, z_x: Array, bias: Array, z_h: Array, out: Array, h_n: Array, gates: Array,
) -> None:  # fmt: skip
    """Take a block of sequences through all steps."""
    steps, batch, units = out.shape
    zero, table = out.dtype.type(0), tables[item]
    rows = table[0]
    first = item * rows.size
    for s in range(steps):
        t = steps - 1 - s if reverse else s
        alive = alive_rows(lengths, t, first, min(batch, first + rows.size), rows)
        _multiply_step(h_n, 0, z_h, 0, alive, False, panels, count, table, edges[item])
        for i in range(alive):
            row = rows[i]
            place = t * batch + row
            gru_cell(
                zero, units, address(bias), _at(z_x, place, 3 * units), _at(z_h, row, 3 * units),
                _at(gates, place, 4 * units), _at(h_n, row, units), _at(out, place, units),
            )  # fmt: skip


@spread(grain=GRAIN)
def _gru(pool: int, threads: int, items: int, *args: Any) -> None:
    """Run all steps; `h_n` holds the first states, z_h (N, 3H) is scratch."""
    each(_gru_block, pool, threads, items, args)


@kernel("gru", backend="numba", name="rows", replayable=False)
def gru(
    x: Array, h0: Array, w_ih: Array, w_hh: Array, b_ih: Array | None, b_hh: Array | None,
    lengths: Array | None, reverse: bool, out: Array, h_n: Array, gates: Array,
) -> None:  # fmt: skip
    """r, z = logistic, n = tanh(... + r (W_hn h + b_hn)); h_t = (1 - z) n + z h_(t-1)."""
    h_n[...] = h0
    if not out.size:
        return
    steps, batch, units = out.shape
    bias = np.zeros(4 * units, x.dtype)
    bias[: 3 * units] = _bias(3 * units, x, b_ih)
    if b_hh is not None:
        bias[: 2 * units] += b_hh[: 2 * units]
        bias[3 * units :] = b_hh[2 * units :]
    z_x = _scratch("sums", (steps, batch, 3 * units), x)
    multiply(_flat(_padded(x, lengths)), False, w_ih, True, None, 0, _flat(z_x))
    _gru(
        z_x.size * units, *_blocks(w_hh, True, batch, lengths), reverse, z_x, bias,
        _scratch("step", (batch, 3 * units), x), out, h_n, gates,
    )  # fmt: skip
    _end(lengths, out, gates)


@inner
def _gru_block_back(
    item: int, panels: Array, count: int, lengths: Array, tables: Array, edges: Array,
    reverse: bool, grad_out: Array, out: Array, gates: Array, h0: Array, dh: Array, d_x: Array,
    d_h: Array, before: Array, sums: Array,
) -> None:  # fmt: skip
    """Take a block of sequences through all steps back."""
    steps, batch, units = out.shape
    zero, table = out.dtype.type(0), tables[item]
    rows = table[0]
    first = item * rows.size
    for s in range(steps):
        t = s if reverse else steps - 1 - s
        earlier = t + 1 if reverse else t - 1
        alive = alive_rows(lengths, t, first, min(batch, first + rows.size), rows)
        for i in range(alive):
            row = rows[i]
            place = t * batch + row
            end = lengths[row] if lengths.size else steps
            gru_cell_back(
                zero, units, _at(gates, place, 4 * units), _at(grad_out, place, units),
                _state_at(earlier, row, end, out, h0), _at(dh, row, units),
                _at(d_x, place, 3 * units), _at(d_h, place, 3 * units),
                _at(before, place, units), _at(sums, row // TILE_ROWS, 4 * units),
            )  # fmt: skip
        _multiply_step(d_h, t * batch, dh, 0, alive, True, panels, count, table, edges[item])


@spread(grain=GRAIN)
def _gru_backward(pool: int, threads: int, items: int, *args: Any) -> None:
    """Run all steps back; dh holds the gradient of the last states and becomes that of the first."""
    each(_gru_block_back, pool, threads, items, args)


@kernel("gru_backward", backend="numba", name="rows", replayable=False)
def gru_backward(
    grad_out: Array, grad_h_n: Array, x: Array, h0: Array, w_ih: Array, w_hh: Array, out: Array,
    gates: Array, lengths: Array | None, reverse: bool, input_grad: bool, grad_x: Array,
    grad_h0: Array, grad_w_ih: Array, grad_w_hh: Array, grad_b_ih: Array, grad_b_hh: Array,
) -> None:  # fmt: skip
    """The errors of r, z, n from the last step to the first, then the products over all steps."""
    grad_h0[...] = grad_h_n
    steps, batch, units = out.shape
    d_x = _scratch("errors", (steps, batch, 3 * units), x)
    d_h, before = _scratch("errors of h", d_x.shape, x), _scratch("states", out.shape, x)
    sums = _bias_sums(batch, 4 * units, x)
    if out.size:
        _gru_backward(
            d_x.size * units, *_blocks(w_hh, False, batch, lengths), reverse, grad_out, out,
            gates, h0, grad_h0, d_x, d_h, before, sums,
        )  # fmt: skip
    _end(lengths, d_x, d_h, before)
    _weight_gradients(d_x, x, lengths, w_ih, d_h, before, grad_x, grad_w_ih, grad_w_hh)
    total = sums.sum(axis=0)
    grad_b_ih[...] = total[: 3 * units]
    grad_b_hh[: 2 * units] = total[: 2 * units]
    grad_b_hh[2 * units :] = total[3 * units :]


# --- the LSTM -------------------------------------------------------------------------------------


@inner
def _lstm_block(
    item: int, panels: Array, count: int, lengths: Array, tables: Array, edges: Array,
    reverse: bool, bias: Array, out: Array, h_n: Array, c_n: Array, c: Array, gates: Array,
) -> None:  # fmt: skip
    """Take a block of sequences through all steps."""
    steps, batch, units = out.shape
    zero, table = out.dtype.type(0), tables[item]
    rows = table[0]
    first = item * rows.size
    for s in range(steps):
        t = steps - 1 - s if reverse else s
        alive = alive_rows(lengths, t, first, min(batch, first + rows.size), rows)
        _multiply_step(h_n, 0, gates, t * batch, alive, True, panels, count, table, edges[item])
        for i in range(alive):
            row = rows[i]
            place = t * batch + row
            lstm_cell(
                zero, units, address(bias), _at(gates, place, 4 * units), _at(h_n, row, units),
                _at(c_n, row, units), _at(out, place, units), _at(c, place, units),
            )  # fmt: skip


@spread(grain=GRAIN)
def _lstm(pool: int, threads: int, items: int, *args: Any) -> None:
    """Run all steps; `gates` holds W_ih x, `h_n` and `c_n` the first states."""
    each(_lstm_block, pool, threads, items, args)


@kernel("lstm", backend="numba", name="rows", replayable=False)
def lstm(
    x: Array, h0: Array, c0: Array, w_ih: Array, w_hh: Array, b_ih: Array | None,
    b_hh: Array | None, lengths: Array | None, reverse: bool, out: Array, h_n: Array, c_n: Array,
    c: Array, gates: Array,
) -> None:  # fmt: skip
    """i, f, o = logistic(z), g = tanh(z); c_t = f c_(t-1) + i g; h_t = o tanh(c_t)."""
    h_n[...], c_n[...] = h0, c0
    if not out.size:
        return
    multiply(_flat(_padded(x, lengths)), False, w_ih, True, None, 0, _flat(gates))
    units = h0.shape[1]
    _lstm(
        gates.size * units, *_blocks(w_hh, True, x.shape[1], lengths), reverse,
        _bias(4 * units, x, b_ih, b_hh), out, h_n, c_n, c, gates,
    )  # fmt: skip
    _end(lengths, out, gates)
    if lengths is not None:
        np.copyto(c, c0 if reverse else c_n, where=_is_over(c, lengths))


@inner
def _lstm_block_back(
    item: int, panels: Array, count: int, lengths: Array, tables: Array, edges: Array,
    reverse: bool, grad_out: Array, out: Array, c: Array, gates: Array, h0: Array, c0: Array,
    dh: Array, dc: Array, dz: Array, before: Array, sums: Array,
) -> None:  # fmt: skip
    """Take a block of sequences through all steps back."""
    steps, batch, units = out.shape
    zero, table = out.dtype.type(0), tables[item]
    rows = table[0]
    first = item * rows.size
    for s in range(steps):
        t = s if reverse else steps - 1 - s
        earlier = t + 1 if reverse else t - 1
        alive = alive_rows(lengths, t, first, min(batch, first + rows.size), rows)
        for i in range(alive):
            row = rows[i]
            place = t * batch + row
            end = lengths[row] if lengths.size else steps
            lstm_cell_back(
                zero, units, _at(gates, place, 4 * units), _at(c, place, units),
                _state_at(earlier, row, steps, c, c0),
                _state_at(earlier, row, end, out, h0), _at(grad_out, place, units),
                _at(dh, row, units), _at(dc, row, units), _at(dz, place, 4 * units),
                _at(before, place, units), _at(sums, row // TILE_ROWS, 4 * units),
            )  # fmt: skip
        _multiply_step(dz, t * batch, dh, 0, alive, False, panels, count, table, edges[item])


@spread(grain=GRAIN)
def _lstm_backward(pool: int, threads: int, items: int, *args: Any) -> None:
    """Run all steps back; dh, dc hold gradients of the last states and become those of the first."""
    each(_lstm_block_back, pool, threads, items, args)


@kernel("lstm_backward", backend="numba", name="rows", replayable=False)
def lstm_backward(
    grad_out: Array, grad_h_n: Array, grad_c_n: Array, x: Array, h0: Array, c0: Array,
    w_ih: Array, w_hh: Array, out: Array, c: Array, gates: Array, lengths: Array | None,
    reverse: bool, input_grad: bool, grad_x: Array, grad_h0: Array, grad_c0: Array,
    grad_w_ih: Array, grad_w_hh: Array, grad_b: Array,
) -> None:  # fmt: skip
    """The errors of i, f, g, o from the last step to the first, then the products over all steps."""
    grad_h0[...], grad_c0[...] = grad_h_n, grad_c_n
    units = h0.shape[1]
    dz, before = _scratch("errors", gates.shape, x), _scratch("states", out.shape, x)
    sums = _bias_sums(x.shape[1], 4 * units, x)
    if out.size:
        _lstm_backward(
            gates.size * units, *_blocks(w_hh, False, x.shape[1], lengths), reverse, grad_out,
            out, c, gates, h0, c0, grad_h0, grad_c0, dz, before, sums,
        )  # fmt: skip
    _end(lengths, dz, before)
    _weight_gradients(dz, x, lengths, w_ih, dz, before, grad_x, grad_w_ih, grad_w_hh)
    sums.sum(axis=0, out=grad_b)
