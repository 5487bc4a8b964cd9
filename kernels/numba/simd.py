"""The register tile behind products and convolutions, written in LLVM's vectors.

Left to itself, LLVM reaches a fifth of the machine on these loops. So the innermost loop is spelled
out: ROWS x `vectors` accumulators that stay in registers, one fused multiply-add each a step, for

    out[g, v] (+)= sum_k a[rows[g] + k-th step] * x[k-th step + v],    0 <= g < ROWS

where a's elements are broadcast and x's are read as vectors. A step is a fixed distance or the entry
of a table, which is how taps of a convolution and pixels of an image are walked without copies.
Everything is passed as an address: an array costs seven registers a call, an address one.

Widths follow the machine: AVX-512 has 64-byte vectors and 32 registers, AVX2 32 bytes and 16; else
16 bytes and 16. $TRINE_VECTOR_BYTES sets another width, to test one machine's code on another.
"""

from __future__ import annotations

import os
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from trine.kernels.numba.jit import helper


def _vector_bytes() -> int:
    chosen = os.environ.get("TRINE_VECTOR_BYTES")
    if chosen is not None:
        if chosen not in ("16", "32", "64"):
            raise ValueError(
                f"[simd] expected TRINE_VECTOR_BYTES as 16, 32 or 64, got {chosen!r}. Leave it unset."
            )
        return int(chosen)
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx2") and features.get("fma") else 16


VECTOR_BYTES = _vector_bytes()
ROWS = 8 if VECTOR_BYTES == 64 else 4
MOST_VECTORS = 3
"""ROWS x 3 accumulators, 3 vectors and a broadcast fill the registers: 28 of 32, or 16 of 16."""

_I64 = ir.IntType(64)
_I32 = ir.IntType(32)
_POINTER_TYPES = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


def lanes(itemsize: int) -> int:
    """Return how many elements a vector holds."""
    return VECTOR_BYTES // itemsize


def number(value: int) -> Any:
    return ir.Constant(_I64, value)


class Vectors:
    """Emits loads, stores and arithmetic on vectors of one element type."""

    def __init__(self, builder: Any, scalar_type: Any) -> None:
        self.b = builder
        self.scalar = _POINTER_TYPES[scalar_type]
        self.itemsize = scalar_type.bitwidth // 8
        self.lanes = lanes(self.itemsize)
        self.type = ir.VectorType(self.scalar, self.lanes)
        self.zero = ir.Constant(self.type, [0.0] * self.lanes)
        self.name = f"v{self.lanes}f{scalar_type.bitwidth}"
        self.indices = ir.VectorType(_I32, self.lanes)
        self.mask = ir.VectorType(ir.IntType(1), self.lanes)

    def pointer(self, address: Any) -> Any:
        return self.b.inttoptr(address, self.scalar.as_pointer())

    def at(self, pointer: Any, index: Any) -> Any:
        return self.b.gep(pointer, [index])

    def load(self, pointer: Any) -> Any:
        value = self.b.load(self.b.bitcast(pointer, self.type.as_pointer()))
        value.align = self.itemsize
        return value

    def store(self, value: Any, pointer: Any) -> None:
        self.b.store(value, self.b.bitcast(pointer, self.type.as_pointer())).align = self.itemsize

    def broadcast(self, scalar: Any) -> Any:
        undefined = ir.Constant(self.type, ir.Undefined)
        first = self.b.insert_element(undefined, scalar, ir.Constant(_I32, 0))
        zeros = ir.Constant(self.indices, [0] * self.lanes)
        return self.b.shuffle_vector(first, undefined, zeros)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        kind = ir.FunctionType(self.type, [self.type] * 3)
        name = f"llvm.fma.{self.name}"
        return self.b.call(cgutils.get_or_insert_function(self.b.module, kind, name), [x, y, z])

    def first(self, count: Any) -> Any:
        """Return the mask of the first `count` lanes."""
        undefined = ir.Constant(self.indices, ir.Undefined)
        one = self.b.insert_element(undefined, self.b.trunc(count, _I32), ir.Constant(_I32, 0))
        counts = self.b.shuffle_vector(one, undefined, ir.Constant(self.indices, [0] * self.lanes))
        return self.b.icmp_signed("<", ir.Constant(self.indices, list(range(self.lanes))), counts)

    def masked_load(self, pointer: Any, mask: Any) -> Any:
        vectors = self.type.as_pointer()
        kind = ir.FunctionType(self.type, [vectors, _I32, self.mask, self.type])
        name = f"llvm.masked.load.{self.name}.p0"
        function = cgutils.get_or_insert_function(self.b.module, kind, name)
        alignment = ir.Constant(_I32, self.itemsize)
        return self.b.call(function, [self.b.bitcast(pointer, vectors), alignment, mask, self.zero])

    def masked_store(self, value: Any, pointer: Any, mask: Any) -> None:
        vectors = self.type.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [self.type, vectors, _I32, self.mask])
        name = f"llvm.masked.store.{self.name}.p0"
        function = cgutils.get_or_insert_function(self.b.module, kind, name)
        alignment = ir.Constant(_I32, self.itemsize)
        self.b.call(function, [value, self.b.bitcast(pointer, vectors), alignment, mask])

    def transposed(self, rows: list[Any]) -> list[Any]:
        """Return the columns of lanes x lanes elements, by log2(lanes) stages of shuffles."""
        n, step = self.lanes, self.lanes // 2
        while step:
            new = list(rows)
            low = [j if not j & step else n + j - step for j in range(n)]
            high = [j + step if not j & step else n + j for j in range(n)]
            for i in range(n):
                if not i & step:
                    pair = rows[i], rows[i + step]
                    new[i] = self.b.shuffle_vector(*pair, ir.Constant(self.indices, low))
                    new[i + step] = self.b.shuffle_vector(*pair, ir.Constant(self.indices, high))
            rows, step = new, step // 2
        return rows


