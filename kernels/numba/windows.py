"""Vectors of neighbouring windows: what pooling does to them, written in LLVM's vectors.

A lane is a window. Left to itself, LLVM takes the last few windows of every row one by one, which
are half of a small plane's. Here a row's last vector overlaps the one before it, and a row narrower
than a vector is computed as a whole one: what is too much falls onto the next row, which is
written later. Only so near to the end of a plane that another plane would be hit (`room`), lanes
are stored one by one.

Arrays are passed as addresses; steps are in elements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from trine.kernels.numba.simd import Vectors, number

_I32, _I64 = ir.IntType(32), ir.IntType(64)


class Windows(Vectors):
    """Emits, besides, what moves elements between windows and lanes."""

    def __init__(self, builder: Any, scalar_type: Any) -> None:
        super().__init__(builder, scalar_type)
        self.counter = ir.IntType(8 * self.itemsize)
        self.counters = ir.VectorType(self.counter, self.lanes)
        """As wide as the elements, so that the comparison of elements chooses among them."""

    def all_of(self, value: int) -> Any:
        """Return a vector of counters."""
        return ir.Constant(self.counters, [value] * self.lanes)

    def broadcast_counter(self, value: Any) -> Any:
        """Return a vector of counters that are all an int64."""
        value = value if self.itemsize == 8 else self.b.trunc(value, _I32)
        return self.b.bitcast(self.broadcast(self.b.bitcast(value, self.scalar)), self.counters)

    def shuffled(self, x: Any, y: Any, order: list[int]) -> Any:
        """Return elements of two vectors in an order."""
        return self.b.shuffle_vector(x, y, ir.Constant(self.indices, order))

    def pairs(self, pointer: Any) -> tuple[Any, Any]:
        """Return the even and the odd ones of 2 lanes elements."""
        x, y = self.load(pointer), self.load(self.at(pointer, number(self.lanes)))
        both = range(0, 2 * self.lanes, 2)
        return self.shuffled(x, y, list(both)), self.shuffled(x, y, [i + 1 for i in both])

    def zipped(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return the two vectors that hold x[0], y[0], x[1], y[1], ..."""
        order = [place for i in range(self.lanes) for place in (i, self.lanes + i)]
        return self.shuffled(x, y, order[: self.lanes]), self.shuffled(x, y, order[self.lanes :])

    def load_step(self, pointer: Any, step: Any) -> Any:
        """Return elements that lie `step` apart."""
        values = ir.Constant(self.type, ir.Undefined)
        for lane in range(self.lanes):
            value = self.b.load(self.at(pointer, self.b.mul(step, number(lane))))
            values = self.b.insert_element(values, value, ir.Constant(_I32, lane))
        return values

    def load_evens(self, pointer: Any) -> Any:
        """Return elements that lie 2 apart; nothing beyond the last of them is read."""
        x, y = self.load(pointer), self.load(self.at(pointer, number(self.lanes - 1)))
        half = self.lanes // 2
        first, last = range(0, self.lanes, 2), range(1, self.lanes, 2)
        return self.shuffled(x, y, [*first[:half], *(self.lanes + i for i in last)])

    def load_counters(self, pointer: Any) -> Any:
        """Return bytes or int32 as a vector of counters."""
        kind = ir.VectorType(pointer.type.pointee, self.lanes)
        loaded = self.b.load(self.b.bitcast(pointer, kind.as_pointer()))
        loaded.align = 1
        if kind.element.width == self.counter.width:
            return loaded
        widen = self.b.zext if kind.element.width == 8 else self.b.sext
        return widen(loaded, self.counters)

    def narrow(self, counters: Any, kind: Any) -> Any:
        """Return a vector of counters as bytes or int32."""
        if kind.width == self.counter.width:
            return counters
        return self.b.trunc(counters, ir.VectorType(kind, self.lanes))

    def store_within(self, values: list[Any], pointer: Any, room: Any) -> None:
        """Store vectors side by side where `room` elements may be written, or their first lanes."""
        b, kind = self.b, values[0].type
        total = len(values) * self.lanes
        held = cgutils.alloca_once(b, kind, number(len(values)))
        with b.if_else(b.icmp_signed(">=", room, number(total)), likely=True) as (whole, part):
            with whole:
                target = b.bitcast(pointer, kind.as_pointer())
                for i, value in enumerate(values):
                    b.store(value, b.gep(target, [number(i)])).align = 1
            with part:
                for i, value in enumerate(values):
                    b.store(value, b.gep(held, [number(i)]))
                first = b.bitcast(held, kind.element.as_pointer())
                with cgutils.for_range(b, room, intp=_I64) as loop:
                    b.store(b.load(b.gep(first, [loop.index])), b.gep(pointer, [loop.index]))

    def beats(self, new: Any, best: Any) -> Any:
        """Return where `new` is greater than `best` or the first NaN."""
        above_or_nan = self.b.fcmp_unordered(">", new, best)
        return self.b.and_(above_or_nan, self.b.fcmp_ordered("ord", best, best))


