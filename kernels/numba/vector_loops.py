"""Loops over runs of elements, and functions of vectors, emitted as LLVM's vectors.

A loop says what becomes of one vector: of what was read, and of the sums that it carries. Whole
vectors are taken `unroll` at a time, each with sums of its own, so that additions need not wait for
one another; the end of a run is read and written under a mask. So sums are added in an order that
depends on the run's length alone, and nothing needs room behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from trine.kernels.numba import maths
from trine.kernels.numba.simd import Vectors, number

_I32 = ir.IntType(32)

Join = Callable[[Vectors, Any, Any], Any]
"""How two vectors of partial results become one."""


def add(v: Vectors, x: Any, y: Any) -> Any:
    return v.b.fadd(x, y)


def larger(v: Vectors, x: Any, y: Any) -> Any:
    """Return the larger of each pair; where one is NaN, y."""
    return v.b.select(v.b.fcmp_ordered(">", x, y), x, y)


def constant(v: Vectors, value: Any) -> Any:
    return ir.Constant(v.type, [float(value)] * v.lanes)


def across(v: Vectors, x: Any, join: Join = add) -> Any:
    """Return what the lanes of a vector join to, half by half."""
    width = v.lanes
    while width > 1:
        width //= 2
        low, high = (
            ir.Constant(ir.VectorType(_I32, width), list(range(start, start + width)))
            for start in (0, width)
        )
        empty = ir.Constant(x.type, ir.Undefined)
        x = join(v, v.b.shuffle_vector(x, empty, low), v.b.shuffle_vector(x, empty, high))
    return v.b.extract_element(x, ir.Constant(_I32, 0))


Body = Callable[[list[Any], list[Any], Callable[[Any], Any]], tuple[list[Any], list[Any]]]


def over_run(
    v: Vectors,
    count: Any,
    sources: Sequence[Any],
    targets: Sequence[Any],
    body: Body,
    starts: Sequence[Any] = (),
    join: Join = add,
    unroll: int = 4,
) -> list[Any]:
    """Emit a loop over `count` elements and return what it carries, as vectors.

    body(read, held, clean) -> (written, held): vectors of the sources, what is carried, and what
    goes to the targets. clean(vector) replaces the lanes behind the run by `starts`' first value.
    """
    b = v.b
    slots = [[cgutils.alloca_once_value(b, s) for s in starts] for _ in range(unroll)]

    def step(place: Any, slot: list[Any], mask: Any = None) -> None:
        def clean(value: Any) -> Any:
            return value if mask is None else b.select(mask, value, starts[0])

        places = [v.at(p, place) for p in sources]
        read = [v.load(p) if mask is None else v.masked_load(p, mask) for p in places]
        written, held = body(read, [b.load(s) for s in slot], clean)
        for value, cell in zip(held, slot, strict=True):
            b.store(value, cell)
        for value, p in zip(written, targets, strict=True):
            if mask is None:
                v.store(value, v.at(p, place))
            else:
                v.masked_store(value, v.at(p, place), mask)

    step_size = unroll * v.lanes
    whole = b.and_(count, number(-step_size))
    vectors = b.and_(count, number(-v.lanes))
    with cgutils.for_range_slice(b, number(0), whole, number(step_size)) as (j, _):
        for u, slot in enumerate(slots):
            step(b.add(j, number(u * v.lanes)), slot)
    if unroll > 1:
        with cgutils.for_range_slice(b, whole, vectors, number(v.lanes)) as (j, _):
            step(j, slots[0])
    with b.if_then(b.icmp_signed("<", vectors, count)):
        step(vectors, slots[0], v.first(b.sub(count, vectors)))
    held = [[b.load(s) for s in slot] for slot in slots]
    while len(held) > 1:
        half = len(held) // 2
        held = [
            [join(v, x, y) for x, y in zip(held[i], held[i + half], strict=True)]
            for i in range(half)
        ]
    return held[0]


# --- functions of vectors -----------------------------------------------------------------------


def _in_float64(v: Vectors, name: str, x: Any) -> Any:
    """Call the C library for each lane."""
    kind = ir.FunctionType(v.type, [v.type])
    function = cgutils.get_or_insert_function(v.b.module, kind, f"llvm.{name}.{v.name}")
    return v.b.call(function, [x])


def _polynomial(v: Vectors, x: Any, coefficients: Sequence[Any]) -> Any:
    """Horner's scheme, highest power first."""
    result = constant(v, coefficients[0])
    for c in coefficients[1:]:
        result = v.fma(result, x, constant(v, c))
    return result


