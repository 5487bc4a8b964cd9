"""Threads: one knob, the same bytes for any number, several Python threads, forks."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from trine.backends import get_backend, threads
from trine.errors import BackendError
from trine.kernels.numba import jit

PARALLEL = """
import hashlib, os, sys, threading
import numpy as np
from trine.backends import get_backend, threads
from trine.kernels.numba import jit, optimiser
from trine.errors import BackendError
be = get_backend("numba")
be.strict = True
optimiser._sum_squares.grain = 0
x = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
expected = float((x.astype(np.float64) ** 2).sum())
def check():
    for _ in range(50):
        assert abs(be.sum_squares(x)[0] - expected) < 1e-6
"""


def python(code: str, **environment: str) -> str:
    """Run code in a new process and return what it printed; an error fails the test."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, f"{result.returncode}: {result.stderr}"
    return result.stdout


@pytest.mark.parametrize("layer", ["", "omp", "workqueue"])
def test_python_threads_may_run_parallel_kernels_at_once(layer: str) -> None:
    if layer == "omp" and threads.layer() != "omp":
        pytest.skip("Numba has no OpenMP layer here")
    code = (
        PARALLEL
        + """
workers = [threading.Thread(target=check) for _ in range(4)]
[w.start() for w in workers]; [w.join() for w in workers]
import numba
print(threads.layer() == numba.threading_layer(), jit.threads.started)
"""
    )
    environment = {"NUMBA_THREADING_LAYER": layer} if layer else {}
    assert python(code, NUMBA_NUM_THREADS="3", **environment) == "True True\n"


FORK = """
child = os.fork()
if child == 0:
    try:
        check()
    except BackendError as error:
        os._exit(3 if "spawn" in str(error) else 4)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.parametrize(
    ("before", "exit_code"),
    [("check()", 3), ("pass", 0), ("check(); threads.set_threads(1)", 0)],
    ids=["pool-started", "pool-not-started", "one-thread"],
)
def test_forked_child_gets_an_error_and_does_not_die(before: str, exit_code: int) -> None:
    if threads.layer() != "omp":
        pytest.skip("only OpenMP's pool does not survive a fork")
    assert python(PARALLEL + before + FORK, NUMBA_NUM_THREADS="2").strip() == str(exit_code)


def test_bytes_do_not_depend_on_the_number_of_threads() -> None:
    code = (
        PARALLEL
        + """
rng = np.random.default_rng(1)
a, b = (rng.normal(size=(700, 700)).astype(np.float32) for _ in range(2))
images = rng.normal(size=(16, 3, 20, 20)).astype(np.float32)
weight = rng.normal(size=(7, 3, 3, 3)).astype(np.float32)
how = dict(stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1)
key = np.arange(5, dtype=np.uint32)
for n in (1, 2, 3, 1):
    threads.set_threads(n)
    digest = hashlib.sha256()
    for _ in range(3):
        out = be.conv2d(images, weight, None, activation="tanh", **how)
        for array in (
            be.matmul(a, b), be.sum_squares(x), out, be.dropout(x, key, p=0.3),
            be.conv2d_weight_grad(out, images, kernel_size=(3, 3), **how),
            be.conv2d_input_grad(out, weight, input_size=(20, 20), **how),
        ):
            digest.update(array.tobytes())
    print(digest.hexdigest())
"""
    )
    printed = python(code, NUMBA_NUM_THREADS="3").split()
    assert len(printed) == 4
    assert len(set(printed)) == 1


def test_numbers_of_threads_out_of_range_are_refused() -> None:
    for count in (0, -1, 1_000_000):
        with pytest.raises(ValueError, match=r"\[threads\] expected 1 to"):
            threads.set_threads(count)


def test_knob_sets_kernels_and_blas() -> None:
    threads.choose_layer()
    before = threads.get_threads()
    try:
        threads.set_threads(1)
        assert (threads.get_threads(), jit.threads.blas_count) == (1, 1)
    finally:
        threads.set_threads(before)
    assert threads.get_threads() == before
    assert 1 <= threads.available_cpus() <= (os.cpu_count() or 1)


def test_product_leaves_the_number_of_blas_threads_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = get_backend("numba")
    counts: list[int] = []
    monkeypatch.setattr(jit.threads, "set_blas", counts.append)
    monkeypatch.setattr(jit.threads, "blas_count", 5)
    backend.matmul(np.ones((1, 2, 3)), np.ones((1, 3, 2)))  # batches go to the BLAS
    assert counts == [1, 5]


def test_forked_pool_is_refused_before_it_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit.threads, "forked", True)
    monkeypatch.setattr(jit.threads, "count", 2)
    backend = get_backend("numba")
    with pytest.raises(BackendError, match="spawn"):
        backend.sum_squares(np.ones(10**6, np.float32))
    assert backend.sum_squares(np.ones(3, np.float32))[0] == 3  # small work starts no thread