def _index_type(numba_type: Any) -> Any:
    return ir.IntType(numba_type.bitwidth)


@intrinsic
def largest_of_quads(
    typingctx: Any, like: Any, index: Any, x: Any, pitch: Any, out: Any, argmax: Any, room: Any
) -> Any:
    """The maxima, and where they are, of windows of 2 x 2 elements side by side."""
    signature = types.void(like, index, *[types.int64] * 5)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Windows(builder, signature.args[0])
        _, _, x, pitch, out, argmax, room = args
        counter = _index_type(signature.args[1])
        top = v.pointer(x)
        rows = []
        for row, source in enumerate((top, v.at(top, pitch))):
            left, right = v.pairs(source)
            wins = v.beats(right, left)
            place = b.select(wins, v.all_of(2 * row + 1), v.all_of(2 * row))
            rows.append((b.select(wins, right, left), place))
        (upper, upper_place), (lower, lower_place) = rows
        wins = v.beats(lower, upper)
        v.store_within([b.select(wins, lower, upper)], v.pointer(out), room)
        place = v.narrow(b.select(wins, lower_place, upper_place), counter)
        v.store_within([place], b.inttoptr(argmax, counter.as_pointer()), room)
        return context.get_dummy_value()

    return signature, emit


def _store_quads(v: Windows, rows: list[list[Any]], out: Any, pitch: Any, room: Any) -> None:
    """Store the left and the right elements of two rows."""
    top = v.pointer(out)
    v.store_within(list(v.zipped(*rows[0])), top, room)
    room = v.b.sub(room, pitch)
    v.store_within(list(v.zipped(*rows[1])), v.at(top, pitch), room)


@intrinsic
def errors_of_quads(
    typingctx: Any, like: Any, index: Any, error: Any, argmax: Any, pitch: Any, out: Any, room: Any
) -> Any:
    """The errors of windows of 2 x 2, each where its maximum is, and 0 at the other three."""
    signature = types.void(like, index, *[types.int64] * 5)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Windows(builder, signature.args[0])
        _, _, error, argmax, pitch, out, room = args
        counter = _index_type(signature.args[1])
        errors = v.load(v.pointer(error))
        places = v.load_counters(b.inttoptr(argmax, counter.as_pointer()))
        found = [
            b.select(b.icmp_signed("==", places, v.all_of(n)), errors, v.zero) for n in range(4)
        ]
        _store_quads(v, [found[:2], found[2:]], out, pitch, room)
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def errors_of_threes(
    typingctx: Any, like: Any, index: Any, error: Any, pitch: Any, argmax: Any, columns: Any,
    padded: Any, upper: Any, lower: Any,
) -> Any:  # fmt: skip
    """The errors that reach two rows of elements from windows of 3 x 3 that lie 2 apart.

    Two elements side by side are in a window, in the one to its left and in those above both.
    error, argmax: addresses for the first of the windows; those above lie `pitch` errors and
    `columns` places before. padded: whether windows begin at odd elements. upper, lower: addresses
    of the elements.
    """
    signature = types.void(like, index, *[types.int64] * 7)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Windows(builder, signature.args[0])
        _, _, error, pitch, argmax, columns, padded, upper, lower = args
        first = b.inttoptr(argmax, _index_type(signature.args[1]).as_pointer())

        def window(above: bool, left: bool) -> tuple[Any, Any]:
            aside = number(int(left))
            places = (
                b.sub(b.neg(step) if above else number(0), aside) for step in (pitch, columns)
            )
            errors, counters = places
            return v.load(v.at(v.pointer(error), errors)), v.load_counters(b.gep(first, [counters]))

        def chosen(of: tuple[Any, Any], element: int) -> Any:
            return b.select(b.icmp_signed("==", of[1], v.all_of(element)), of[0], v.zero)

        here, left = window(False, False), window(False, True)
        above, above_left = window(True, False), window(True, True)
        even = b.fadd(
            b.fadd(chosen(above_left, 8), chosen(above, 6)),
            b.fadd(chosen(left, 2), chosen(here, 0)),
        )
        even_below = b.fadd(chosen(left, 5), chosen(here, 3))

        def store(row: Any, pair: tuple[Any, Any]) -> None:
            for i, value in enumerate(v.zipped(*pair)):
                v.store(value, v.at(v.pointer(row), number(i * v.lanes)))

        with b.if_else(b.icmp_signed("!=", padded, number(0))) as (odd_first, even_first):
            with odd_first:
                store(upper, (b.fadd(chosen(above_left, 7), chosen(left, 1)), even))
                store(lower, (chosen(left, 4), even_below))
            with even_first:
                store(upper, (even, b.fadd(chosen(above, 7), chosen(here, 1))))
                store(lower, (even_below, chosen(here, 4)))
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def mean_of_quads(
    typingctx: Any, like: Any, x: Any, pitch: Any, factor: Any, factors: Any, out: Any, room: Any
) -> Any:
    """The sums of windows of 2 x 2 by their divisors: factor times the vector of factors."""
    signature = types.void(like, types.int64, types.int64, like, *[types.int64] * 3)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Windows(builder, signature.args[0])
        _, x, pitch, factor, factors, out, room = args
        top = v.pointer(x)
        total = b.fadd(*v.pairs(top))
        for value in v.pairs(v.at(top, pitch)):
            total = b.fadd(total, value)
        divisor = b.fmul(v.broadcast(factor), v.load(v.pointer(factors)))
        v.store_within([b.fdiv(total, divisor)], v.pointer(out), room)
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def shares_of_quads(
    typingctx: Any, like: Any, error: Any, factor: Any, factors: Any, pitch: Any, out: Any,
    room: Any,
) -> Any:  # fmt: skip
    """Each element's share in the errors of windows of 2 x 2."""
    signature = types.void(like, types.int64, like, *[types.int64] * 4)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Windows(builder, signature.args[0])
        _, error, factor, factors, pitch, out, room = args
        divisor = b.fmul(v.broadcast(factor), v.load(v.pointer(factors)))
        share = b.fdiv(v.load(v.pointer(error)), divisor)
        _store_quads(v, [[share, share], [share, share]], out, pitch, room)
        return context.get_dummy_value()

    return signature, emit