@intrinsic
def address(typingctx: Any, array: Any) -> Any:
    """Return where an array's first element lies. The caller keeps the array alive."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, _I64)

    return types.int64(array), emit


def _make_tile(vectors: int, a_table: bool, x_table: bool) -> Any:
    """Make the tile of a number of vectors; tables of steps, or fixed steps, for a and x."""

    @intrinsic
    def tile(
        typingctx: Any,
        like: Any,
        a: Any,
        rows: Any,
        a_step: Any,
        x: Any,
        x_step: Any,
        depth: Any,
        add: Any,
        out: Any,
        out_step: Any,
    ) -> Any:
        """Compute one tile; `like` is a number of the element type, the rest are int64.

        a, x, out: addresses; rows: address of ROWS distances; a_step, x_step: distances in
        elements or addresses of tables of them; add: whether to add to what `out` holds.
        """
        signature = types.void(like, *[types.int64] * 9)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            b, v = builder, Vectors(builder, signature.args[0])
            _, a_base, row_table, a_walk, x_base, x_walk, depth, add, out, out_step = args
            table = ir.PointerType(_I64)
            row_table = b.inttoptr(row_table, table)
            a_start = v.pointer(a_base)
            bases = [v.at(a_start, b.load(v.at(row_table, number(g)))) for g in range(ROWS)]
            x_start, out_start = v.pointer(x_base), v.pointer(out)
            places = [
                [
                    v.at(out_start, b.add(b.mul(number(g), out_step), number(i * v.lanes)))
                    for i in range(vectors)
                ]
                for g in range(ROWS)
            ]
            a_walk = b.inttoptr(a_walk, table) if a_table else a_walk
            x_walk = b.inttoptr(x_walk, table) if x_table else x_walk
            sums = [
                [cgutils.alloca_once_value(b, v.zero) for _ in range(vectors)] for _ in range(ROWS)
            ]
            with b.if_then(b.icmp_signed("!=", add, number(0))):
                for g in range(ROWS):
                    for i in range(vectors):
                        b.store(v.load(places[g][i]), sums[g][i])
            entry, loop, done = (
                b.block, b.append_basic_block("tile"), b.append_basic_block("tile_done")
            )  # fmt: skip
            starts = [[b.load(s) for s in row] for row in sums]
            b.cbranch(b.icmp_signed(">", depth, number(0)), loop, done)
            b.position_at_end(loop)
            k = b.phi(_I64)
            k.add_incoming(number(0), entry)
            held = [[b.phi(v.type) for _ in range(vectors)] for _ in range(ROWS)]
            a_index = b.load(v.at(a_walk, k)) if a_table else b.mul(k, a_walk)
            x_index = b.load(v.at(x_walk, k)) if x_table else b.mul(k, x_walk)
            x_here = v.at(x_start, x_index)
            read = [v.load(v.at(x_here, number(i * v.lanes))) for i in range(vectors)]
            new = []
            for g in range(ROWS):
                factor = v.broadcast(b.load(v.at(bases[g], a_index)))
                new.append([v.fma(factor, read[i], held[g][i]) for i in range(vectors)])
            following = b.add(k, number(1))
            k.add_incoming(following, loop)
            b.cbranch(b.icmp_signed("<", following, depth), loop, done)
            b.position_at_end(done)
            for g in range(ROWS):
                for i in range(vectors):
                    held[g][i].add_incoming(starts[g][i], entry)
                    held[g][i].add_incoming(new[g][i], loop)
                    result = b.phi(v.type)
                    result.add_incoming(starts[g][i], entry)
                    result.add_incoming(new[g][i], loop)
                    places[g][i] = (result, places[g][i])
            for row in places:
                for result, place in row:
                    v.store(result, place)
            return context.get_dummy_value()

        return signature, emit

    return tile


# Kernels refer to each by a name of its own, since Numba cannot index a list of intrinsics.
_steps1, _steps2, _steps3 = (_make_tile(n, False, False) for n in (1, 2, 3))
_taps1, _taps2, _taps3 = (_make_tile(n, False, True) for n in (1, 2, 3))
_pixels1, _pixels2, _pixels3 = (_make_tile(n, True, False) for n in (1, 2, 3))


@helper
def tile_of_steps(
    like: Any, vectors: int, a: int, rows: int, a_step: int, x: int, x_step: int, depth: int,
    add: int, out: int, out_step: int,
) -> None:  # fmt: skip
    """A tile of ROWS x `vectors`: both operands advance by fixed distances (products)."""
    if vectors == 3:
        _steps3(like, a, rows, a_step, x, x_step, depth, add, out, out_step)
    elif vectors == 2:
        _steps2(like, a, rows, a_step, x, x_step, depth, add, out, out_step)
    else:
        _steps1(like, a, rows, a_step, x, x_step, depth, add, out, out_step)


@helper
def tile_of_taps(
    like: Any, vectors: int, a: int, rows: int, a_step: int, x: int, x_table: int, depth: int,
    add: int, out: int, out_step: int,
) -> None:  # fmt: skip
    """A tile of ROWS x `vectors`: x is read where a table of taps says (convolutions)."""
    if vectors == 3:
        _taps3(like, a, rows, a_step, x, x_table, depth, add, out, out_step)
    elif vectors == 2:
        _taps2(like, a, rows, a_step, x, x_table, depth, add, out, out_step)
    else:
        _taps1(like, a, rows, a_step, x, x_table, depth, add, out, out_step)


@helper
def tile_of_pixels(
    like: Any, vectors: int, a: int, rows: int, a_table: int, x: int, x_step: int, depth: int,
    add: int, out: int, out_step: int,
) -> None:  # fmt: skip
    """A tile of ROWS x `vectors`: a is read where a table of pixels says (weight gradients)."""
    if vectors == 3:
        _pixels3(like, a, rows, a_table, x, x_step, depth, add, out, out_step)
    elif vectors == 2:
        _pixels2(like, a, rows, a_table, x, x_step, depth, add, out, out_step)
    else:
        _pixels1(like, a, rows, a_table, x, x_step, depth, add, out, out_step)


@intrinsic
def _transpose_block(
    typingctx: Any, like: Any, x: Any, x_step: Any, rows: Any, columns: Any, out: Any, out_step: Any
) -> Any:
    """out[c, r] = x[r, c] for up to lanes x lanes elements; nothing else is read or written."""
    signature = types.void(like, *[types.int64] * 6)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Vectors(builder, signature.args[0])
        _, x, x_step, rows, columns, out, out_step = args
        source, target = v.pointer(x), v.pointer(out)
        full = b.and_(
            b.icmp_signed("==", rows, number(v.lanes)),
            b.icmp_signed("==", columns, number(v.lanes)),
        )
        sources = [v.at(source, b.mul(number(i), x_step)) for i in range(v.lanes)]
        targets = [v.at(target, b.mul(number(i), out_step)) for i in range(v.lanes)]
        none = ir.Constant(v.mask, [0] * v.lanes)
        with b.if_else(full) as (whole, part):
            with whole:
                for value, place in zip(
                    v.transposed([v.load(p) for p in sources]), targets, strict=True
                ):
                    v.store(value, place)
            with part:
                inside, outside = v.first(columns), v.first(rows)
                loaded = [
                    v.masked_load(p, b.select(b.icmp_signed(">", rows, number(i)), inside, none))
                    for i, p in enumerate(sources)
                ]
                for i, value in enumerate(v.transposed(loaded)):
                    mask = b.select(b.icmp_signed(">", columns, number(i)), outside, none)
                    v.masked_store(value, targets[i], mask)
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def _move_element(typingctx: Any, like: Any, x: Any, out: Any) -> Any:
    """Copy one element between two addresses."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(builder, signature.args[0])
        builder.store(builder.load(v.pointer(args[1])), v.pointer(args[2]))
        return context.get_dummy_value()

    return types.void(like, types.int64, types.int64), emit


