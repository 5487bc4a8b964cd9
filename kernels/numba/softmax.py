"""Softmax and its logarithm, whole vectors at a time.

A long row is a run of vectors. Elsewhere a vector holds neighbouring columns and walks down the
classes; short rows are turned into such columns first, a few at a time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange
from numba.core import cgutils, types
from numba.extending import intrinsic

from trine.dtypes import Array
from trine.kernels.numba.jit import Parallel, helper, parallel
from trine.kernels.numba.simd import VECTOR_BYTES, Vectors, address, number
from trine.kernels.numba.vector_loops import across, add, constant, exp_low, larger, log, over_run
from trine.kernels.registry import kernel

_I32, _I64 = ir.IntType(32), ir.IntType(64)

EXP_WORK = 8
"""Simple operations that an exponential counts for."""
PARTS = 64
"""Parts that threads can share."""
NARROW = 32
"""Classes up to which rows are turned into columns."""
NARROW_GRADIENT = 4
"""The same for gradients, where two arrays would have to be turned."""


def _is_set(builder: Any, flag: Any) -> Any:
    return builder.icmp_signed("!=", flag, number(0))


@intrinsic
def softmax_row(typingctx: Any, like: Any, x: Any, classes: Any, is_log: Any, out: Any) -> Any:
    """out_k = exp(s_k) / sum_j exp(s_j) with s = x - max x, or its logarithm; x, out: addresses."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Vectors(builder, signature.args[0])
        _, x, classes, is_log, out = args
        source, target = v.pointer(x), v.pointer(out)
        lowest = constant(v, -math.inf)

        def raise_largest(read: Any, held: Any, clean: Any) -> Any:
            return [], [larger(v, clean(read[0]), held[0])]

        held = over_run(v, classes, [source], [], raise_largest, [lowest], larger)
        largest = v.broadcast(across(v, held[0], larger))

        def add_power(read: Any, held: Any, clean: Any) -> Any:
            power = exp_low(v, b.fsub(read[0], largest))
            return [power], [b.fadd(held[0], clean(power))]

        total = over_run(v, classes, [source], [target], add_power, [v.zero], unroll=1)
        total_everywhere = v.broadcast(across(v, total[0]))
        with b.if_else(_is_set(b, is_log)) as (logarithm, plain):
            with logarithm:
                log_sum = log(v, total_everywhere)
                over_run(
                    v, classes, [source], [target],
                    lambda read, held, clean: ([b.fsub(b.fsub(read[0], largest), log_sum)], []), unroll=1,
                )  # fmt: skip
            with plain:
                inverse = b.fdiv(constant(v, 1), total_everywhere)
                over_run(
                    v, classes, [target], [target],
                    lambda read, held, clean: ([b.fmul(read[0], inverse)], []), unroll=1,
                )  # fmt: skip
        return context.get_dummy_value()

    return types.void(like, types.int64, types.int64, types.int64, types.int64), emit


def _down(v: Vectors, classes: Any, start: Any, body: Any) -> Any:
    """Emit a loop over the classes that carries one vector: held = body(k, held)."""
    b = v.b
    cell = cgutils.alloca_once_value(b, start)
    with cgutils.for_range(b, classes, intp=_I64) as loop:
        b.store(body(loop.index, b.load(cell)), cell)
    return b.load(cell)


