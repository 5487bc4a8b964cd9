"""Cases of dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from trine.backends.cases.case import OpCase, Rng, Sample, register
from trine.dtypes import DType
from trine.random import bits, make_key

SHAPES: tuple[tuple[int, ...], ...] = (
    (), (0,), (1,), (3,), (4,), (5,), (31,), (33,), (255,), (257,), (5, 7, 3), (70001,),
)  # fmt: skip
"""Either side of the four words of a Philox block, of a warp, of a block, beyond one grid."""


def _dropout(rng: Rng, dtype: DType) -> list[Sample]:
    key = make_key((5 << 40) + 3, 77, (1 << 33) + 9)
    found = [
        Sample(f"{shape}", (np.asarray(rng.normal(size=shape), dtype), key), {"p": 0.3})
        for shape in SHAPES
    ]
    x = rng.normal(size=64).astype(dtype)
    x[:5] = np.nan, np.inf, -np.inf, -0.0, 1e30
    found.extend(Sample(f"p = {p}", (x, key), {"p": p}) for p in (0.0, 0.5, 0.999, 1.0))
    # 2^-24 times a whole number is a possible draw: the element whose draw equals p is kept.
    drawn = float(np.float32((_first_word(key) >> 8) * 2.0**-24))
    return [*found, Sample("p equal to a draw", (np.ones(8, dtype), key), {"p": drawn})]


def _first_word(key: Any) -> int:
    return int(bits(key, 1)[0])


def _timed(rng: Rng, dtype: DType) -> list[Sample]:
    sizes = (("tiny", (1000,)), ("typical", (64, 120, 84)), ("large", (4_000_000,)))
    return [
        Sample(label, (rng.normal(size=shape).astype(dtype), make_key(1, 2, 3)), {"p": 0.5})
        for label, shape in sizes
    ]


for _name in ("dropout", "dropout_backward"):
    register(OpCase(_name, _dropout, "elementwise", _timed, lambda s: int(s.args[0].size)))
