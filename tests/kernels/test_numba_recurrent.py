"""What is special about recurrent nets on Numba: blocks of sequences, and rows picked for a product."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from trine.backends import cases, get_backend
from trine.kernels.numba import recurrent
from trine.kernels.numba.jit import Parallel, helper
from trine.kernels.numba.maths import tanh_ratio
from trine.kernels.numba.row_product import (
    TILE_ROWS,
    multiply_rows,
    pack_panel,
    panels_for,
)

OPS = ("rnn", "rnn_backward", "gru", "gru_backward", "lstm", "lstm_backward")


@pytest.fixture
def parallel_always() -> Iterator[None]:
    functions = [f for f in vars(recurrent).values() if isinstance(f, Parallel)]
    grains = [f.grain for f in functions]
    for function in functions:
        function.grain = 0
    yield
    for function, grain in zip(functions, grains, strict=True):
        function.grain = grain


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", OPS)
@pytest.mark.usefixtures("parallel_always")
def test_bytes_do_not_depend_on_who_takes_which_sequences(
    op: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = get_backend("numba")
    for sample in cases.get(op).samples(np.random.default_rng(0), np.dtype(dtype)):
        results = []
        for size in (TILE_ROWS, 2 * TILE_ROWS, 64):
            monkeypatch.setattr(recurrent, "_block", lambda batch, size=size: size)
            out = getattr(backend, op)(*sample.args, **sample.attrs)
            assert backend.ran[op] == "rows"
            results.append([a.tobytes() for a in out])
        assert results[0] == results[1] == results[2], sample.label


def test_blocks_are_whole_tiles_for_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, batch, wanted in ((1, 8, 8), (2, 8, 4), (2, 9, 8), (3, 32, 12), (64, 5, 4)):
        monkeypatch.setattr(recurrent.threads, "count", count)
        assert recurrent._block(batch) == wanted
        assert wanted % TILE_ROWS == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("columns", [1, 3, 8, 13, 24, 37, 50])
def test_products_of_picked_rows(dtype: str, transposed: bool, add: bool, columns: int) -> None:
    rng = np.random.default_rng(columns)
    a = rng.normal(size=(11, 6)).astype(dtype)
    b = rng.normal(size=(6, columns)).astype(dtype)
    out = rng.normal(size=(11, columns)).astype(dtype)
    wanted = out.astype("float64")
    rows = np.array([0, 9, 2, 10, 5, 7, 0, 0])  # the first six count
    for row in rows[:6]:
        wanted[row] = a[row].astype("float64") @ b + (wanted[row] if add else 0)
    panels = panels_for(6, columns, a)
    panels[...] = np.nan
    weight = np.ascontiguousarray(b.T) if transposed else b
    for p in range(len(panels)):
        pack_panel(weight, transposed, p, panels)
    edge = np.full((TILE_ROWS, panels.shape[2]), np.nan, a.dtype)
    multiply_rows(a, rows, 6, panels, columns, add, out, edge)
    np.testing.assert_allclose(out, wanted, rtol=0, atol=5e-6 if dtype == "float32" else 1e-14)


def test_tanh_as_a_ratio() -> None:
    @helper
    def run(x: Any, out: Any) -> None:
        for j in range(x.size):
            out[j] = tanh_ratio(x[j])

    x = np.concatenate([np.linspace(-20, 20, 200_001), np.logspace(-30, 1, 100_000)])
    x = np.concatenate([x, -x, [0.0, np.inf, -np.inf]]).astype(np.float32)
    out = np.empty_like(x)
    run(x, out)
    wanted = np.tanh(x.astype(np.float64))
    assert (np.abs(out - wanted) <= 5 * np.spacing(np.abs(wanted).astype(np.float32))).all()
    assert (np.abs(out) <= 1).all()
    run(np.array([np.nan], np.float32), out)
    assert np.isnan(out[0])
