"""Philox words: those of `trine.random`, several blocks of four at a time.

A vector holds one word of as many blocks as it has 64-bit lanes, so that products of 32-bit words
fit. A block's words belong to neighbouring elements: shuffles put them in order at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange
from numba.core import cgutils, types
from numba.extending import intrinsic

from trine.dtypes import Array
from trine.kernels.numba.jit import parallel
from trine.kernels.numba.simd import VECTOR_BYTES, Vectors, address, number
from trine.kernels.registry import kernel
from trine.random import (
    KEY_WORDS,
    MAX_WORDS,
    PHILOX_M0,
    PHILOX_M1,
    PHILOX_ROUNDS,
    PHILOX_W0,
    PHILOX_W1,
)

_I32, _I64 = ir.IntType(32), ir.IntType(64)
BLOCKS = VECTOR_BYTES // 8
"""Blocks that are drawn at a time."""
GROUP = 4 * BLOCKS
"""Words of so many blocks."""
CHUNK = 4096
"""Words that one thread makes at a time."""
PHILOX_WORK = 4
"""Simple operations that a random word counts for."""
_WIDE = ir.VectorType(_I64, BLOCKS)
_LOW = ir.Constant(_WIDE, [0xFFFFFFFF] * BLOCKS)
_HALF = ir.Constant(_WIDE, [32] * BLOCKS)


def _everywhere(b: Any, value: Any) -> Any:
    empty = ir.Constant(_WIDE, ir.Undefined)
    zeros = ir.Constant(ir.VectorType(_I32, BLOCKS), [0] * BLOCKS)
    return b.shuffle_vector(b.insert_element(empty, value, ir.Constant(_I32, 0)), empty, zeros)


def read_key(b: Any, key: Any) -> list[Any]:
    """Return the five words of a key array, uint32 (5,) at an address, each in all lanes."""
    start = b.inttoptr(key, ir.PointerType(_I32))
    words = [b.load(b.gep(start, [number(i)])) for i in range(KEY_WORDS)]
    return [_everywhere(b, b.zext(word, _I64)) for word in words]


def draw(b: Any, key: list[Any], block: Any) -> list[Any]:
    """Return the words of BLOCKS blocks from number `block` on, in order: vectors of 32-bit words."""
    lanes = ir.Constant(_WIDE, list(range(BLOCKS)))
    c0, c1, c2, c3 = b.and_(b.add(_everywhere(b, block), lanes), _LOW), *key[2:]
    k0, k1 = key[:2]
    for _ in range(PHILOX_ROUNDS):
        product0 = b.mul(c0, ir.Constant(_WIDE, [PHILOX_M0] * BLOCKS))
        product1 = b.mul(c2, ir.Constant(_WIDE, [PHILOX_M1] * BLOCKS))
        c0 = b.xor(b.xor(b.lshr(product1, _HALF), c1), k0)
        c2 = b.xor(b.xor(b.lshr(product0, _HALF), c3), k1)
        c1, c3 = b.and_(product1, _LOW), b.and_(product0, _LOW)
        k0 = b.and_(b.add(k0, ir.Constant(_WIDE, [PHILOX_W0] * BLOCKS)), _LOW)
        k1 = b.and_(b.add(k1, ir.Constant(_WIDE, [PHILOX_W1] * BLOCKS)), _LOW)
    first = b.or_(c0, b.shl(c1, _HALF))  # two words of a block side by side
    second = b.or_(c2, b.shl(c3, _HALF))
    words = []
    for start in (0, BLOCKS // 2):
        order = [i + offset for i in range(start, start + BLOCKS // 2) for offset in (0, BLOCKS)]
        pairs = b.shuffle_vector(first, second, ir.Constant(ir.VectorType(_I32, BLOCKS), order))
        words.append(b.bitcast(pairs, ir.VectorType(_I32, 2 * BLOCKS)))
    return words


def over_groups(
    v: Vectors, key: Any, block: Any, count: Any, body: Callable[[list[Any], Any, Any], None]
) -> None:
    """Emit a loop over groups of words: body(words, place, left), left None for a whole group."""
    b = v.b
    words = read_key(b, key)
    whole = b.and_(count, number(-GROUP))
    with cgutils.for_range_slice(b, number(0), whole, number(GROUP)) as (place, _):
        body(draw(b, words, b.add(block, b.lshr(place, number(2)))), place, None)
    with b.if_then(b.icmp_signed("<", whole, count)):
        left = b.sub(count, whole)
        body(draw(b, words, b.add(block, b.lshr(whole, number(2)))), whole, left)


@intrinsic
def _bits_run(typingctx: Any, like: Any, key: Any, block: Any, count: Any, out: Any) -> Any:
    """Fill `count` words from number `block` on; `like` is a float32, by whose masks words go."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(builder, signature.args[0])
        _, key, block, count, out = args
        target = v.pointer(out)

        def body(words: list[Any], place: Any, left: Any) -> None:
            for i, part in enumerate(words):
                value = builder.bitcast(part, v.type)
                here = v.at(target, builder.add(place, number(i * v.lanes)))
                if left is None:
                    v.store(value, here)
                else:
                    mask = v.first(builder.sub(left, number(i * v.lanes)))
                    v.masked_store(value, here, mask)

        over_groups(v, key, block, count, body)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 4), emit


@parallel()
def _bits(key: Array, items: int, out: Array) -> None:
    for item in prange(items):
        start = np.int64(item) * CHUNK
        _bits_run(
            np.float32(0), address(key), start // 4, min(CHUNK, out.size - start),
            address(out) + 4 * start,
        )  # fmt: skip


@kernel("random_bits", backend="numba", name="philox")
def random_bits(key: Array, n: int, out: Array) -> None:
    """out = the first n words of the Philox draw of a key."""
    if n > MAX_WORDS:
        raise ValueError(f"[random] expected 0 to 2^34 elements a draw, got {n}. Draw in parts.")
    _bits(PHILOX_WORK * n, key, -(-n // CHUNK), out)
