"""One step of one sequence: the gates of a recurrent net, forth and back, as LLVM's vectors.

Every argument is an address of `units` elements, or of as many for each gate; what a step needs is
read once and what it leaves is written once. A running state (h, c, dh, dc) is read and replaced.
"""

from __future__ import annotations

from typing import Any

from trine.kernels.numba.native import Library
from trine.kernels.numba.simd import Vectors, number
from trine.kernels.numba.vector_loops import constant, logistic, over_run, tanh_ratio

LIBRARY = Library("gates")


def _blocks(v: Vectors, address: Any, units: Any, count: int) -> list[Any]:
    """Return where each of the blocks of an array of gates begins."""
    start = v.pointer(address)
    places = [start]
    for _ in range(count - 1):
        places.append(v.at(places[-1], units))
    return places


def _one_minus(v: Vectors, x: Any, y: Any) -> Any:
    """Return 1 - x y."""
    return v.fma(v.b.fneg(x), y, constant(v, 1))


def _logistic_slope(v: Vectors, y: Any) -> Any:
    """Return the derivative of the logistic function where it is y: y (1 - y)."""
    return v.b.fmul(y, v.b.fsub(constant(v, 1), y))


def _emit_rnn_cell(b: Any, element: Any, relu: Any, units: Any, bias: Any, z: Any, h: Any) -> None:
    """h = act(z + bias), which z becomes too."""
    v = Vectors(b, element)
    places = [v.pointer(p) for p in (z, bias)]

    def run(act: Any) -> None:
        def body(read: list[Any], held: list[Any], clean: Any) -> tuple[list[Any], list[Any]]:
            y = act(b.fadd(*read))
            return [y, y], []

        over_run(v, units, places, [v.pointer(z), v.pointer(h)], body, unroll=1)

    with b.if_else(b.icmp_signed("!=", relu, number(0))) as (rectified, otherwise):
        with rectified:
            run(lambda value: v.at_least(value, v.zero))
        with otherwise:
            run(lambda value: tanh_ratio(v, value))


def _emit_rnn_cell_back(
    b: Any, element: Any, relu: Any, units: Any, out: Any, grad_out: Any, h_before: Any, dh: Any,
    dz: Any, before: Any, sums: Any,
) -> None:  # fmt: skip
    """dz = (dh + grad_out) act'(z), by out = act(z); sums += dz; before = h_before."""
    v = Vectors(b, element)
    sources = [v.pointer(p) for p in (out, grad_out, dh, h_before, sums)]
    targets = [v.pointer(p) for p in (dz, before, sums)]

    def run(error: Any) -> None:
        def body(read: list[Any], held: list[Any], clean: Any) -> tuple[list[Any], list[Any]]:
            y, grad, d, h, total = read
            new = error(b.fadd(d, grad), y)
            return [new, h, b.fadd(total, new)], []

        over_run(v, units, sources, targets, body, unroll=1)

    with b.if_else(b.icmp_signed("!=", relu, number(0))) as (rectified, otherwise):
        with rectified:
            run(lambda d, y: b.select(b.fcmp_ordered(">", y, v.zero), d, v.zero))
        with otherwise:
            run(lambda d, y: b.fmul(d, _one_minus(v, y, y)))


def _emit_gru_cell(
    b: Any, element: Any, units: Any, bias: Any, z_x: Any, z_h: Any, gates: Any, h: Any, out: Any
) -> None:
    """r, z = logistic, n = tanh(... + r recalled); h = out = (1 - z) n + z h.

    z_x, z_h: of r, z, n; bias: of r, z, n and of what is recalled, W_hn h; gates: r, z, n, recalled.
    """
    v = Vectors(b, element)
    sources = [
        *_blocks(v, z_x, units, 3), *_blocks(v, z_h, units, 3), *_blocks(v, bias, units, 4),
        v.pointer(h),
    ]  # fmt: skip
    targets = [*_blocks(v, gates, units, 4), v.pointer(h), v.pointer(out)]

    def body(read: list[Any], held: list[Any], clean: Any) -> tuple[list[Any], list[Any]]:
        of_x, of_h, biases, state = read[:3], read[3:6], read[6:10], read[10]
        r, z = (logistic(v, b.fadd(b.fadd(of_x[i], of_h[i]), biases[i])) for i in range(2))
        recalled = b.fadd(of_h[2], biases[3])
        n = tanh_ratio(v, v.fma(r, recalled, b.fadd(of_x[2], biases[2])))
        new = v.fma(b.fsub(constant(v, 1), z), n, b.fmul(z, state))
        return [r, z, n, recalled, new, new], []

    over_run(v, units, sources, targets, body, unroll=1)


