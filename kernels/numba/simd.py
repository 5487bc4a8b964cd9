"""The register tiles behind products and convolutions, and what brings data to them.

Left to itself, LLVM reaches a fifth of the machine on these loops. So the innermost loop is spelled
out: some rows of accumulator vectors that stay in registers, one fused multiply-add each a step, for

    out[g, v] (+)= sum_k a[rows[g] + k-th step] * x[k-th step + v],    0 <= g < rows

where a's elements are broadcast and x's are read as vectors. A step is a fixed distance or the entry
of a table, which is how taps of a convolution and pixels of an image are walked without copies.
Everything is passed as an address: an array costs seven registers a call, an address one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from trine.kernels.numba.geometry import Pair
from trine.kernels.numba.native import Library
from trine.kernels.numba.spread import inner
from trine.kernels.numba.vectors import (
    MOST_VECTORS,
    ROWS,
    VECTOR_BYTES,
    Vectors,
    address,
    lanes,
    number,
)

__all__ = ["MOST_VECTORS", "ROWS", "VECTOR_BYTES", "Vectors", "address", "lanes", "number"]

SHAPES = tuple((ROWS, vectors) for vectors in range(1, MOST_VECTORS + 1))
"""Rows and vectors of the tiles of products."""
TALL = (ROWS, 6, 3)
"""Rows of the tiles of convolutions: what fits few channels best is chosen."""
LINE_SHAPES = tuple((rows, n) for rows in TALL for n in range(1, 3 * ROWS // max(ROWS, rows) + 1))
PIXEL_ROWS = {1: (ROWS, 7, 9), 2: (ROWS, 6), 3: (ROWS,)}
"""Rows of tiles so many vectors wide: a narrow one needs many, to hide how long an FMA takes.

Each row has an address of its own; with more than nine they would not stay in registers.
"""
PIXEL_SHAPES = tuple((rows, n) for n, choice in PIXEL_ROWS.items() for rows in choice)
PICKED_ROWS = 4
"""Rows of the tiles of picked rows, on every machine: a thread may have few of them."""
PICKED_VECTORS = 4 if VECTOR_BYTES == 64 else 3
PICKED_SHAPES = tuple((PICKED_ROWS, vectors) for vectors in range(1, PICKED_VECTORS + 1))

UNROLLED = 4
"""Steps of the innermost loop at a time, a power of 2.