@intrinsic
def softmax_columns(
    typingctx: Any, like: Any, x: Any, step: Any, classes: Any, is_log: Any, out: Any
) -> Any:
    """Softmax down one vector of columns whose classes lie `step` elements apart, in place or not."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Vectors(builder, signature.args[0])
        _, x, step, classes, is_log, out = args
        source, target = v.pointer(x), v.pointer(out)

        def read(k: Any) -> Any:
            return v.load(v.at(source, b.mul(k, step)))

        def write(value: Any, k: Any) -> None:
            v.store(value, v.at(target, b.mul(k, step)))

        largest = _down(
            v, classes, constant(v, -math.inf), lambda k, held: larger(v, read(k), held)
        )
        with b.if_else(_is_set(b, is_log)) as (logarithm, plain):
            with logarithm:
                total = _down(
                    v, classes, v.zero,
                    lambda k, held: b.fadd(held, exp_low(v, b.fsub(read(k), largest))),
                )  # fmt: skip
                log_sum = log(v, total)
                with cgutils.for_range(b, classes, intp=_I64) as loop:
                    write(b.fsub(b.fsub(read(loop.index), largest), log_sum), loop.index)
            with plain:

                def add_power(k: Any, held: Any) -> Any:
                    power = exp_low(v, b.fsub(read(k), largest))
                    write(power, k)
                    return b.fadd(held, power)

                inverse = b.fdiv(constant(v, 1), _down(v, classes, v.zero, add_power))
                with cgutils.for_range(b, classes, intp=_I64) as loop:
                    place = v.at(target, b.mul(loop.index, step))
                    v.store(b.fmul(v.load(place), inverse), place)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 5), emit


@intrinsic
def gradient_row(
    typingctx: Any, like: Any, grad_out: Any, out: Any, classes: Any, is_log: Any, grad_x: Any
) -> Any:
    """grad_x = out (g - sum g out), or g - exp(out) sum g for the logarithm, for one row."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Vectors(builder, signature.args[0])
        _, grad_out, out, classes, is_log, grad_x = args
        sources = [v.pointer(grad_out), v.pointer(out)]
        target = v.pointer(grad_x)
        with b.if_else(_is_set(b, is_log)) as (logarithm, plain):
            with logarithm:
                total = over_run(
                    v, classes, sources[:1], [],
                    lambda read, held, clean: ([], [b.fadd(held[0], read[0])]), [v.zero],
                )  # fmt: skip
                gathered = v.broadcast(across(v, total[0], add))
                over_run(
                    v, classes, sources, [target],
                    lambda read, held, clean: ([_log_gradient(v, *read, gathered)], []), unroll=1,
                )  # fmt: skip
            with plain:
                total = over_run(
                    v, classes, sources, [],
                    lambda read, held, clean: ([], [v.fma(read[0], read[1], held[0])]), [v.zero],
                )  # fmt: skip
                products = v.broadcast(across(v, total[0], add))
                over_run(
                    v, classes, sources, [target],
                    lambda read, held, clean: ([b.fmul(read[1], b.fsub(read[0], products))], []), unroll=1,
                )  # fmt: skip
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 5), emit


def _log_gradient(v: Vectors, grad_out: Any, out: Any, gathered: Any) -> Any:
    return v.b.fsub(grad_out, v.b.fmul(exp_low(v, out), gathered))


@intrinsic
def gradient_columns(
    typingctx: Any, like: Any, grad_out: Any, out: Any, step: Any, classes: Any, is_log: Any,
    grad_x: Any,
) -> Any:  # fmt: skip
    """The gradient as above down one vector of columns, in place or not."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Vectors(builder, signature.args[0])
        _, grad_out, out, step, classes, is_log, grad_x = args
        errors, results, target = (v.pointer(a) for a in (grad_out, out, grad_x))

        def read(pointer: Any, k: Any) -> Any:
            return v.load(v.at(pointer, b.mul(k, step)))

        with b.if_else(_is_set(b, is_log)) as (logarithm, plain):
            with logarithm:
                gathered = _down(v, classes, v.zero, lambda k, held: b.fadd(held, read(errors, k)))
                with cgutils.for_range(b, classes, intp=_I64) as loop:
                    k = loop.index
                    value = _log_gradient(v, read(errors, k), read(results, k), gathered)
                    v.store(value, v.at(target, b.mul(k, step)))
            with plain:
                products = _down(
                    v, classes, v.zero,
                    lambda k, held: v.fma(read(errors, k), read(results, k), held),
                )  # fmt: skip
                with cgutils.for_range(b, classes, intp=_I64) as loop:
                    k = loop.index
                    value = b.fmul(read(results, k), b.fsub(read(errors, k), products))
                    v.store(value, v.at(target, b.mul(k, step)))
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 6), emit


@intrinsic
def _take_columns(
    typingctx: Any, like: Any, x: Any, offsets: Any, step: Any, classes: Any, out: Any
) -> Any:
    """out[k, lane] = x[offsets[lane] + k step]: columns from anywhere, laid side by side."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Vectors(builder, signature.args[0])
        _, x, offsets, step, classes, out = args
        starts, target = _lane_pointers(v, x, offsets), v.pointer(out)
        with cgutils.for_range(b, classes, intp=_I64) as loop:
            at = b.mul(loop.index, step)
            values = v.zero
            for lane, start in enumerate(starts):
                values = b.insert_element(values, b.load(v.at(start, at)), ir.Constant(_I32, lane))
            v.store(values, v.at(target, b.mul(loop.index, number(v.lanes))))
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 5), emit


