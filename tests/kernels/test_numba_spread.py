"""Kernels of one body: the loop and the pool do each item once, and cached tiles are found again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trine.backends import threads
from trine.kernels.numba import jit
from trine.kernels.numba.spread import each, inner, spread


@inner
def _shift(item: int, x: Any, shift: tuple[float, int], out: Any) -> None:
    out[item] += x[item] * shift[1] + shift[0]


@spread(grain=100)
def _shift_all(pool: int, threads: int, count: int, *args: Any) -> None:
    each(_shift, pool, threads, count, args)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000])
@pytest.mark.parametrize("work", [0, 1000])
def test_each_item_is_done_once(count: int, work: int) -> None:
    x = np.arange(float(count))
    before = threads.get_threads()
    threads.set_threads(2)
    try:
        out = np.ones(count)
        _shift_all(work, count, x, (0.5, 3), out)
    finally:
        threads.set_threads(before)
    np.testing.assert_array_equal(out, 3 * x + 1.5)


SCRIPT = """
import numpy as np
from trine.backends import get_backend
from trine.kernels.numba import native
compiled = []
compile_library = native.Library._compiled
native.Library._compiled = lambda *args: compiled.append(args) or compile_library(*args)
x, weight = (np.ones(shape, np.{dtype}) for shape in ((1, 1, 9, 9), (3, 1, 2, 2)))
out = get_backend("numba").conv2d(
    x, weight, None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, activation="none"
)
assert (out == 4).all()
print(len(compiled))
"""


@pytest.mark.slow
def test_tiles_are_compiled_once_for_each_type(tmp_path: Path) -> None:
    environment = {**os.environ, "TRINE_CACHE_DIR": str(tmp_path)}

    def libraries_compiled(dtype: str) -> int:
        command = [sys.executable, "-c", SCRIPT.format(dtype=dtype)]
        done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
        return int(done.stdout)

    assert [libraries_compiled(d) for d in ("float32", "float32", "float64", "float32")] == [
        1,
        0,
        1,
        0,
    ]
    names = sorted(path.name for path in (tmp_path / "numba" / jit.source_hash()).glob("*.o"))
    assert names == ["simd_float32.o", "simd_float64.o"]