Where two threads share a core, each gets half of its instructions: counting must take few of them.
"""

_I64 = ir.IntType(64)

LIBRARY = Library("simd")


def _sum_up(v: Vectors, starts: list[Any], depth: Any, factors: Any, vectors: Any) -> list[Any]:
    """Emit starts[g, i] + sum_k factors(k)[g] * vectors(k)[i] over k < depth, in the order of k."""
    whole = v.b.and_(depth, number(-UNROLLED))
    sums = _add_steps(v, starts, number(0), whole, UNROLLED, factors, vectors)
    return _add_steps(v, sums, whole, depth, 1, factors, vectors)


def _add_steps(
    v: Vectors, starts: list[Any], begin: Any, end: Any, steps: int, factors: Any, vectors: Any
) -> list[Any]:
    """Emit the loop over begin <= k < end, `steps` at a time."""
    b = v.b
    first, loop, done = b.block, b.append_basic_block("step"), b.append_basic_block("done")
    b.cbranch(b.icmp_signed("<", begin, end), loop, done)
    b.position_at_end(loop)
    k = b.phi(_I64)
    held = [b.phi(v.type) for _ in starts]
    new = held
    for step in range(steps):
        here = b.add(k, number(step))
        read = vectors(here)
        broadcast = [v.broadcast(scalar) for scalar in factors(here)]
        pairs = [(factor, x) for factor in broadcast for x in read]
        new = [v.fma(factor, x, sums) for (factor, x), sums in zip(pairs, new, strict=True)]
    following = b.add(k, number(steps))
    b.cbranch(b.icmp_signed("<", following, end), loop, done)
    k.add_incoming(begin, first)
    k.add_incoming(following, loop)
    for sums, start, last in zip(held, starts, new, strict=True):
        sums.add_incoming(start, first)
        sums.add_incoming(last, loop)
    b.position_at_end(done)
    results = [b.phi(v.type) for _ in starts]
    for start, result, last in zip(starts, results, new, strict=True):
        result.add_incoming(start, first)
        result.add_incoming(last, loop)
    return results


def _tile(
    rows: int, vectors: int, a_table: bool, out_table: bool, b: Any, element: Any,
    a: Any, row_table: Any, a_walk: Any, x: Any, x_step: Any, depth: Any, add: Any, out: Any,
    out_walk: Any,
) -> None:  # fmt: skip
    """Emit one tile; a's steps come from a table, or are fixed, and so do the rows of `out`.

    a, x, out: addresses; row_table: address of the rows' distances in a; a_walk, out_walk: a distance
    in elements or the address of a table of them; add: whether to add to what `out` holds. Rows may
    repeat: all is read before anything is written.
    """
    v = Vectors(b, element)
    table = ir.PointerType(_I64)
    row_table = b.inttoptr(row_table, table)
    a_walk = b.inttoptr(a_walk, table) if a_table else a_walk
    a_start, x_start, out_start = v.pointer(a), v.pointer(x), v.pointer(out)
    bases = [v.at(a_start, b.load(v.at(row_table, number(g)))) for g in range(rows)]
    if out_table:
        out_walk = b.inttoptr(out_walk, table)
        begins = [b.load(v.at(out_walk, number(g))) for g in range(rows)]
    else:
        begins = [b.mul(number(g), out_walk) for g in range(rows)]
    places = [
        v.at(out_start, b.add(begin, number(i * v.lanes)))
        for begin in begins
        for i in range(vectors)
    ]
    entry = b.block
    with b.if_then(b.icmp_signed("!=", add, number(0))):
        before = [v.load(place) for place in places]
        adding = b.block
    starts = []
    for value in before:
        start = b.phi(v.type)
        start.add_incoming(v.zero, entry)
        start.add_incoming(value, adding)
        starts.append(start)

    def factors(k: Any) -> list[Any]:
        index = b.load(v.at(a_walk, k)) if a_table else b.mul(k, a_walk)
        return [b.load(v.at(base, index)) for base in bases]

    def read(k: Any) -> list[Any]:
        return v.load_row(v.at(x_start, b.mul(k, x_step)), vectors)

    for result, place in zip(_sum_up(v, starts, depth, factors, read), places, strict=True):
        v.store(result, place)


def _lines(
    rows: int, vectors: int, b: Any, element: Any,
    a: Any, x: Any, x_pitch: Any, x_table: Any, depth: Any, bias: Any, rectify: Any, count: Any,
    last: Any, out: Any, out_pitch: Any, out_plane: Any, valid: Any, spare: Any,
) -> None:  # fmt: skip
    """Emit tiles below one another, in the lines of an image, with bias and rectifier.

    a: address of (depth, rows); x: address of the first line of `count`, x_pitch apart, that is read
    where the table at x_table says; bias: of each row; row g of a tile goes to out + g out_plane,
    but rows from `valid` on to `spare`. The last vector of a row begins at `last`, where it may
    overlap the one before it, with the same values.
    """
    v = Vectors(b, element)
    table = b.inttoptr(x_table, ir.PointerType(_I64))
    weights, x_start, out_start = v.pointer(a), v.pointer(x), v.pointer(out)
    last_row = b.sub(valid, number(1))
    begins = [*(number(i * v.lanes) for i in range(vectors - 1)), last]
    targets, pitches, biases = [], [], []
    for g in range(rows):
        is_valid = b.icmp_signed("<", number(g), valid)
        place = v.at(out_start, b.mul(number(g), out_plane))
        targets.append(b.select(is_valid, place, v.pointer(spare)))
        pitches.append(b.select(is_valid, out_pitch, number(0)))
        biases.append(v.at(v.pointer(bias), b.select(is_valid, number(g), last_row)))
    lowest = v.broadcast(v.floor(rectify))
    with cgutils.for_range(b, count, intp=_I64) as line:
        x_line = v.at(x_start, b.mul(line.index, x_pitch))

        def factors(k: Any) -> list[Any]:
            here = v.at(weights, b.mul(k, number(rows)))
            return [b.load(v.at(here, number(g))) for g in range(rows)]

        def read(k: Any) -> list[Any]:
            here = v.at(x_line, b.load(v.at(table, k)))
            return [v.load(v.at(here, begin)) for begin in begins]

        results = _sum_up(v, [v.zero] * (rows * vectors), depth, factors, read)
        for g in range(rows):
            added = v.broadcast(b.load(biases[g]))
            target = v.at(targets[g], b.mul(line.index, pitches[g]))
            for i, begin in enumerate(begins):
                z = v.at_least(b.fadd(results[g * vectors + i], added), lowest)
                v.store(z, v.at(target, begin))


def _choice_of(name: str, arguments: int, shapes: tuple[Pair, ...], make: Any) -> Any:
    """Make a function of several shapes of tiles; it is told rows * 16 + vectors first."""

    def emit(b: Any, element: Any, shape: Any, *args: Any) -> None:
        kind, end = b.function.function_type, b.append_basic_block("end")
        choice = b.switch(shape, end)
        for rows, vectors in shapes:
            tile = ir.Function(b.module, kind, f"{name}{rows}x{vectors}_{element}")
            tile.linkage = "internal"
            tile.attributes.add("noinline")
            inside = ir.IRBuilder(tile.append_basic_block())
            make(rows, vectors, inside, element, *tile.args[1:])
            inside.ret_void()
            block = b.append_basic_block()
            choice.add_case(number(rows * 16 + vectors), block)
            b.position_at_end(block)
            b.call(tile, [shape, *args], tail=True)
            b.branch(end)
        b.position_at_end(end)

    return LIBRARY.function(name, "i" * (1 + arguments), emit)


def _of_steps(rows: int, vectors: int, *rest: Any) -> None:
    _tile(rows, vectors, False, False, *rest)


def _of_pixels(rows: int, vectors: int, *rest: Any) -> None:
    _tile(rows, vectors, True, False, *rest)


def _of_picked(rows: int, vectors: int, *rest: Any) -> None:
    _tile(rows, vectors, False, True, *rest)


_steps = _choice_of("steps", 9, SHAPES, _of_steps)
_pixels = _choice_of("pixels", 9, PIXEL_SHAPES, _of_pixels)
_picked = _choice_of("picked", 9, PICKED_SHAPES, _of_picked)
_lines_of_taps = _choice_of("lines", 14, LINE_SHAPES, _lines)


@inner
def tile_of_steps(
    like: Any, vectors: int, a: int, rows: int, a_step: int, x: int, x_step: int, depth: int,
    add: int, out: int, out_step: int,
) -> None:  # fmt: skip
    """A tile of ROWS x `vectors`: both operands advance by fixed distances (products)."""
    _steps(like, ROWS * 16 + vectors, a, rows, a_step, x, x_step, depth, add, out, out_step)


@inner
def tile_of_pixels(
    like: Any, tall: int, vectors: int, a: int, rows: int, a_table: int, x: int, x_step: int,
    depth: int, add: int, out: int, out_step: int,
) -> None:  # fmt: skip
    """A tile of `tall` x `vectors`: a is read where a table of pixels says (weight gradients)."""
    _pixels(like, tall * 16 + vectors, a, rows, a_table, x, x_step, depth, add, out, out_step)


@inner
def tile_of_picked(
    like: Any, vectors: int, a: int, rows: int, x: int, x_step: int, depth: int, add: int,
    out: int, out_rows: int,
) -> None:  # fmt: skip
    """A tile of PICKED_ROWS x `vectors`: rows of both sides lie where tables say (recurrent nets)."""
    _picked(like, PICKED_ROWS * 16 + vectors, a, rows, 1, x, x_step, depth, add, out, out_rows)


@inner
def lines_of_taps(
    like: Any, tall: int, vectors: int, a: int, x: int, x_pitch: int, x_table: int, depth: int,
    bias: int, rectify: int, count: int, last: int, out: int, out_pitch: int, out_plane: int,
    valid: int, spare: int,
) -> None:  # fmt: skip
    """Tiles of `tall` x `vectors` in `count` lines: x is read where a table of taps says."""
    _lines_of_taps(
        like, tall * 16 + vectors, a, x, x_pitch, x_table, depth, bias, rectify, count,
        last, out, out_pitch, out_plane, valid, spare,
    )  # fmt: skip


def _emit_transpose(
    b: Any, element: Any, x: Any, x_step: Any, rows: Any, columns: Any, out: Any, out_step: Any
) -> None:
    """out[c, r] = x[r, c] for up to lanes x lanes elements; nothing else is read or written."""
    v = Vectors(b, element)
    source, target = v.pointer(x), v.pointer(out)
    sources = [v.at(source, b.mul(number(i), x_step)) for i in range(v.lanes)]
    targets = [v.at(target, b.mul(number(i), out_step)) for i in range(v.lanes)]

    def whole() -> None:
        for value, place in zip(v.transposed([v.load(p) for p in sources]), targets, strict=True):
            v.store(value, place)

    if not _HAS_MASKS:  # then no other block comes here
        whole()
        return
    full = b.and_(
        b.icmp_signed("==", rows, number(v.lanes)), b.icmp_signed("==", columns, number(v.lanes))
    )
    none = ir.Constant(v.mask, [0] * v.lanes)
    with b.if_else(full) as (all_of_it, part):
        with all_of_it:
            whole()
        with part:
            inside, outside = v.first(columns), v.first(rows)
            loaded = [
                v.masked_load(p, b.select(b.icmp_signed(">", rows, number(i)), inside, none))
                for i, p in enumerate(sources)
            ]
            for i, value in enumerate(v.transposed(loaded)):
                mask = b.select(b.icmp_signed(">", columns, number(i)), outside, none)
                v.masked_store(value, targets[i], mask)


_HAS_MASKS = VECTOR_BYTES == 64
"""AVX-512 stores parts of vectors at full speed; what came before does not."""

_transpose_block = LIBRARY.function("transpose", "iiiiii", _emit_transpose)


def _emit_turn(
    b: Any, element: Any, x: Any, x_step: Any, rows: Any, out: Any, out_step: Any
) -> None:
    """out[c, r] = x[min(r, rows - 1), c] for lanes x lanes elements."""
    v = Vectors(b, element)
    source, target, last = v.pointer(x), v.pointer(out), b.sub(rows, number(1))
    lines = []
    for i in range(v.lanes):
        row = b.select(b.icmp_signed("<", number(i), last), number(i), last)
        lines.append(v.load(v.at(source, b.mul(row, x_step))))
    for i, value in enumerate(v.transposed(lines)):
        v.store(value, v.at(target, b.mul(number(i), out_step)))


_turn_block = LIBRARY.function("turn", "iiiii", _emit_turn)


@inner
def turn(
    like: Any, itemsize: int, x: int, x_step: int, rows: int, columns: int, out: int, out_step: int
) -> None:
    """out[c * out_step + r] = x[r * x_step + c], in whole vectors: beyond `rows` lies anything."""
    block = VECTOR_BYTES // itemsize
    if columns < block:
        transpose(like, itemsize, x, x_step, rows, columns, out, out_step)
        return
    for r in range(0, rows, block):
        for c in range(0, columns, block):
            first = min(c, columns - block)  # the last block overlaps the one before it
            _turn_block(
                like, x + (r * x_step + first) * itemsize, x_step, min(block, rows - r),
                out + (first * out_step + r) * itemsize, out_step,
            )  # fmt: skip


@intrinsic
def _move_element(typingctx: Any, like: Any, x: Any, out: Any) -> Any:
    """Copy one element between two addresses."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(builder, signature.args[0])
        builder.store(builder.load(v.pointer(args[1])), v.pointer(args[2]))
        return context.get_dummy_value()

    return types.void(like, types.int64, types.int64), emit


