"""Cases of the primitives: elementwise functions, reductions, matrix products, random bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from trine.backends.cases.case import OpCase, Rng, Sample, register
from trine.dtypes import DType
from trine.random import make_key

SIZES: tuple[tuple[int, ...], ...] = (
    (), (0,), (1,), (31,), (32,), (33,), (255,), (257,), (3, 0), (5, 7, 3), (70000,),
)  # fmt: skip
"""Empty, one element, either side of a warp and a block, several axes, beyond one grid of blocks."""

SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, np.inf, -np.inf, np.nan, 1e-30, -1e30, 88.0, -90.0)


def _special(dtype: DType) -> Any:
    return np.array(SPECIAL, dtype=dtype)


def _unary(low: float, high: float, special: bool = True) -> Callable[..., list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = [
            Sample(f"{shape}", (rng.uniform(low, high, shape).astype(dtype),)) for shape in SIZES
        ]
        if special:
            found.append(Sample("special values", (_special(dtype),)))
        return found

    return samples


def _binary(low: float, high: float) -> Callable[..., list[Sample]]:
    shapes = [
        ((), ()),
        ((33,), (33,)),
        ((0,), (1,)),
        ((4, 1, 5), (3, 1)),
        ((257,), ()),
        ((70000,),) * 2,
    ]

    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = [
            Sample(
                f"{a} with {b}",
                (rng.uniform(low, high, a).astype(dtype), rng.uniform(low, high, b).astype(dtype)),
            )
            for a, b in shapes
        ]
        grid = np.meshgrid(_special(dtype), _special(dtype))
        pair = tuple(np.ascontiguousarray(g) for g in grid)
        found.append(Sample("special values", pair))
        return found

    return samples


def _timing(count: int) -> Callable[..., list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        sizes = (("tiny", (1000,)), ("typical", (64, 6, 28, 28)), ("large", (4_000_000,)))
        return [
            Sample(label, tuple(rng.uniform(0.1, 2, s).astype(dtype) for _ in range(count)))
            for label, s in sizes
        ]

    return samples


for _name, _low, _high in (
    ("neg", -2, 2), ("abs", -2, 2), ("sign", -2, 2), ("floor", -9, 9), ("exp", -5, 5),
    ("expm1", -2, 2), ("log", 0.1, 9), ("log1p", -0.5, 9), ("sqrt", 0, 9), ("tanh", -4, 4),
    ("sigmoid", -9, 9), ("relu", -2, 2), ("softplus", -9, 9), ("isfinite", -2, 2),
    ("logical_not", -2, 2),
):  # fmt: skip
    register(OpCase(_name, _unary(_low, _high), timing=_timing(1)))
for _name in ("sin", "cos"):  # 1e30 radians have no phase in float32 worth comparing
    register(OpCase(_name, _unary(-9, 9, special=False), timing=_timing(1)))
for _name in (
    "add", "sub", "mul", "div", "maximum", "minimum", "equal", "not_equal", "greater",
    "greater_equal", "less", "less_equal", "logical_and", "logical_or",
):  # fmt: skip
    register(OpCase(_name, _binary(-2, 2), timing=_timing(2)))


def _positive_pairs(rng: Rng, dtype: DType) -> list[Sample]:
    def draw(shape: tuple[int, ...]) -> Any:
        return rng.uniform(0.2, 3, shape).astype(dtype)

    return [Sample(f"{s}", (draw(s), draw(s))) for s in ((), (0,), (33,), (257,), (5, 7))]


register(OpCase("pow", _positive_pairs, timing=_timing(2)))
register(OpCase("floor_div", _positive_pairs, "exact"))


def _where(rng: Rng, dtype: DType) -> list[Sample]:
    shapes = [((33,),) * 3, ((4, 1), (3,), (4, 3)), ((0,),) * 3, ((), (5,), ())]
    return [
        Sample(
            f"{c}, {a}, {b}",
            (
                rng.uniform(size=c) > 0.5,
                rng.normal(size=a).astype(dtype),
                rng.normal(size=b).astype(dtype),
            ),
        )
        for c, a, b in shapes
    ]


register(OpCase("where", _where, "exact"))


def _reductions(empty: bool) -> Callable[..., list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = []
        for shape, axis in (
            ((33,), None), ((1,), (0,)), ((5, 7, 3), (1,)), ((5, 7, 3), (0, 2)), ((257, 31), (0,)),
            ((31, 257), (1,)), ((70000,), None), ((), None),
        ):  # fmt: skip
            for keepdims in (False, True):
                x = rng.normal(size=shape).astype(dtype)
                attrs = {"axis": axis, "keepdims": keepdims}
                found.append(Sample(f"{shape} over {axis}, keepdims={keepdims}", (x,), attrs))
        x = rng.normal(size=(3, 5)).astype(dtype)
        x[1, 2], x[2, 0] = np.nan, -np.inf
        found.append(Sample("NaN and -inf", (x,), {"axis": (1,), "keepdims": False}))
        if empty:
            none = np.zeros((0, 3), dtype)
            found.append(Sample("nothing", (none,), {"axis": (0,), "keepdims": False}))
        return found

    return samples


register(OpCase("sum", _reductions(empty=True), "reduction", _timing(1)))
register(OpCase("max", _reductions(empty=False), "exact", _timing(1)))
register(OpCase("min", _reductions(empty=False), "exact", _timing(1)))


def _arg_reductions(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    for shape, axis in (((33,), None), ((33,), 0), ((5, 7, 3), 1), ((257, 31), 1), ((4, 9), None)):
        x = rng.integers(-3, 3, shape).astype(dtype)  # many ties: the first counts
        found.append(Sample(f"{shape} along {axis}", (x,), {"axis": axis, "keepdims": False}))
    return found


register(OpCase("argmax", _arg_reductions, "exact"))
register(OpCase("argmin", _arg_reductions, "exact"))


def _matmul(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    for m, k, n in ((1, 1, 1), (31, 33, 32), (5, 257, 3), (0, 3, 2), (2, 0, 3), (64, 784, 128)):
        for trans_a in (False, True):
            for trans_b in (False, True):
                a = rng.normal(size=(k, m) if trans_a else (m, k)).astype(dtype)
                b = rng.normal(size=(n, k) if trans_b else (k, n)).astype(dtype)
                attrs = {"trans_a": trans_a, "trans_b": trans_b}
                found.append(Sample(f"{m}x{k}x{n} {attrs}", (a, b), attrs))
    a, b = rng.normal(size=(2, 1, 3, 4)).astype(dtype), rng.normal(size=(5, 4, 2)).astype(dtype)
    found.append(Sample("batches", (a, b), {"trans_a": False, "trans_b": False}))
    return found


def _matmul_timing(rng: Rng, dtype: DType) -> list[Sample]:
    attrs = {"trans_a": False, "trans_b": True}
    sizes = (("tiny", (64, 12, 3)), ("typical", (128, 784, 256)), ("large", (1024, 1024, 1024)))
    return [
        Sample(
            label,
            (rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(n, k)).astype(dtype)),
            attrs,
        )
        for label, (m, k, n) in sizes
    ]


def _matmul_flops(sample: Sample) -> int:
    a, b = sample.args
    columns = b.shape[-2] if sample.attrs.get("trans_b") else b.shape[-1]
    return int(2 * math.prod(a.shape) * columns)


register(OpCase("matmul", _matmul, "reduction", _matmul_timing, _matmul_flops))


def _random_bits(rng: Rng, dtype: DType) -> list[Sample]:
    keys = (make_key(0, 0, 0), make_key(2**63 + 5, 123, 2**40))
    return [
        Sample(f"{n} words", (key,), {"n": n}) for key in keys for n in (0, 1, 4, 5, 257, 70001)
    ]


register(
    OpCase(
        "random_bits",
        _random_bits,
        "exact",
        lambda rng, dtype: [Sample("typical", (make_key(0, 0),), {"n": 1_000_000})],
    )
)
