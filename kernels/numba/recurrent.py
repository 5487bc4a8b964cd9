"""Recurrent nets over whole sequences: products for all steps at once, then the steps.

W_ih x for every step is one product, and so are the gradients of the weights after the last step.
Between them each thread takes some sequences through all steps by itself, since no sequence waits
for another: one parallel region serves the whole pass. `h_n` and `c_n` (on the way back `grad_h0`
and `grad_c0`) hold the running states.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from trine.dtypes import Array
from trine.kernels.numba.gates import (
    act_error,
    add,
    add_product,
    add_to,
    candidate_error,
    clear,
    copy,
    gated_tanh,
    logistic_error,
    logistic_of_sum,
    mix,
    relu_of_sum,
    scale,
    tanh_error,
    tanh_of,
    tanh_of_sum,
    through_tanh,
    update_error,
)
from trine.kernels.numba.gemm import multiply, transposed
from trine.kernels.numba.jit import helper, parallel, scratch, threads
from trine.kernels.numba.row_product import (
    TILE_ROWS,
    alive_rows,
    multiply_rows,
    pack_panel,
    panels_for,
)
from trine.kernels.registry import kernel

GRAIN = 1 << 17
"""Multiplications below which starting threads costs more than it saves."""


# --- what the nets share --------------------------------------------------------------------------


def _flat(x: Array) -> Array:
    """Return a sequence of matrices as one matrix."""
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2])


def _padded(x: Array, lengths: Array | None) -> Array:
    """Return x with zeros beyond each sequence's length."""
    if lengths is None:
        return x
    alive = np.arange(x.shape[0])[:, None] < lengths
    return np.where(alive[:, :, None], x, x.dtype.type(0))


def _ends(lengths: Array | None) -> Array:
    """Return an empty vector for None, so that Numba sees one type."""
    return np.empty(0, np.int64) if lengths is None else lengths


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


def _weight_gradients(
    dz: Array, x: Array, lengths: Array | None, w_ih: Array, dz_h: Array, before: Array,
    grad_x: Array, grad_w_ih: Array, grad_w_hh: Array,
) -> None:  # fmt: skip
    """dx = dz W_ih, dW_ih = sum dz^T x, dW_hh = sum dz_h^T h_(t-1) over all steps."""
    flat = _flat(dz)
    multiply(flat, False, w_ih, False, None, 0, _flat(grad_x))
    turned = transposed(flat)
    multiply(turned, False, _flat(_padded(x, lengths)), False, None, 0, grad_w_ih)
    if dz_h is not dz:
        turned = transposed(_flat(dz_h))
    multiply(turned, False, _flat(before), False, None, 0, grad_w_hh)


@helper
def _keep_before(
    t: int, row: int, reverse: bool, out: Array, first: Array, lengths: Array, before: Array
) -> None:
    """before[t, row] = the hidden state before step t."""
    u = t + 1 if reverse else t - 1
    inside = u >= 0 and u < out.shape[0] and (lengths.size == 0 or u < lengths[row])
    copy(out[u, row] if inside else first[row], before[t, row])


# --- the plain net --------------------------------------------------------------------------------


@parallel(grain=GRAIN)
def _rnn(
    relu: bool, reverse: bool, bias: Array, w_hh: Array, lengths: Array, block: int,
    panels: Array, out: Array, h_n: Array,
) -> None:  # fmt: skip
    """Run all steps; `out` holds W_ih x and `h_n` the first states."""
    steps, batch, units = out.shape
    count = panels.shape[0]
    for p in prange(count):
        pack_panel(w_hh, True, np.int64(p), panels)
    blocks = (batch + block - 1) // block
    for item in prange(blocks):
        first = np.int64(item) * block
        last = min(batch, first + block)
        rows = np.empty(block, np.int64)
        edge = np.empty((TILE_ROWS, panels.shape[2]), out.dtype)
        for s in range(steps):
            t = steps - 1 - s if reverse else s
            alive = alive_rows(lengths, t, first, last, rows)
            if alive < last - first:
                for row in range(first, last):
                    if t >= lengths[row]:
                        clear(out[t, row])
            multiply_rows(h_n, rows, alive, panels, units, True, out[t], edge)
            for i in range(alive):
                row = rows[i]
                if relu:
                    relu_of_sum(out[t, row], bias)
                else:
                    tanh_of_sum(out[t, row], bias)
                copy(out[t, row], h_n[row])


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
        out.size * units, nonlinearity == 1, reverse, _bias(units, x, b_ih, b_hh), w_hh,
        _ends(lengths), _block(x.shape[1]), panels_for(units, units, x), out, h_n,
    )  # fmt: skip


