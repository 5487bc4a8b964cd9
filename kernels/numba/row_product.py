"""Products of chosen rows with packed panels, inside one thread: the step of a recurrent net.

The tile is that of `trine.kernels.numba.simd` but for two things: it has only TILE_ROWS rows on every
machine, since a thread may have few sequences, and both operands' rows come from tables, since
some sequences may have ended. Every element is summed in the order of k, whichever rows stand
beside it, so the bytes depend neither on the threads nor on the other sequences.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from trine.dtypes import Array
from trine.kernels.numba.jit import helper, scratch
from trine.kernels.numba.simd import VECTOR_BYTES, Vectors, address, lanes, number, transpose

TILE_ROWS = 4
VECTORS = 4 if VECTOR_BYTES == 64 else 3
"""4 x 3 accumulators, 3 vectors and a broadcast fill 16 registers; 32 hold 4 x 4 with ease."""

_TABLE = ir.PointerType(ir.IntType(64))


def _make_tile(vectors: int) -> Any:
    """Make the tile that is a number of vectors wide."""

    @intrinsic
    def tile(
        typingctx: Any, like: Any, a: Any, a_rows: Any, x: Any, depth: Any, add: Any, out: Any,
        out_rows: Any,
    ) -> Any:  # fmt: skip
        """out[out_rows[g] + j] (+)= sum_k a[a_rows[g] + k] x[k, j] for 0 <= g < TILE_ROWS.

        `like` is a number of the element type; a, x, out are addresses, a_rows and out_rows
        addresses of distances. Equal rows may repeat: all is read before anything is written.
        """
        signature = types.void(like, *[types.int64] * 7)

        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            v = Vectors(b, signature.args[0])
            _, a, a_rows, x, depth, add, out, out_rows = args

            def starts(base: Any, table: Any) -> list[Any]:
                first, table = v.pointer(base), b.inttoptr(table, _TABLE)
                return [v.at(first, b.load(v.at(table, number(g)))) for g in range(TILE_ROWS)]

            rows, panel = starts(a, a_rows), v.pointer(x)
            places = [
                [v.at(row, number(i * v.lanes)) for i in range(vectors)]
                for row in starts(out, out_rows)
            ]
            sums = [
                [cgutils.alloca_once_value(b, v.zero) for _ in range(vectors)]
                for _ in range(TILE_ROWS)
            ]
            with b.if_then(b.icmp_signed("!=", add, number(0))):
                for g in range(TILE_ROWS):
                    for i in range(vectors):
                        b.store(v.load(places[g][i]), sums[g][i])
            first = [[b.load(s) for s in row] for row in sums]
            before = b.block
            loop, done = b.append_basic_block("tile"), b.append_basic_block("tile_done")
            b.branch(loop)  # depth is at least 1
            b.position_at_end(loop)
            k = b.phi(ir.IntType(64))
            k.add_incoming(number(0), before)
            held = [[b.phi(v.type) for _ in range(vectors)] for _ in range(TILE_ROWS)]
            here = v.at(panel, b.mul(k, number(vectors * v.lanes)))
            read = [v.load(v.at(here, number(i * v.lanes))) for i in range(vectors)]
            new = []
            for g in range(TILE_ROWS):
                factor = v.broadcast(b.load(v.at(rows[g], k)))
                new.append([v.fma(factor, read[i], held[g][i]) for i in range(vectors)])
            following = b.add(k, number(1))
            k.add_incoming(following, loop)
            for g in range(TILE_ROWS):
                for i in range(vectors):
                    held[g][i].add_incoming(first[g][i], before)
                    held[g][i].add_incoming(new[g][i], loop)
            b.cbranch(b.icmp_signed("<", following, depth), loop, done)
            b.position_at_end(done)
            for g in range(TILE_ROWS):
                for i in range(vectors):
                    v.store(new[g][i], places[g][i])
            return context.get_dummy_value()

        return signature, emit

    return tile


_tile1, _tile2, _tile3, _tile4 = (_make_tile(n) for n in (1, 2, 3, 4))


@helper
def _tile(
    like: Any, vectors: int, a: int, a_rows: int, x: int, depth: int, add: int, out: int,
    out_rows: int,
) -> None:  # fmt: skip
    if VECTORS == 4 and vectors == 4:
        _tile4(like, a, a_rows, x, depth, add, out, out_rows)
    elif vectors == 3:
        _tile3(like, a, a_rows, x, depth, add, out, out_rows)
    elif vectors == 2:
        _tile2(like, a, a_rows, x, depth, add, out, out_rows)
    else:
        _tile1(like, a, a_rows, x, depth, add, out, out_rows)


def panels_for(depth: int, columns: int, like: Array) -> Array:
    """Return scratch for a (depth, columns) matrix in panels, (count, depth, width)."""
    width = VECTORS * lanes(like.itemsize)
    shape = -(-columns // width), depth, width
    size = shape[0] * depth * width
    return scratch("recurrent panels", size, like.dtype)[:size].reshape(shape)


@helper
def pack_panel(weight: Array, transposed: bool, p: int, panels: Array) -> None:
    """Copy some columns of a (K, columns) weight, or of its transpose, into panel p.

    The last panel is only as many whole vectors wide as it needs; zeros fill the last vector.
    """
    _, depth, width = panels.shape
    columns = weight.shape[0] if transposed else weight.shape[1]
    vector = VECTOR_BYTES // weight.itemsize
    first = p * width
    count = min(width, columns - first)
    own = (count + vector - 1) // vector * vector
    panel = panels[p].reshape(depth * width)
    zero = weight.dtype.type(0)
    if transposed:
        start = address(weight) + first * depth * weight.itemsize
        transpose(zero, weight.itemsize, start, depth, count, depth, address(panel), own)
    else:
        for k in range(depth):
            for j in range(count):
                panel[k * own + j] = weight[k, first + j]
    if count < own:
        for k in range(depth):
            for j in range(count, own):
                panel[k * own + j] = zero


@helper
def multiply_rows(
    a: Array, rows: Array, count: int, panels: Array, columns: int, add: bool, out: Array,
    edge: Array,
) -> None:  # fmt: skip
    """out[r] (+)= a[r] B for the first `count` of `rows`; B is packed, (K, columns), K >= 1.

    a, out: matrices with contiguous rows; edge: scratch of TILE_ROWS rows as wide as a panel.
    """
    depth, width = panels.shape[1], panels.shape[2]
    vector = VECTOR_BYTES // a.itemsize
    a_rows = np.empty(TILE_ROWS, np.int64)
    out_rows = np.empty(TILE_ROWS, np.int64)
    edge_rows = np.empty(TILE_ROWS, np.int64)
    for p in range(panels.shape[0]):
        first = p * width
        own = min(width, columns - first)
        vectors = (own + vector - 1) // vector
        panel = address(panels) + p * depth * width * a.itemsize
        for i in range(0, count, TILE_ROWS):
            for g in range(TILE_ROWS):
                row = rows[min(i + g, count - 1)]  # rows beyond the last repeat it
                a_rows[g] = row * a.shape[1]
                out_rows[g] = row * out.shape[1] + first
                edge_rows[g] = g * width
            if own == vectors * vector:
                _tile(
                    a.dtype.type(0), vectors, address(a), address(a_rows), panel, depth, add,
                    address(out), address(out_rows),
                )  # fmt: skip
            else:
                mine = min(TILE_ROWS, count - i)
                if add:
                    for g in range(mine):
                        for j in range(own):
                            edge[g, j] = out[rows[i + g], first + j]
                _tile(
                    a.dtype.type(0), vectors, address(a), address(a_rows), panel, depth, add,
                    address(edge), address(edge_rows),
                )  # fmt: skip
                for g in range(mine):
                    for j in range(own):
                        out[rows[i + g], first + j] = edge[g, j]


@helper
def alive_rows(lengths: Array, t: int, first: int, last: int, rows: Array) -> int:
    """Fill `rows` with those from first to last - 1 that go on at step t; returns how many."""
    count = 0
    for row in range(first, last):
        if lengths.size == 0 or t < lengths[row]:
            rows[count] = row
            count += 1
    return count
