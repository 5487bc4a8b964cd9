"""Matrix products by the BLAS on one thread, in parts that our own threads share.

The BLAS's own threads are left out: they and OpenMP's wait for work by spinning and take the CPU
from each other, which on a small net costs more than all products do; and their results may depend
on their number. Here the parts depend on the shapes alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import numpy as np

from trine.dtypes import Array
from trine.kernels.numba.jit import threads
from trine.kernels.registry import kernel

PART = 1 << 23
"""Multiplications of a part: about a fifth of a millisecond, well above handing it to a thread."""
MOST_PARTS = 16

_lock = threading.Lock()
_blas_users = 0
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Let the BLAS use one thread while anyone is in here."""
    global _blas_users  # noqa: PLW0603  the BLAS is one for the process
    with _lock:
        _blas_users += 1
        if _blas_users == 1:
            threads.set_blas(1)
    try:
        yield
    finally:
        with _lock:
            _blas_users -= 1
            if _blas_users == 0:
                threads.set_blas(threads.blas_count)


def _pool(count: int) -> ThreadPoolExecutor:
    """Return the pool of `count` threads that serves this process (a fork has none)."""
    key = (threads.generation, count)
    with _lock:
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(count, thread_name_prefix="trine-matmul")
        return _pools[key]


def _parts(x: Array, y: Array, out: Array) -> list[tuple[Array, Array, Array]]:
    """Cut a product along its longest axis, batch, rows or columns, into parts of about PART."""
    work = out.size * x.shape[-1]
    if out.ndim == 2:
        rows, columns = out.shape
        count = max(1, min(MOST_PARTS, work // PART, max(rows, columns)))
        size = max(rows, columns)
        edges = [i * size // count for i in range(count + 1)]
        if rows >= columns:
            return [(x[a:b], y, out[a:b]) for a, b in pairwise(edges)]
        return [(x, y[:, a:b], out[:, a:b]) for a, b in pairwise(edges)]
    x = np.broadcast_to(x, (*out.shape[:-2], *x.shape[-2:]))
    y = np.broadcast_to(y, (*out.shape[:-2], *y.shape[-2:]))
    count = max(1, min(MOST_PARTS, work // PART, out.shape[0]))
    edges = [i * out.shape[0] // count for i in range(count + 1)]
    return [(x[a:b], y[a:b], out[a:b]) for a, b in pairwise(edges)]


def _multiply_all(parts: list[tuple[Array, Array, Array]]) -> None:
    """Compute parts until none is left; several threads may do so at once."""
    while True:
        try:
            x, y, out = parts.pop()
        except IndexError:
            return
        np.matmul(x, y, out=out)


@kernel("matmul", backend="numba", name="blas")
def matmul(x: Array, y: Array, trans_a: bool, trans_b: bool, out: Array) -> None:
    """out = x y over the last two axes, either of them transposed first; batches broadcast."""
    a = x.swapaxes(-1, -2) if trans_a else x
    b = y.swapaxes(-1, -2) if trans_b else y
    parts = _parts(a, b, out)
    with _one_blas_thread(), np.errstate(all="ignore"):
        helpers = min(threads.count, len(parts)) - 1
        if helpers == 0:
            _multiply_all(parts)
            return
        pool = _pool(threads.count)
        waiting = [pool.submit(_multiply_all, parts) for _ in range(helpers)]
        _multiply_all(parts)
        for future in waiting:
            future.result()
