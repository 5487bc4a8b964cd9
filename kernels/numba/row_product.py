"""Products of picked rows with packed panels, inside one thread: the step of a recurrent net.

Rows are picked by tables, since some sequences may have ended, in tiles of few rows, since a thread
may have few sequences. Every element is summed in the order of k, whichever rows stand beside it, so
the bytes depend neither on the threads nor on the other sequences.
"""

from __future__ import annotations

from trine.dtypes import Array
from trine.kernels.numba.gemm import panel_start
from trine.kernels.numba.simd import (
    PICKED_ROWS,
    PICKED_VECTORS,
    VECTOR_BYTES,
    address,
    tile_of_picked,
)
from trine.kernels.numba.spread import inner

TILE_ROWS = PICKED_ROWS
VECTORS = PICKED_VECTORS


@inner
def alive_rows(lengths: Array, t: int, first: int, last: int, rows: Array) -> int:
    """Fill `rows` with those from first to last - 1 that go on at step t; returns how many."""
    count = 0
    for row in range(first, last):
        if lengths.size == 0 or t < lengths[row]:
            rows[count] = row
            count += 1
    return count


@inner
def row_starts(rows: Array, count: int, offset: int, width: int, starts: Array) -> None:
    """starts[i] = (offset + rows[i]) width; those that fill up the last tile repeat the last row."""
    whole = (count + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS
    for i in range(whole):
        starts[i] = (offset + rows[min(i, count - 1)]) * width


@inner
def multiply_rows(
    a: Array, a_starts: Array, count: int, panels: Array, panel_count: int, depth: int,
    columns: int, add: bool, out: Array, out_starts: Array, edge: Array, edge_starts: Array,
) -> None:  # fmt: skip
    """The i-th row of out (+)= the i-th row of a times B for i < count.

    Rows begin at `a_starts` and `out_starts` in the memory of a and out; B (depth, columns) lies in
    panels. edge: scratch for TILE_ROWS rows of a panel that is not filled, which begin at
    `edge_starts`.
    """
    zero, size = a.dtype.type(0), a.itemsize
    vector = VECTOR_BYTES // size
    values, spare = out.reshape(out.size), edge.reshape(edge.size)
    for p in range(panel_count):
        first = panel_start(p, panel_count, columns, vector)
        own = panel_start(p + 1, panel_count, columns, vector) - first
        panel = address(panels) + first * depth * size
        mine = min(own, columns - first)
        for i in range(0, count, TILE_ROWS):
            rows = address(a_starts) + 8 * i
            if mine == own:
                tile_of_picked(
                    zero, own // vector, address(a), rows, panel, own, depth, add,
                    address(out) + first * size, address(out_starts) + 8 * i,
                )  # fmt: skip
                continue
            tall = min(TILE_ROWS, count - i)
            if add:
                for g in range(tall):
                    for j in range(mine):
                        spare[edge_starts[g] + j] = values[out_starts[i + g] + first + j]
            tile_of_picked(
                zero, own // vector, address(a), rows, panel, own, depth, add, address(edge),
                address(edge_starts),
            )  # fmt: skip
            for g in range(tall):
                for j in range(mine):
                    values[out_starts[i + g] + first + j] = spare[edge_starts[g] + j]
