"""What is special about recurrent nets on Numba: blocks of sequences, and rows picked for a product."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numba.core import types
from numba.extending import intrinsic

from trine.backends import cases, get_backend
from trine.kernels.numba import gemm, recurrent
from trine.kernels.numba.gemm import panel_start, panels_of
from trine.kernels.numba.jit import Parallel, helper
from trine.kernels.numba.row_product import TILE_ROWS, VECTORS, multiply_rows, row_starts
from trine.kernels.numba.simd import address, lanes
from trine.kernels.numba.vector_loops import Vectors, logistic, over_run, tanh_ratio

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


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize("n", [1, 7, 8, 64, 100, 128, 1000])
def test_panels_are_about_equally_wide(n: int, itemsize: int) -> None:
    vector = lanes(itemsize)
    vectors = -(-n // vector)
    count = -(-vectors // gemm.MOST_VECTORS)
    starts = [panel_start.py_func(p, count, n, vector) for p in range(count + 1)]
    widths = np.diff(starts) // vector
    assert starts[0] == 0
    assert starts[-1] == vectors * vector
    assert widths.max() <= gemm.MOST_VECTORS
    assert widths.max() - widths.min() <= 1


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
    weight = np.ascontiguousarray(b.T) if transposed else b
    panels, count = panels_of(weight, transposed, VECTORS)
    width = VECTORS * lanes(a.itemsize)
    edge, edge_starts = np.full((TILE_ROWS, width), np.nan, a.dtype), np.arange(TILE_ROWS) * width

    @helper
    def run(rows: Any, a: Any, panels: Any, out: Any, edge: Any, edge_starts: Any) -> None:
        a_starts, out_starts = np.empty(8, np.int64), np.empty(8, np.int64)
        row_starts(rows, 6, 0, a.shape[1], a_starts)
        row_starts(rows, 6, 0, out.shape[1], out_starts)
        multiply_rows(
            a, a_starts, 6, panels, count, a.shape[1], out.shape[1], add, out, out_starts, edge,
            edge_starts,
        )  # fmt: skip

    run(rows, a, panels, out, edge, edge_starts)
    np.testing.assert_allclose(out, wanted, rtol=0, atol=5e-6 if dtype == "float32" else 1e-14)


def _function(of_vector: Any) -> Any:
    """Return what runs a function of vectors over an array, run(x, out)."""

    @intrinsic
    def call(typingctx: Any, like: Any, x: Any, count: Any, out: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            v = Vectors(b, signature.args[0])
            x, count, out = args[1:]
            over_run(
                v, count, [v.pointer(x)], [v.pointer(out)],
                lambda read, held, clean: ([of_vector(v, read[0])], []),
            )  # fmt: skip
            return context.get_dummy_value()

        return types.void(like, types.int64, types.int64, types.int64), emit

    @helper
    def run(x: Any, out: Any) -> None:
        call(x.dtype.type(0), address(x), x.size, address(out))

    return run


RUN_TANH, RUN_LOGISTIC = _function(tanh_ratio), _function(logistic)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["tanh", "logistic"])
def test_functions_of_gates(name: str, dtype: str) -> None:
    x = np.concatenate([np.linspace(-20, 20, 200_001), np.logspace(-30, 2, 100_000)])
    x = np.concatenate([x, -x, [0.0, np.inf, -np.inf]]).astype(dtype)
    out = np.empty_like(x)
    run = RUN_TANH if name == "tanh" else RUN_LOGISTIC
    run(x, out)
    exact = x.astype(np.longdouble)
    wanted = np.tanh(exact) if name == "tanh" else 1 / (1 + np.exp(-exact))
    allowed = 5 * np.spacing(np.abs(wanted).astype(dtype))
    if name == "logistic" and dtype == "float32":
        allowed = np.maximum(allowed, 2e-38)  # below -87 it stays what it is there
    assert (np.abs(out - wanted) <= allowed).all()
    assert (np.abs(out) <= 1).all()
    nothing = np.full(9, np.nan, dtype)
    out = np.zeros_like(nothing)
    run(nothing, out)
    assert np.isnan(out).all()