@intrinsic
def _give_columns(
    typingctx: Any, like: Any, x: Any, offsets: Any, step: Any, classes: Any, out: Any
) -> Any:
    """out[offsets[lane] + k step] = x[k, lane]: the way back."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, v = builder, Vectors(builder, signature.args[0])
        _, x, offsets, step, classes, out = args
        source, targets = v.pointer(x), _lane_pointers(v, out, offsets)
        with cgutils.for_range(b, classes, intp=_I64) as loop:
            at = b.mul(loop.index, step)
            values = v.load(v.at(source, b.mul(loop.index, number(v.lanes))))
            for lane, target in enumerate(targets):
                b.store(b.extract_element(values, ir.Constant(_I32, lane)), v.at(target, at))
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 5), emit


def _lane_pointers(v: Vectors, base: Any, offsets: Any) -> list[Any]:
    table, start = v.b.inttoptr(offsets, ir.PointerType(_I64)), v.pointer(base)
    return [v.at(start, v.b.load(v.at(table, number(lane)))) for lane in range(v.lanes)]


@helper
def _find_columns(group: int, columns: int, classes: int, inner: int, offsets: Array) -> bool:
    """Fill where the columns of a group start; return whether they are a vector of the image.

    Images with a vector of columns or more have groups of their own. The last column stands for
    those beyond it: two threads must not work on one column.
    """
    lanes = offsets.size
    if inner >= lanes:
        blocks = (inner + lanes - 1) // lanes
        image = group // blocks
        start = (group - image * blocks) * lanes
        for lane in range(lanes):
            offsets[lane] = image * classes * inner + min(start + lane, inner - 1)
        is_vector: bool = start + lanes <= inner
        return is_vector
    for lane in range(lanes):
        column = min(group * lanes + lane, columns - 1)
        if inner == 1:
            offsets[lane] = column * classes
        else:
            image = column // inner
            offsets[lane] = image * classes * inner + column - image * inner
    return False


@helper
def group_room(classes: int, inner: int, itemsize: int) -> int:
    """Return how many elements it takes to lay a group's columns side by side, 0 if all lie so."""
    lanes = VECTOR_BYTES // itemsize
    are_vectors = inner % lanes == 0 or (inner == 1 and classes > NARROW)
    return 0 if are_vectors else classes * lanes


@helper
def softmax_groups(
    like: Any, itemsize: int, x: int, outer: int, classes: int, inner: int, is_log: int,
    first: int, last: int, room: Array, out: int,
) -> None:  # fmt: skip
    """Softmax along the middle axis of x (outer, classes, inner), for some groups of columns.

    A group is as many columns as a vector has lanes; x and out are addresses, and `room` has a
    group's size (the caller keeps it: Numba frees an array after the last mention of its name).
    """
    lanes = VECTOR_BYTES // itemsize
    columns = outer * inner
    if inner == 1 and classes > NARROW:
        for row in range(first * lanes, min(last * lanes, columns)):
            at = row * classes * itemsize
            softmax_row(like, x + at, classes, is_log, out + at)
        return
    held, offsets = address(room), np.empty(lanes, np.int64)
    for group in range(first, last):
        source, target, step = held, held, lanes
        is_vector = _find_columns(group, columns, classes, inner, offsets)
        if is_vector:
            at = offsets[0] * itemsize
            source, target, step = x + at, out + at, inner
        else:
            _take_columns(like, x, address(offsets), inner, classes, held)
        softmax_columns(like, source, step, classes, is_log, target)
        if not is_vector:
            _give_columns(like, held, address(offsets), inner, classes, out)


@parallel()
def _forward(
    x: Array, outer: int, classes: int, inner: int, is_log: int, groups: int, parts: int, out: Array
) -> None:
    for item in prange(parts):
        softmax_groups(
            x.dtype.type(0), x.itemsize, address(x), outer, classes, inner, is_log,
            np.int64(item) * groups // parts, (np.int64(item) + 1) * groups // parts,
            np.empty(group_room(classes, inner, x.itemsize), x.dtype), address(out),
        )  # fmt: skip