def _whole(v: Vectors, value: int) -> Any:
    return ir.Constant(v.indices, [value] * v.lanes)


def exp_within(v: Vectors, x: Any) -> Any:
    """Return e^x for x from -87 to 89, beyond which it stays what it is there."""
    if v.itemsize == 8:
        return _in_float64(v, "exp", x)
    b = v.b
    lowest, highest = constant(v, maths.FLUSHED), constant(v, maths.HIGHEST)
    x = b.select(b.fcmp_ordered("<", x, lowest), lowest, x)  # NaN passes through
    x = b.select(b.fcmp_ordered(">", x, highest), highest, x)
    rounder = constant(v, maths.ROUNDER)
    t = v.fma(x, constant(v, maths.LOG2_E), rounder)
    n = b.fsub(t, rounder)
    r = v.fma(n, constant(v, -maths.LN2_HIGH), x)
    r = v.fma(n, constant(v, -maths.LN2_LOW), r)
    square = b.fmul(r, r)
    pairs = [
        v.fma(r, constant(v, high), constant(v, low))
        for high, low in ((maths.E0, maths.E1), (maths.E2, maths.E3), (maths.E4, maths.E5))
    ]  # by pairs: the time is that of one multiplication waiting for the other
    power = v.fma(v.fma(pairs[0], square, pairs[1]), square, pairs[2])
    power = v.fma(power, square, b.fadd(r, constant(v, 1)))
    exponent = b.add(b.bitcast(t, v.indices), _whole(v, 127))
    return b.fmul(power, b.bitcast(b.shl(exponent, _whole(v, 23)), v.type))


def exp_low(v: Vectors, x: Any) -> Any:
    """Return e^x: `maths.exp_low` for a vector, zero below -87."""
    power = exp_within(v, x)
    if v.itemsize == 8:
        return power
    return v.b.select(v.b.fcmp_ordered("<", x, constant(v, maths.FLUSHED)), v.zero, power)


def logistic(v: Vectors, x: Any) -> Any:
    """Return 1 / (1 + e^-x); where e^-x overflows that is 0."""
    one = constant(v, 1)
    return v.b.fdiv(one, v.b.fadd(one, exp_within(v, v.b.fneg(x))))


TANH_TOP = (
    -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
    1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
)  # fmt: skip
TANH_BOTTOM = (
    1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03,
)  # fmt: skip
TANH_END = 9.0
"""Beyond, tanh is 1."""


def _between(v: Vectors, x: Any, end: float) -> Any:
    """Return x from -end to end; NaN stays NaN."""
    low, high = constant(v, -end), constant(v, end)
    x = v.b.select(v.b.fcmp_ordered(">", x, high), high, x)
    return v.b.select(v.b.fcmp_ordered("<", x, low), low, x)


def tanh_ratio(v: Vectors, x: Any) -> Any:
    """Return tanh x as a ratio of polynomials (Eigen's), 4 ulp: less work than by e^x."""
    if v.itemsize == 8:
        return _in_float64(v, "tanh", x)
    x = _between(v, x, TANH_END)
    z = v.b.fmul(x, x)
    top = v.b.fmul(_polynomial(v, z, TANH_TOP), x)
    return _between(v, v.b.fdiv(top, _polynomial(v, z, TANH_BOTTOM)), 1.0)


LOG_TERMS = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
SQRT_HALF_BITS = 0x3F3504F3


def log(v: Vectors, x: Any) -> Any:
    """Return ln x of positive normal numbers (Cephes, logf); NaN and Inf stay what they are.

    x = 2^e (1 + m) with 1 + m from sqrt(1/2) to sqrt(2): a polynomial for ln(1 + m), plus e ln 2.
    """
    if v.itemsize == 8:
        return _in_float64(v, "log", x)
    b = v.b
    base = _whole(v, SQRT_HALF_BITS)
    shifted = b.sub(b.bitcast(x, v.indices), base)
    e = b.sitofp(b.ashr(shifted, _whole(v, 23)), v.type)
    m = b.bitcast(b.add(b.and_(shifted, _whole(v, 0x7FFFFF)), base), v.type)
    m = b.fsub(m, constant(v, 1))
    z = b.fmul(m, m)
    y = b.fmul(b.fmul(_polynomial(v, m, LOG_TERMS), m), z)
    y = v.fma(e, constant(v, maths.LN2_LOW), y)
    y = v.fma(z, constant(v, -0.5), y)
    result = v.fma(e, constant(v, maths.LN2_HIGH), b.fadd(m, y))
    return b.select(b.fcmp_ordered("<", x, constant(v, float("inf"))), result, x)
