"""The pool: blocks come back when the last view dies, are reused, and are reported."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from trine.backends.allocator import POOLED_BYTES, PoolAllocator
from trine.errors import BackendError

FLOAT32 = np.dtype("float32")
LARGE = (POOLED_BYTES // 4 + 1,)


def test_a_block_is_reused_only_when_no_view_is_left():
    pool = PoolAllocator()
    first = pool.empty(LARGE, FLOAT32)
    address = first.ctypes.data
    view = first[10:].reshape(-1)
    del first
    other = pool.empty(LARGE, FLOAT32)
    assert other.ctypes.data != address
    del view
    assert pool.empty(LARGE, FLOAT32).ctypes.data == address


def test_sizes_of_one_class_share_blocks_and_waste_is_bounded():
    pool = PoolAllocator()
    for size in (70_000, 100_000, 1_000_000, 12_345_678):
        block = pool.empty((size,), np.dtype("uint8"))
        assert pool.used_bytes <= max(size * 1.14, size + 4096)
        del block
    assert pool.used_bytes == 0


def test_arrays_are_plain_contiguous_and_writeable():
    array = PoolAllocator().empty((300, 100), FLOAT32)
    assert type(array) is np.ndarray
    assert array.flags.c_contiguous
    assert array.flags.writeable
    array[...] = 1


def test_small_arrays_are_not_pooled():
    pool = PoolAllocator()
    pool.empty((10,), FLOAT32)
    assert pool.held_bytes == 0


def test_memory_that_cannot_be_had_names_the_culprits():
    pool = PoolAllocator()
    pool.op = "conv2d"
    kept = pool.empty((1000, 1000), FLOAT32)
    pool.op = "linear"
    with pytest.raises(BackendError, match=r"\[linear\] expected .* GiB .*conv2d \(1000, 1000\)"):
        pool.empty((2**50,), FLOAT32)
    assert kept.size == 10**6


def test_trim_gives_free_blocks_back():
    pool = PoolAllocator()
    pool.empty(LARGE, FLOAT32)
    assert pool.held_bytes > 0
    pool.trim()
    assert pool.stats()["held"] == 0


def test_threads_never_get_the_same_block():
    pool = PoolAllocator()
    faults = []

    def work(mark: int) -> None:
        for _ in range(300):
            block = pool.empty(LARGE, FLOAT32)
            block.fill(mark)
            if not (block == mark).all():
                faults.append(mark)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert pool.used_bytes == 0


def test_the_garbage_collector_may_end_a_loan_inside_the_pool():
    """Arrays in reference cycles die when Python collects, wherever the thread then is."""

    pool = PoolAllocator()
    finished = threading.Event()

    def work():
        thresholds = gc.get_threshold()
        gc.set_threshold(1)
        try:
            for turn in range(300):
                cycle = [pool.empty(LARGE, FLOAT32)]
                cycle.append(cycle)
                pool.report()
                if turn % 7 == 0:
                    pool.trim()
        finally:
            gc.set_threshold(*thresholds)
        finished.set()

    threading.Thread(target=work, daemon=True).start()
    assert finished.wait(30), "the pool waits for itself"
