"""What the machine can do at most: FMAs held in registers, and copies at a given size.

These are no kernels of an op; `trine.bench` measures its roofs with them. The FMA loop is written
in LLVM's own terms, since a loop left to the compiler reaches a fraction of the peak: independent
sums in whole vectors, as many as hide the latency of an FMA, and nothing from memory.
"""

from __future__ import annotations

import functools
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from trine.dtypes import Array
from trine.kernels.numba.jit import parallel, threads


@functools.lru_cache(maxsize=1)
def _machine() -> tuple[int, int, bool]:
    """Return the bytes of a vector, the sums that fit the registers, and whether FMA exists."""
    features = llvm.get_host_cpu_features()
    name = llvm.get_default_triple().split("-")[0]
    if name in ("aarch64", "arm64"):
        return 16, 20, True
    if features.get("avx512f"):
        return 64, 20, True
    if features.get("avx"):
        return 32, 10, bool(features.get("fma"))
    return 16, 10, False


def _lanes(itemsize: int) -> int:
    return _machine()[0] // itemsize


def flops_per_turn(itemsize: int) -> int:
    """Return the operations of one turn of the loop: two for each lane of each sum."""
    return 2 * _machine()[1] * _lanes(itemsize)


@intrinsic
def _fma_loop(typing: Any, count: Any, factor: Any) -> Any:
    """Run `count` turns of sums[i] = sums[i] * factor + factor; return a lane of their total."""
    width = 4 if factor == types.float32 else 8
    _, sums, fused = _machine()

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scalar = ir.FloatType() if width == 4 else ir.DoubleType()
        vector = ir.VectorType(scalar, _lanes(width))
        turns, value = args
        spread = builder.insert_element(
            ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
        )
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), _lanes(width)), None)
        spread = builder.shuffle_vector(spread, spread, zeros)
        before = builder.basic_block
        body, done = (builder.append_basic_block(name) for name in ("fma", "fma_done"))
        builder.branch(body)
        builder.position_at_end(body)
        index = builder.phi(turns.type)
        index.add_incoming(ir.Constant(turns.type, 0), before)
        held = []
        for i in range(sums):
            phi = builder.phi(vector)
            phi.add_incoming(ir.Constant(vector, [float(i + 1)] * _lanes(width)), before)
            held.append(phi)
        name = f"llvm.fma.v{_lanes(width)}f{8 * width}"
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), name
        )
        new = [
            builder.call(fma, (phi, spread, spread)) if fused
            else builder.fadd(builder.fmul(phi, spread), spread)
            for phi in held
        ]  # fmt: skip
        following = builder.add(index, ir.Constant(turns.type, 1))
        index.add_incoming(following, body)
        for phi, value_now in zip(held, new, strict=True):
            phi.add_incoming(value_now, body)
        builder.cbranch(builder.icmp_signed("<", following, turns), body, done)
        builder.position_at_end(done)
        total = new[0]
        for other in new[1:]:
            total = builder.fadd(total, other)
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return factor(types.int64, factor), codegen


@parallel(grain=0)
def _fma(turns: int, factor: Any, out: Array) -> None:
    for thread in prange(out.size):
        out[thread] = _fma_loop(turns, factor)


@parallel(grain=0)
def _copy(repeat: int, a: Array, b: Array) -> None:
    """Copy each thread's own part to and fro, so that a small one stays in its own cache."""
    for thread in prange(a.shape[0]):
        x, y = a[thread], b[thread]
        for turn in range(repeat):
            if turn % 2 == 0:
                for i in range(x.size):
                    y[i] = x[i]
            else:
                for i in range(x.size):
                    x[i] = y[i]


@parallel(grain=0, fastmath={"reassoc", "nsz"})
def _read(repeat: int, a: Array, out: Array) -> None:
    """Add up each thread's own part `repeat` times."""
    for thread in prange(a.shape[0]):
        x = a[thread]
        for _ in range(repeat):
            total = x.dtype.type(0)
            for i in range(x.size):
                total += x[i]
            out[thread] += total


@parallel(grain=0)
def _nothing(out: Array) -> None:
    for thread in prange(out.size):
        out[thread] = 0


def fma(turns: int, dtype: str) -> float:
    """Run the FMA loop on all threads; returns the operations done."""
    kind = np.dtype(dtype)
    out = np.zeros(threads.count, kind)
    _fma(1, turns, kind.type(0.5), out)
    return float(flops_per_turn(kind.itemsize)) * turns * threads.count


def buffers(nbytes: int) -> tuple[Array, Array]:
    """Return two arrays of one row a thread which together hold about `nbytes`."""
    columns = max(nbytes // (2 * 8 * threads.count), 64)
    return np.ones((threads.count, columns)), np.ones((threads.count, columns))


def copy(repeat: int, a: Array, b: Array) -> float:
    """Copy `repeat` times between two arrays of `buffers`; returns the bytes read and written."""
    _copy(1, repeat, a, b)
    return 2.0 * repeat * a.nbytes


def read(repeat: int, a: Array) -> float:
    """Read an array of `buffers` `repeat` times; returns the bytes read."""
    _read(1, repeat, a, np.zeros(len(a)))
    return float(repeat * a.nbytes)


def nothing() -> None:
    """Start all threads for nothing: what a parallel kernel costs at least."""
    _nothing(1, np.zeros(threads.count))


def thread_count() -> int:
    """Return the number of threads on which all of this runs."""
    return int(threads.count)


__all__ = ["buffers", "copy", "flops_per_turn", "fma", "nothing", "read", "thread_count"]
