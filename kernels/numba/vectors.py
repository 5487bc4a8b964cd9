"""LLVM's vectors: their width on this machine, and what emits code that works on them.

Widths follow the machine: AVX-512 has 64-byte vectors and 32 registers, AVX2 32 bytes and 16; else
16 bytes and 16. $TRINE_VECTOR_BYTES sets another width, to test one machine's code on another.
"""

from __future__ import annotations

import os
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from trine.kernels.numba.native import ELEMENTS


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


def lanes(itemsize: int) -> int:
    """Return how many elements a vector holds."""
    return VECTOR_BYTES // itemsize


def number(value: int) -> Any:
    return ir.Constant(_I64, value)


class Vectors:
    """Emits loads, stores and arithmetic on vectors of one element type."""

    def __init__(self, builder: Any, scalar_type: Any) -> None:
        self.b = builder
        self.scalar = ELEMENTS[scalar_type]
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

    def load_row(self, pointer: Any, count: int) -> list[Any]:
        """Return `count` vectors that follow one another."""
        return [self.load(self.at(pointer, number(i * self.lanes))) for i in range(count)]

    def floor(self, rectify: Any) -> Any:
        """Return what results are at least: 0 for a rectifier, else -Inf."""
        zero, lowest = (ir.Constant(self.scalar, x) for x in (0.0, float("-inf")))
        return self.b.select(self.b.icmp_signed("!=", rectify, number(0)), zero, lowest)

    def at_least(self, x: Any, lowest: Any) -> Any:
        """Return max(x, lowest) for scalars or vectors; NaN stays NaN."""
        return self.b.select(self.b.fcmp_ordered("<", x, lowest), lowest, x)

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
