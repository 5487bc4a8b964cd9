"""Strips of a matrix: a few vectors side by side, walked down row by row.

Sums over rows stay in registers on the way. The last strip of a matrix may be narrower: what lies
beside it is neither read nor written. Tables of constants or sums of columns have a strip's width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from trine.kernels.numba.jit import helper
from trine.kernels.numba.simd import VECTOR_BYTES, Vectors, number

VECTORS = 4
_I64 = ir.IntType(64)

Body = Callable[[list[Any], list[Any], list[Any]], tuple[list[Any], list[Any]]]


@helper
def strip_width(itemsize: int) -> int:
    """Return the columns of a strip."""
    return VECTORS * (VECTOR_BYTES // itemsize)


def _over_strip(
    v: Vectors, rows: Any, step: Any, columns: Any, sources: Sequence[Any],
    targets: Sequence[Any], tables: Sequence[Any], sums: Sequence[Any], body: Body,
) -> None:  # fmt: skip
    """Emit a loop over rows, `step` elements apart; fill the tables `sums`.

    body(read, constants, held) -> (written, held), each a list of vectors: elements of the sources,
    of the tables, what is added up, and what goes to the targets.
    """
    b = v.b
    constants = [[v.load(v.at(t, number(i * v.lanes))) for t in tables] for i in range(VECTORS)]
    cells = [[cgutils.alloca_once_value(b, v.zero) for _ in sums] for _ in range(VECTORS)]

    def walk(masks: list[Any]) -> None:
        with cgutils.for_range(b, rows, intp=_I64) as loop:
            at = b.mul(loop.index, step)
            for i, mask in enumerate(masks):
                place = b.add(at, number(i * v.lanes))
                places = [v.at(p, place) for p in sources]
                read = [v.load(p) if mask is None else v.masked_load(p, mask) for p in places]
                written, held = body(read, constants[i], [b.load(c) for c in cells[i]])
                for value, cell in zip(held, cells[i], strict=True):
                    b.store(value, cell)
                for value, target in zip(written, targets, strict=True):
                    if mask is None:
                        v.store(value, v.at(target, place))
                    else:
                        v.masked_store(value, v.at(target, place), mask)

    is_whole = b.icmp_signed("==", columns, number(VECTORS * v.lanes))
    with b.if_else(is_whole) as (whole, part):
        with whole:
            walk([None] * VECTORS)
        with part:
            walk([v.first(b.sub(columns, number(i * v.lanes))) for i in range(VECTORS)])
    for i, row in enumerate(cells):
        for cell, table in zip(row, sums, strict=True):
            v.store(b.load(cell), v.at(table, number(i * v.lanes)))


@intrinsic
def strip_sums(
    typingctx: Any, like: Any, x: Any, step: Any, rows: Any, columns: Any, table: Any
) -> Any:
    """table (3, width): from the first row, a centre, fill the sums of d = x - centre and of d^2."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(builder, signature.args[0])
        _, x, step, rows, columns, table = args
        centre, *sums = _rows_of(v, table, 3)

        def body(read: Any, constants: Any, held: Any) -> Any:
            d = v.b.fsub(read[0], constants[0])
            return [], [v.b.fadd(held[0], d), v.fma(d, d, held[1])]

        _over_strip(v, rows, step, columns, [v.pointer(x)], [], [centre], sums, body)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 5), emit


def _rows_of(v: Vectors, table: Any, count: int) -> list[Any]:
    start = v.pointer(table)
    return [v.at(start, number(i * VECTORS * v.lanes)) for i in range(count)]


@intrinsic
def strip_gradient_sums(
    typingctx: Any, like: Any, grad_out: Any, x: Any, step: Any, rows: Any, columns: Any,
    table: Any,
) -> Any:  # fmt: skip
    """table (3, width): from the first row, a centre, the sums of g = grad_out and g (x - centre)."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(builder, signature.args[0])
        _, grad_out, x, step, rows, columns, table = args
        centre, *sums = _rows_of(v, table, 3)

        def body(read: Any, constants: Any, held: Any) -> Any:
            d = v.b.fsub(read[1], constants[0])
            return [], [v.b.fadd(held[0], read[0]), v.fma(read[0], d, held[1])]

        sources = [v.pointer(grad_out), v.pointer(x)]
        _over_strip(v, rows, step, columns, sources, [], [centre], sums, body)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 6), emit


@intrinsic
def strip_lines(
    typingctx: Any, like: Any, x: Any, step: Any, rows: Any, columns: Any, table: Any, out: Any
) -> Any:
    """out = (x - centre) scale + shift; table (3, width): centre, scale and shift of columns."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(builder, signature.args[0])
        _, x, step, rows, columns, table, out = args

        def body(read: Any, constants: Any, held: Any) -> Any:
            centre, scale, shift = constants
            return [v.fma(v.b.fsub(read[0], centre), scale, shift)], []

        tables = _rows_of(v, table, 3)
        _over_strip(v, rows, step, columns, [v.pointer(x)], [v.pointer(out)], tables, [], body)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 6), emit


@intrinsic
def strip_gradient_lines(
    typingctx: Any, like: Any, grad_out: Any, x: Any, step: Any, rows: Any, columns: Any,
    table: Any, grad_x: Any,
) -> Any:  # fmt: skip
    """grad_x = grad_out scale + (x - centre) slope + shift; table (4, width) in that order."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(builder, signature.args[0])
        _, grad_out, x, step, rows, columns, table, grad_x = args

        def body(read: Any, constants: Any, held: Any) -> Any:
            scale, centre, slope, shift = constants
            rest = v.fma(v.b.fsub(read[1], centre), slope, shift)
            return [v.fma(read[0], scale, rest)], []

        tables = _rows_of(v, table, 4)
        sources = [v.pointer(grad_out), v.pointer(x)]
        _over_strip(v, rows, step, columns, sources, [v.pointer(grad_x)], tables, [], body)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 7), emit