def _each_element(
    v: Windows, x: Any, pitch: Any, rows: Any, columns: Any, step: Any, stride: Any,
    visit: Callable[[Any], None],
) -> None:  # fmt: skip
    """Emit loops over the elements of the windows; visit(values) gets one of each window."""
    b, start = v.b, v.pointer(x)

    def loops(read: Callable[[Any], Any]) -> None:
        with cgutils.for_range(b, rows, intp=_I64) as row:
            line = v.at(start, b.mul(row.index, pitch))
            with cgutils.for_range(b, columns, intp=_I64) as column:
                visit(read(v.at(line, b.mul(column.index, step))))

    with b.if_else(b.icmp_signed("==", stride, number(1))) as (side_by_side, apart):
        with side_by_side:
            loops(v.load)
        with apart, b.if_else(b.icmp_signed("==", stride, number(2))) as (by_two, farther):
            with by_two:
                loops(v.load_evens)
            with farther:
                loops(lambda pointer: v.load_step(pointer, stride))


@intrinsic
def largest(
    typingctx: Any, like: Any, index: Any, x: Any, pitch: Any, rows: Any, columns: Any, step: Any,
    stride: Any, before: Any, starts: Any, out: Any, argmax: Any, room: Any,
) -> Any:  # fmt: skip
    """The maxima, and where they are, of windows of rows x columns elements.

    before: how many elements lie in the rows above the first; starts: address of int32, the first
    column of each window that is no padding (it is the maximum where all are -inf), or -1.
    """
    signature = types.void(like, index, *[types.int64] * 11)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Windows(builder, signature.args[0])
        _, _, x, pitch, rows, columns, step, stride, before, starts, out, argmax, room = args
        counter = _index_type(signature.args[1])

        lowest = ir.Constant(v.type, [float("-inf")] * v.lanes)
        best = cgutils.alloca_once_value(b, lowest)
        first = v.load_counters(b.inttoptr(starts, _I32.as_pointer()))
        none = b.icmp_signed("<", first, v.all_of(0))
        above = v.broadcast_counter(before)
        place = cgutils.alloca_once_value(b, b.select(none, v.all_of(0), b.add(first, above)))
        here = cgutils.alloca_once_value(b, above)

        def visit(values: Any) -> None:
            held, where = b.load(best), b.load(here)
            wins = v.beats(values, held)
            b.store(b.select(wins, values, held), best)
            b.store(b.select(wins, where, b.load(place)), place)
            b.store(b.add(where, v.all_of(1)), here)

        _each_element(v, x, pitch, rows, columns, step, stride, visit)
        v.store_within([b.load(best)], v.pointer(out), room)
        places = v.narrow(b.load(place), counter)
        v.store_within([places], b.inttoptr(argmax, counter.as_pointer()), room)
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def mean(
    typingctx: Any, like: Any, x: Any, pitch: Any, rows: Any, columns: Any, stride: Any,
    factor: Any, factors: Any, out: Any, room: Any,
) -> Any:  # fmt: skip
    """The sums of windows of rows x columns by their divisors: factor times the factors."""
    signature = types.void(like, *[types.int64] * 5, like, *[types.int64] * 3)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Windows(builder, signature.args[0])
        _, x, pitch, rows, columns, stride, factor, factors, out, room = args
        total = cgutils.alloca_once_value(b, v.zero)
        _each_element(
            v, x, pitch, rows, columns, number(1), stride,
            lambda values: b.store(b.fadd(b.load(total), values), total),
        )  # fmt: skip
        divisor = b.fmul(v.broadcast(factor), v.load(v.pointer(factors)))
        v.store_within([b.fdiv(b.load(total), divisor)], v.pointer(out), room)
        return context.get_dummy_value()

    return signature, emit