def _emit_gru_cell_back(
    b: Any, element: Any, units: Any, gates: Any, grad_out: Any, h_before: Any, dh: Any, d_x: Any,
    d_h: Any, before: Any, sums: Any,
) -> None:  # fmt: skip
    """d_x, d_h: errors of W_ih x and W_hh h for r, z, n; dh becomes (dh + grad_out) z."""
    v = Vectors(b, element)
    sources = [
        *_blocks(v, gates, units, 4), *(v.pointer(p) for p in (grad_out, dh, h_before)),
        *_blocks(v, sums, units, 4),
    ]  # fmt: skip
    targets = [
        *_blocks(v, d_x, units, 3), *_blocks(v, d_h, units, 3), *_blocks(v, sums, units, 4),
        v.pointer(dh), v.pointer(before),
    ]  # fmt: skip

    def body(read: list[Any], held: list[Any], clean: Any) -> tuple[list[Any], list[Any]]:
        r, z, n, recalled, grad, running, h = read[:7]
        d = b.fadd(running, grad)
        dn = b.fmul(b.fmul(d, b.fsub(constant(v, 1), z)), _one_minus(v, n, n))
        dz = b.fmul(b.fmul(d, b.fsub(h, n)), _logistic_slope(v, z))
        dr = b.fmul(b.fmul(dn, recalled), _logistic_slope(v, r))
        recall = b.fmul(dn, r)
        totals = [b.fadd(total, x) for total, x in zip(read[7:], (dr, dz, dn, recall), strict=True)]
        return [dr, dz, dn, dr, dz, recall, *totals, b.fmul(d, z), h], []

    over_run(v, units, sources, targets, body, unroll=1)


def _emit_lstm_cell(
    b: Any, element: Any, units: Any, bias: Any, z: Any, h: Any, c: Any, out: Any, out_c: Any
) -> None:
    """z + bias becomes the gates i, f, g, o; c = out_c = f c + i g, h = out = o tanh c."""
    v = Vectors(b, element)
    gates = _blocks(v, z, units, 4)
    sources = [*gates, *_blocks(v, bias, units, 4), v.pointer(c)]
    targets = [*gates, *(v.pointer(p) for p in (h, c, out, out_c))]

    def body(read: list[Any], held: list[Any], clean: Any) -> tuple[list[Any], list[Any]]:
        sums = [b.fadd(read[k], read[4 + k]) for k in range(4)]
        i, f, o = (logistic(v, sums[k]) for k in (0, 1, 3))
        g = tanh_ratio(v, sums[2])
        state = v.fma(f, read[8], b.fmul(i, g))
        new = b.fmul(o, tanh_ratio(v, state))
        return [i, f, g, o, new, state, new, state], []

    over_run(v, units, sources, targets, body, unroll=1)


def _emit_lstm_cell_back(
    b: Any, element: Any, units: Any, gates: Any, c: Any, c_before: Any, h_before: Any,
    grad_out: Any, dh: Any, dc: Any, dz: Any, before: Any, sums: Any,
) -> None:  # fmt: skip
    """dz of i, f, g, o from dh + grad_out and dc, which becomes that of the step before."""
    v = Vectors(b, element)
    totals = _blocks(v, sums, units, 4)
    sources = [
        *_blocks(v, gates, units, 4),
        *(v.pointer(p) for p in (c, c_before, h_before, grad_out, dh, dc)), *totals,
    ]  # fmt: skip
    targets = [*_blocks(v, dz, units, 4), *totals, v.pointer(dc), v.pointer(before)]

    def body(read: list[Any], held: list[Any], clean: Any) -> tuple[list[Any], list[Any]]:
        i, f, g, o, state, earlier, h, grad, d, running = read[:10]
        d = b.fadd(d, grad)
        y = tanh_ratio(v, state)
        error = v.fma(b.fmul(d, o), _one_minus(v, y, y), running)
        new = [
            b.fmul(b.fmul(error, g), _logistic_slope(v, i)),
            b.fmul(b.fmul(error, earlier), _logistic_slope(v, f)),
            b.fmul(b.fmul(error, i), _one_minus(v, g, g)),
            b.fmul(b.fmul(d, y), _logistic_slope(v, o)),
        ]
        added = [b.fadd(total, x) for total, x in zip(read[10:], new, strict=True)]
        return [*new, *added, b.fmul(error, f), h], []

    over_run(v, units, sources, targets, body, unroll=1)


rnn_cell = LIBRARY.function("rnn_cell", "iiiii", _emit_rnn_cell)
"""rnn_cell(like, relu, units, bias, z, h)"""
rnn_cell_back = LIBRARY.function("rnn_cell_back", "iiiiiiiii", _emit_rnn_cell_back)
"""rnn_cell_back(like, relu, units, out, grad_out, h_before, dh, dz, before, sums)"""
gru_cell = LIBRARY.function("gru_cell", "iiiiiii", _emit_gru_cell)
"""gru_cell(like, units, bias, z_x, z_h, gates, h, out)"""
gru_cell_back = LIBRARY.function("gru_cell_back", "iiiiiiiii", _emit_gru_cell_back)
"""gru_cell_back(like, units, gates, grad_out, h_before, dh, d_x, d_h, before, sums)"""
lstm_cell = LIBRARY.function("lstm_cell", "iiiiiii", _emit_lstm_cell)
"""lstm_cell(like, units, bias, z, h, c, out, out_c)"""
lstm_cell_back = LIBRARY.function("lstm_cell_back", "iiiiiiiiiii", _emit_lstm_cell_back)
"""lstm_cell_back(like, units, gates, c, c_before, h_before, grad_out, dh, dc, dz, before, sums)"""

LIBRARY.load_cached()