@inner
def transpose(
    like: Any, itemsize: int, x: int, x_step: int, rows: int, columns: int, out: int, out_step: int
) -> None:
    """out[c * out_step + r] = x[r * x_step + c]; x and out are addresses, steps in elements."""
    block = VECTOR_BYTES // itemsize
    for r in range(0, rows, block):
        for c in range(0, columns, block):
            down, across = min(block, rows - r), min(block, columns - c)
            source = x + (r * x_step + c) * itemsize
            target = out + (c * out_step + r) * itemsize
            if _HAS_MASKS or (down == block and across == block):
                _transpose_block(like, source, x_step, down, across, target, out_step)
            else:
                for j in range(across):
                    for i in range(down):
                        _move_element(
                            like, source + (i * x_step + j) * itemsize,
                            target + (j * out_step + i) * itemsize,
                        )  # fmt: skip


def _emit_finish_lines(
    b: Any, element: Any, x: Any, x_pitch: Any, bias: Any, rectify: Any, lines: Any, count: Any,
    out: Any, out_pitch: Any,
) -> None:  # fmt: skip
    """out[i, j] = x[i, j] + bias for j < count, or max(0, x[i, j] + bias); NaN stays NaN."""
    v = Vectors(b, element)
    lowest = v.floor(rectify)
    biases, floors = v.broadcast(bias), v.broadcast(lowest)
    last = b.sub(count, number(v.lanes))
    is_long = b.icmp_signed(">=", last, number(0))
    with cgutils.for_range(b, lines, intp=_I64) as line:
        source = v.at(v.pointer(x), b.mul(line.index, x_pitch))
        target = v.at(v.pointer(out), b.mul(line.index, out_pitch))

        def finish_vector(place: Any, source: Any = source, target: Any = target) -> None:
            z = b.fadd(v.load(v.at(source, place)), biases)
            v.store(v.at_least(z, floors), v.at(target, place))

        with b.if_else(is_long) as (long, short):
            with long:
                with cgutils.for_range_slice(b, number(0), last, number(v.lanes), _I64) as (j, _):
                    finish_vector(j)
                finish_vector(last)  # overlaps the vector before it, with the same values
            with short, cgutils.for_range(b, count, intp=_I64) as loop:
                z = b.fadd(b.load(v.at(source, loop.index)), bias)
                b.store(v.at_least(z, lowest), v.at(target, loop.index))