@helper
def _gradient_of_groups(
    like: Any, itemsize: int, grad_out: int, out: int, outer: int, classes: int, inner: int,
    is_log: int, first: int, last: int, room: Array, grad_x: int,
) -> None:  # fmt: skip
    lanes = VECTOR_BYTES // itemsize
    columns = outer * inner
    if inner == 1 and classes > NARROW_GRADIENT:
        for row in range(first * lanes, min(last * lanes, columns)):
            at = row * classes * itemsize
            gradient_row(like, grad_out + at, out + at, classes, is_log, grad_x + at)
        return
    held, offsets = address(room), np.empty(lanes, np.int64)
    other = held + classes * lanes * itemsize
    for group in range(first, last):
        errors, results, target, step = held, other, held, lanes
        is_vector = _find_columns(group, columns, classes, inner, offsets)
        if is_vector:
            at = offsets[0] * itemsize
            errors, results, target, step = grad_out + at, out + at, grad_x + at, inner
        else:
            _take_columns(like, grad_out, address(offsets), inner, classes, held)
            _take_columns(like, out, address(offsets), inner, classes, other)
        gradient_columns(like, errors, results, step, classes, is_log, target)
        if not is_vector:
            _give_columns(like, held, address(offsets), inner, classes, grad_x)


@parallel()
def _backward(
    grad_out: Array, out: Array, outer: int, classes: int, inner: int, is_log: int, groups: int,
    parts: int, grad_x: Array,
) -> None:  # fmt: skip
    for item in prange(parts):
        _gradient_of_groups(
            out.dtype.type(0), out.itemsize, address(grad_out), address(out), outer, classes, inner,
            is_log, np.int64(item) * groups // parts, (np.int64(item) + 1) * groups // parts,
            np.empty(2 * group_room(classes, inner, out.itemsize), out.dtype), address(grad_x),
        )  # fmt: skip


def groups_of_rows(rows: int, itemsize: int) -> int:
    """Return how many groups of as many rows as a vector has lanes there are."""
    return -(-rows * itemsize // VECTOR_BYTES)


def _along_axis(
    run: Parallel, arrays: tuple[Array, ...], axis: int, is_log: int, out: Array
) -> None:
    size = out.size
    if size == 0:
        return
    shape = out.shape
    axis %= len(shape)
    classes, inner = shape[axis], math.prod(shape[axis + 1 :])
    outer, lanes = size // (classes * inner), VECTOR_BYTES // out.itemsize
    of_columns = groups_of_rows(outer * inner, out.itemsize)
    groups = outer * -(-inner // lanes) if inner >= lanes else of_columns
    flat = [a.reshape(size) for a in (*arrays, out)]
    run(
        size * EXP_WORK, *flat[:-1], outer, classes, inner, is_log, groups, min(groups, PARTS),
        flat[-1],
    )  # fmt: skip


@kernel("softmax", backend="numba", name="rows")
def softmax(x: Array, axis: int, out: Array) -> None:
    """out_k = exp(x_k - max x) / sum_j exp(x_j - max x) along an axis."""
    _along_axis(_forward, (x,), axis, 0, out)


@kernel("log_softmax", backend="numba", name="rows")
def log_softmax(x: Array, axis: int, out: Array) -> None:
    """The logarithm of softmax, without taking one of a small number."""
    _along_axis(_forward, (x,), axis, 1, out)


@kernel("softmax_backward", backend="numba", name="rows")
def softmax_backward(grad_out: Array, out: Array, axis: int, grad_x: Array) -> None:
    """grad_x_k = out_k (grad_out_k - sum_j grad_out_j out_j)."""
    _along_axis(_backward, (grad_out, out), axis, 0, grad_x)


@kernel("log_softmax_backward", backend="numba", name="rows")
def log_softmax_backward(grad_out: Array, out: Array, axis: int, grad_x: Array) -> None:
    """grad_x_k = grad_out_k - exp(out_k) sum_j grad_out_j."""
    _along_axis(_backward, (grad_out, out), axis, 1, grad_x)