@parallel(grain=GRAIN)
def _rnn_backward(
    relu: bool, reverse: bool, grad_out: Array, out: Array, h0: Array, w_hh: Array,
    lengths: Array, block: int, panels: Array, dh: Array, dz: Array, before: Array, sums: Array,
) -> None:  # fmt: skip
    """Run all steps back; dh holds the gradient of the last states and becomes that of the first."""
    steps, batch, units = out.shape
    count = panels.shape[0]
    for p in prange(count):
        pack_panel(w_hh, False, np.int64(p), panels)
    blocks = (batch + block - 1) // block
    for item in prange(blocks):
        first = np.int64(item) * block
        last = min(batch, first + block)
        rows = np.empty(block, np.int64)
        edge = np.empty((TILE_ROWS, panels.shape[2]), out.dtype)
        for s in range(steps):
            t = s if reverse else steps - 1 - s
            alive = alive_rows(lengths, t, first, last, rows)
            if alive < last - first:
                for row in range(first, last):
                    if t >= lengths[row]:
                        clear(dz[t, row])
                        clear(before[t, row])
            for i in range(alive):
                row = rows[i]
                _keep_before(t, row, reverse, out, h0, lengths, before)
                add(grad_out[t, row], dh[row])
                act_error(relu, dh[row], out[t, row], dz[t, row])
                add(dz[t, row], sums[row // TILE_ROWS])
            multiply_rows(dz[t], rows, alive, panels, units, False, dh, edge)


@kernel("rnn_backward", backend="numba", name="rows", replayable=False)
def rnn_backward(
    grad_out: Array, grad_h_n: Array, x: Array, h0: Array, w_ih: Array, w_hh: Array, out: Array,
    lengths: Array | None, nonlinearity: int, reverse: bool, grad_x: Array, grad_h0: Array,
    grad_w_ih: Array, grad_w_hh: Array, grad_b: Array,
) -> None:  # fmt: skip
    """dz_t = (grad_out_t + W_hh^T dz_(t+1)) act'(z_t), then the products over all steps."""
    grad_h0[...] = grad_h_n
    dz, before = _scratch("errors", out.shape, x), _scratch("states", out.shape, x)
    units = h0.shape[1]
    sums = _bias_sums(x.shape[1], units, x)
    if out.size:
        _rnn_backward(
            out.size * units, nonlinearity == 1, reverse, grad_out, out, h0, w_hh,
            _ends(lengths), _block(x.shape[1]), panels_for(units, units, x), grad_h0, dz, before,
            sums,
        )  # fmt: skip
    _weight_gradients(dz, x, lengths, w_ih, dz, before, grad_x, grad_w_ih, grad_w_hh)
    sums.sum(axis=0, out=grad_b)


# --- the GRU --------------------------------------------------------------------------------------


@helper
def _gru_gates(z_x: Array, z_h: Array, bias: Array, gates: Array, units: int) -> None:
    """gates = r, z, n, W_hn h + b_hn of one sequence; bias: those of r, z, n and W_hn h."""
    both = 2 * units
    add_to(z_x[:both], z_h[:both], gates[:both])
    logistic_of_sum(gates[:both], bias[:both])
    recalled = gates[3 * units :]
    add_to(z_h[both:], bias[3 * units :], recalled)
    n = gates[both : 3 * units]
    copy(z_x[both:], n)
    add_product(gates[:units], recalled, n)
    tanh_of_sum(n, bias[both : 3 * units])


@parallel(grain=GRAIN)
def _gru(
    reverse: bool, z_x: Array, bias: Array, w_hh: Array, lengths: Array, block: int,
    panels: Array, z_h: Array, out: Array, h_n: Array, gates: Array,
) -> None:  # fmt: skip
    """Run all steps; `h_n` holds the first states, z_h (N, 3H) is scratch."""
    steps, batch, units = out.shape
    count = panels.shape[0]
    for p in prange(count):
        pack_panel(w_hh, True, np.int64(p), panels)
    blocks = (batch + block - 1) // block
    for item in prange(blocks):
        first = np.int64(item) * block
        last = min(batch, first + block)
        rows = np.empty(block, np.int64)
        edge = np.empty((TILE_ROWS, panels.shape[2]), out.dtype)
        for s in range(steps):
            t = steps - 1 - s if reverse else s
            alive = alive_rows(lengths, t, first, last, rows)
            if alive < last - first:
                for row in range(first, last):
                    if t >= lengths[row]:
                        clear(out[t, row])
                        clear(gates[t, row])
            multiply_rows(h_n, rows, alive, panels, 3 * units, False, z_h, edge)
            for i in range(alive):
                row = rows[i]
                mine = gates[t, row]
                _gru_gates(z_x[t, row], z_h[row], bias, mine, units)
                mix(mine[units : 2 * units], mine[2 * units : 3 * units], h_n[row])
                copy(h_n[row], out[t, row])


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
        z_x.size * units, reverse, z_x, bias, w_hh, _ends(lengths), _block(batch),
        panels_for(units, 3 * units, x), _scratch("step", (batch, 3 * units), x), out, h_n, gates,
    )  # fmt: skip


@parallel(grain=GRAIN)
def _gru_backward(
    reverse: bool, grad_out: Array, out: Array, gates: Array, h0: Array, w_hh: Array,
    lengths: Array, block: int, panels: Array, dh: Array, d_x: Array, d_h: Array, before: Array,
    sums: Array,
) -> None:  # fmt: skip
    """Run all steps back; dh holds the gradient of the last states and becomes that of the first."""
    steps, batch, units = out.shape
    count = panels.shape[0]
    for p in prange(count):
        pack_panel(w_hh, False, np.int64(p), panels)
    blocks = (batch + block - 1) // block
    for item in prange(blocks):
        first = np.int64(item) * block
        last = min(batch, first + block)
        rows = np.empty(block, np.int64)
        edge = np.empty((TILE_ROWS, panels.shape[2]), out.dtype)
        for s in range(steps):
            t = s if reverse else steps - 1 - s
            alive = alive_rows(lengths, t, first, last, rows)
            if alive < last - first:
                for row in range(first, last):
                    if t >= lengths[row]:
                        clear(d_x[t, row])
                        clear(d_h[t, row])
                        clear(before[t, row])
            for i in range(alive):
                row = rows[i]
                _keep_before(t, row, reverse, out, h0, lengths, before)
                mine, error = gates[t, row], d_x[t, row]
                r, z = mine[:units], mine[units : 2 * units]
                n, recalled = mine[2 * units : 3 * units], mine[3 * units :]
                add(grad_out[t, row], dh[row])
                dn = error[2 * units :]
                candidate_error(dh[row], z, n, dn)
                update_error(dh[row], n, before[t, row], z, error[units : 2 * units])
                logistic_error(dn, recalled, r, error[:units])
                copy(error, d_h[t, row])
                scale(r, d_h[t, row, 2 * units :])
                total = sums[row // TILE_ROWS]
                add(error, total[: 3 * units])
                add(d_h[t, row, 2 * units :], total[3 * units :])
                scale(z, dh[row])
            multiply_rows(d_h[t], rows, alive, panels, units, True, dh, edge)


@kernel("gru_backward", backend="numba", name="rows", replayable=False)
def gru_backward(
    grad_out: Array, grad_h_n: Array, x: Array, h0: Array, w_ih: Array, w_hh: Array, out: Array,
    gates: Array, lengths: Array | None, reverse: bool, grad_x: Array, grad_h0: Array,
    grad_w_ih: Array, grad_w_hh: Array, grad_b_ih: Array, grad_b_hh: Array,
) -> None:  # fmt: skip
    """The errors of r, z, n from the last step to the first, then the products over all steps."""
    grad_h0[...] = grad_h_n
    steps, batch, units = out.shape
    d_x = _scratch("errors", (steps, batch, 3 * units), x)
    d_h, before = _scratch("errors of h", d_x.shape, x), _scratch("states", out.shape, x)
    sums = _bias_sums(batch, 4 * units, x)
    if out.size:
        _gru_backward(
            d_x.size * units, reverse, grad_out, out, gates, h0, w_hh, _ends(lengths),
            _block(batch), panels_for(3 * units, units, x), grad_h0, d_x, d_h, before,
            sums,
        )  # fmt: skip
    _weight_gradients(d_x, x, lengths, w_ih, d_h, before, grad_x, grad_w_ih, grad_w_hh)
    total = sums.sum(axis=0)
    grad_b_ih[...] = total[: 3 * units]
    grad_b_hh[: 2 * units] = total[: 2 * units]
    grad_b_hh[2 * units :] = total[3 * units :]


# --- the LSTM -------------------------------------------------------------------------------------


@helper
def _lstm_gates(gates: Array, bias: Array, units: int, h: Array, c: Array) -> None:
    """Activate z into i, f, g, o and take h and c of one sequence a step on."""
    i, f = gates[:units], gates[units : 2 * units]
    g, o = gates[2 * units : 3 * units], gates[3 * units :]
    logistic_of_sum(gates[: 2 * units], bias[: 2 * units])
    tanh_of_sum(g, bias[2 * units : 3 * units])
    logistic_of_sum(o, bias[3 * units :])
    scale(f, c)
    add_product(i, g, c)
    gated_tanh(o, c, h)


@parallel(grain=GRAIN)
def _lstm(
    reverse: bool, bias: Array, w_hh: Array, lengths: Array, block: int, panels: Array,
    out: Array, h_n: Array, c_n: Array, c: Array, gates: Array,
) -> None:  # fmt: skip
    """Run all steps; `gates` holds W_ih x, `h_n` and `c_n` the first states."""
    steps, batch, units = out.shape
    count = panels.shape[0]
    for p in prange(count):
        pack_panel(w_hh, True, np.int64(p), panels)
    blocks = (batch + block - 1) // block
    for item in prange(blocks):
        first = np.int64(item) * block
        last = min(batch, first + block)
        rows = np.empty(block, np.int64)
        edge = np.empty((TILE_ROWS, panels.shape[2]), out.dtype)
        for s in range(steps):
            t = steps - 1 - s if reverse else s
            alive = alive_rows(lengths, t, first, last, rows)
            if alive < last - first:
                for row in range(first, last):
                    if t >= lengths[row]:
                        clear(out[t, row])
                        clear(gates[t, row])
                        copy(c_n[row], c[t, row])
            multiply_rows(h_n, rows, alive, panels, 4 * units, True, gates[t], edge)
            for i in range(alive):
                row = rows[i]
                _lstm_gates(gates[t, row], bias, units, h_n[row], c_n[row])
                copy(h_n[row], out[t, row])
                copy(c_n[row], c[t, row])


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
        gates.size * units, reverse, _bias(4 * units, x, b_ih, b_hh), w_hh, _ends(lengths),
        _block(x.shape[1]), panels_for(units, 4 * units, x), out, h_n, c_n, c, gates,
    )  # fmt: skip


@helper
def _lstm_errors(
    gates: Array, c: Array, before: Array, units: int, tanh_c: Array, dh: Array, dc: Array,
    dz: Array,
) -> None:  # fmt: skip
    """dz of one sequence from dh and dc, which becomes that of the step before."""
    i, f = gates[:units], gates[units : 2 * units]
    g, o = gates[2 * units : 3 * units], gates[3 * units :]
    tanh_of(c, tanh_c)
    through_tanh(dh, o, tanh_c, dc)
    logistic_error(dh, tanh_c, o, dz[3 * units :])
    logistic_error(dc, g, i, dz[:units])
    logistic_error(dc, before, f, dz[units : 2 * units])
    tanh_error(dc, i, g, dz[2 * units : 3 * units])
    scale(f, dc)


@parallel(grain=GRAIN)
def _lstm_backward(
    reverse: bool, grad_out: Array, out: Array, c: Array, gates: Array, h0: Array, c0: Array,
    w_hh: Array, lengths: Array, block: int, panels: Array, dh: Array, dc: Array, dz: Array,
    before: Array, sums: Array,
) -> None:  # fmt: skip
    """Run all steps back; dh, dc hold gradients of the last states and become those of the first."""
    steps, batch, units = out.shape
    count = panels.shape[0]
    for p in prange(count):
        pack_panel(w_hh, False, np.int64(p), panels)
    blocks = (batch + block - 1) // block
    for item in prange(blocks):
        first = np.int64(item) * block
        last = min(batch, first + block)
        rows = np.empty(block, np.int64)
        edge = np.empty((TILE_ROWS, panels.shape[2]), out.dtype)
        tanh_c = np.empty(units, out.dtype)
        for s in range(steps):
            t = s if reverse else steps - 1 - s
            u = t + 1 if reverse else t - 1
            alive = alive_rows(lengths, t, first, last, rows)
            if alive < last - first:
                for row in range(first, last):
                    if t >= lengths[row]:
                        clear(dz[t, row])
                        clear(before[t, row])
            for i in range(alive):
                row = rows[i]
                _keep_before(t, row, reverse, out, h0, lengths, before)
                add(grad_out[t, row], dh[row])
                c_before = c[u, row] if u >= 0 and u < steps else c0[row]
                _lstm_errors(
                    gates[t, row], c[t, row], c_before, units, tanh_c, dh[row], dc[row], dz[t, row]
                )
                add(dz[t, row], sums[row // TILE_ROWS])
            multiply_rows(dz[t], rows, alive, panels, units, False, dh, edge)


@kernel("lstm_backward", backend="numba", name="rows", replayable=False)
def lstm_backward(
    grad_out: Array, grad_h_n: Array, grad_c_n: Array, x: Array, h0: Array, c0: Array,
    w_ih: Array, w_hh: Array, out: Array, c: Array, gates: Array, lengths: Array | None,
    reverse: bool, grad_x: Array, grad_h0: Array, grad_c0: Array, grad_w_ih: Array,
    grad_w_hh: Array, grad_b: Array,
) -> None:  # fmt: skip
    """The errors of i, f, g, o from the last step to the first, then the products over all steps."""
    grad_h0[...], grad_c0[...] = grad_h_n, grad_c_n
    units = h0.shape[1]
    dz, before = _scratch("errors", gates.shape, x), _scratch("states", out.shape, x)
    sums = _bias_sums(x.shape[1], 4 * units, x)
    if out.size:
        _lstm_backward(
            gates.size * units, reverse, grad_out, out, c, gates, h0, c0, w_hh, _ends(lengths),
            _block(x.shape[1]), panels_for(4 * units, units, x), grad_h0, grad_c0, dz, before,
            sums,
        )  # fmt: skip
    _weight_gradients(dz, x, lengths, w_ih, dz, before, grad_x, grad_w_ih, grad_w_hh)
    sums.sum(axis=0, out=grad_b)