_HAS_MASKS = VECTOR_BYTES == 64
"""AVX-512 stores parts of vectors at full speed; what came before does not."""


@helper
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


@intrinsic
def finish_run(
    typingctx: Any, like: Any, x: Any, bias: Any, rectify: Any, count: Any, out: Any
) -> Any:
    """out[j] = x[j] + bias for j < count, or max(0, x[j] + bias) where `rectify`; NaN stays NaN."""
    signature = types.void(like, types.int64, like, types.int64, types.int64, types.int64)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Vectors(builder, signature.args[0])
        _, x, bias, rectify, count, out = args
        source, target = v.pointer(x), v.pointer(out)
        lowest = b.select(
            b.icmp_signed("!=", rectify, number(0)),
            ir.Constant(v.scalar, 0.0),
            ir.Constant(v.scalar, float("-inf")),
        )
        biases, floors = v.broadcast(bias), v.broadcast(lowest)

        def finish_vector(place: Any) -> None:
            z = b.fadd(v.load(v.at(source, place)), biases)
            z = b.select(b.fcmp_ordered("<", z, floors), floors, z)
            v.store(z, v.at(target, place))

        with b.if_else(b.icmp_signed(">=", count, number(v.lanes))) as (long, short):
            with long:
                last = b.sub(count, number(v.lanes))
                with cgutils.for_range_slice(b, number(0), last, number(v.lanes), _I64) as (j, _):
                    finish_vector(j)
                finish_vector(last)  # overlaps the vector before it, with the same values
            with short, cgutils.for_range(b, count, intp=_I64) as loop:
                z = b.fadd(b.load(v.at(source, loop.index)), bias)
                z = b.select(b.fcmp_ordered("<", z, lowest), lowest, z)
                b.store(z, v.at(target, loop.index))
        return context.get_dummy_value()

    return signature, emit


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


ROW_STEPS = np.arange(ROWS, dtype=np.int64)
"""The distances of ROWS neighbours: the row table of a packed panel."""
