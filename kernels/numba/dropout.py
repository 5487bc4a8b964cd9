"""Dropout: the mask is drawn where it is used, and drawn again for the gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange
from numba.core import types
from numba.extending import intrinsic

from trine.dtypes import Array
from trine.kernels.numba.jit import parallel
from trine.kernels.numba.random import CHUNK, PHILOX_WORK, over_groups
from trine.kernels.numba.simd import VECTOR_BYTES, Vectors, address, number
from trine.kernels.registry import kernel

WORDS = VECTOR_BYTES // 4
"""Words of a vector."""


@intrinsic
def _drop_run(
    typingctx: Any, like: Any, x: Any, key: Any, block: Any, count: Any, threshold: Any,
    scale: Any, out: Any,
) -> Any:  # fmt: skip
    """out = x scale where the upper 24 bits of the element's word reach the threshold, else 0."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Vectors(builder, signature.args[0])
        _, x, key, block, count, threshold, scale, out = args
        source, target, scales = v.pointer(x), v.pointer(out), v.broadcast(scale)
        i32 = v.indices.element
        empty = ir.Constant(v.indices, ir.Undefined)
        first = b.insert_element(empty, b.trunc(threshold, i32), ir.Constant(i32, 0))
        limits = b.shuffle_vector(first, empty, ir.Constant(v.indices, [0] * v.lanes))

        def body(words: list[Any], place: Any, left: Any) -> None:
            for i in range(len(words) * WORDS // v.lanes):
                part, start = divmod(i * v.lanes, WORDS)
                lanes = ir.Constant(v.indices, list(range(start, start + v.lanes)))
                own = b.shuffle_vector(words[part], words[part], lanes)
                drawn = b.lshr(own, ir.Constant(v.indices, [8] * v.lanes))
                kept = b.icmp_signed(">=", drawn, limits)
                at = b.add(place, number(i * v.lanes))
                here, there = v.at(source, at), v.at(target, at)
                if left is None:
                    v.store(b.select(kept, b.fmul(v.load(here), scales), v.zero), there)
                else:
                    mask = v.first(b.sub(left, number(i * v.lanes)))
                    value = b.fmul(v.masked_load(here, mask), scales)
                    v.masked_store(b.select(kept, value, v.zero), there, mask)

        over_groups(v, key, block, count, body)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 5, like, types.int64), emit


@parallel()
def _drop(x: Array, key: Array, threshold: int, scale: float, items: int, out: Array) -> None:
    for item in prange(items):
        start = np.int64(item) * CHUNK
        at = start * x.itemsize
        _drop_run(
            x.dtype.type(0), address(x) + at, address(key), start // 4,
            min(CHUNK, x.size - start), threshold, scale, address(out) + at,
        )  # fmt: skip


def _dropout(x: Array, key: Array, p: float, out: Array) -> None:
    n = x.size
    # A uniform is k 2^-24, and k 2^-24 >= p just where k reaches the ceiling of p 2^24.
    threshold = math.ceil(float(np.float32(p)) * 2.0**24)
    scale = 1 / (1 - p) if p < 1 else 0.0
    _drop(PHILOX_WORK * n, x.reshape(n), key, threshold, scale, -(-n // CHUNK), out.reshape(n))


@kernel("dropout", backend="numba", name="philox")
def dropout(x: Array, key: Array, p: float, out: Array) -> None:
    """out_i = x_i / (1 - p) where the i-th float32 uniform of the draw is at least p, else 0."""
    _dropout(x, key, p, out)


@kernel("dropout_backward", backend="numba", name="philox")
def dropout_backward(grad_out: Array, key: Array, p: float, grad_x: Array) -> None:
    """grad_x_i = grad_out_i / (1 - p) where element i was kept, else 0."""
    _dropout(grad_out, key, p, grad_x)