finish_lines = LIBRARY.function("finish_lines", "iixiiiii", _emit_finish_lines)
"""finish_lines(like, x, x_pitch, bias, rectify, lines, count, out, out_pitch)"""


def _emit_move_apart(
    b: Any, element: Any, x: Any, x_step: Any, count: Any, out: Any, out_step: Any, bias: Any
) -> None:
    """out[j * out_step] = x[j * x_step] + bias for j < count."""
    v = Vectors(b, element)
    source, target = v.pointer(x), v.pointer(out)
    last = b.sub(count, number(v.lanes))
    halves = b.and_(
        b.icmp_signed("==", x_step, number(2)), b.icmp_signed("==", out_step, number(1))
    )
    evens = ir.Constant(
        v.indices,
        [2 * i if 2 * i < v.lanes else 2 * i + 1 for i in range(v.lanes)],
    )
    biases = v.broadcast(bias)

    def move_evens(place: Any) -> None:
        """Nothing beyond the last of the elements is read."""
        start = v.at(source, b.add(place, place))
        x, y = v.load(start), v.load(v.at(start, number(v.lanes - 1)))
        v.store(b.fadd(b.shuffle_vector(x, y, evens), biases), v.at(target, place))

    with b.if_else(b.and_(halves, b.icmp_signed(">=", last, number(0)))) as (many, few):
        with many:
            with cgutils.for_range_slice(b, number(0), last, number(v.lanes), _I64) as (j, _):
                move_evens(j)
            move_evens(last)  # overlaps the vector before it
        with few, cgutils.for_range(b, count, intp=_I64) as loop:
            value = b.fadd(b.load(v.at(source, b.mul(loop.index, x_step))), bias)
            b.store(value, v.at(target, b.mul(loop.index, out_step)))


move_apart = LIBRARY.function("move_apart", "iiiiix", _emit_move_apart)
"""move_apart(like, x, x_step, count, out, out_step, bias)"""


@intrinsic
def load_int(typingctx: Any, place: Any) -> Any:
    """Return the int64 at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], ir.PointerType(_I64)))

    return types.int64(types.int64), emit


@intrinsic
def move_vector(typingctx: Any, like: Any, x: Any, out: Any) -> Any:
    """Copy one vector between two addresses."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(builder, signature.args[0])
        v.store(v.load(v.pointer(args[1])), v.pointer(args[2]))
        return context.get_dummy_value()

    return types.void(like, types.int64, types.int64), emit


LIBRARY.load_cached()

ROW_STEPS = np.arange(ROWS, dtype=np.int64)
"""The distances of ROWS neighbours: the row table of a packed panel."""
