"""The pool from which backends on the CPU take the outputs of kernels.

Fresh large blocks cost a page fault for every 4 KiB; a training step asks for the same sizes again
and again. So a block returns to the pool when the last array over it dies (reference counting by
Python itself) and serves the next request of its size class. Small arrays come straight from
NumPy, whose allocator is faster for them.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
from trine.dtypes import Array, DType
from trine.errors import BackendError

POOLED_BYTES = 64 * 1024
"""Arrays below this size are not pooled."""

CLASSES_PER_DOUBLING = 8
"""Size classes between a power of two and the next: at most 12.5 % of a block is unused."""


class _Block(np.ndarray[Any, np.dtype[np.uint8]]):
    """Raw bytes on loan from a pool; goes back when the last array over it dies."""

    pool: PoolAllocator | None = None
    label: str = ""

    def __del__(self) -> None:
        if self.pool is not None:
            self.pool._give_back(self)


class PoolAllocator:
    """Reference-counted blocks in size classes, safe to use from several threads."""

    def __init__(self) -> None:
        self._free: defaultdict[int, list[npt.NDArray[np.uint8]]] = defaultdict(list)
        self._live: dict[int, tuple[int, str]] = {}
        self._lock = threading.Lock()
        self.op = "empty"
        """The op that asks, for reports of memory."""
        self.used_bytes = 0
        self.held_bytes = 0
        self.peak_bytes = 0

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """Return an uninitialised C-contiguous array.

        Raises BackendError if the memory cannot be had, naming the largest live arrays.
        """
        nbytes = dtype.itemsize
        for size in shape:
            nbytes *= size
        try:
            if nbytes < POOLED_BYTES:
                return np.empty(shape, dtype)
            block = self._lend(nbytes, f"{self.op} {shape} {dtype.name}")
        except MemoryError as error:
            self.trim()
            raise BackendError(
                f"[{self.op}] expected {nbytes / 2**30:.2f} GiB of memory for an array {shape} of "
                f"{dtype.name}, but the system has no more. Use a smaller batch. {self.report()}"
            ) from error
        return np.ndarray(shape, dtype, buffer=block)

    def _lend(self, nbytes: int, label: str) -> _Block:
        size = _class_size(nbytes)
        with self._lock:
            free = self._free[size]
            raw = free.pop() if free else None
        if raw is None:
            raw = np.empty(size, np.uint8)
            fresh = size
        else:
            fresh = 0
        block = raw.view(_Block)
        block.pool = self
        with self._lock:
            self.held_bytes += fresh
            self.used_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.used_bytes)
            self._live[id(raw)] = (size, label)
        return block

    def _give_back(self, block: _Block) -> None:
        raw = block.base
        if not isinstance(raw, np.ndarray):
            return
        with self._lock:
            self._live.pop(id(raw), None)
            self.used_bytes -= raw.nbytes
            self._free[raw.nbytes].append(raw)

    def trim(self) -> None:
        """Give the blocks that nobody uses back to the system."""
        with self._lock:
            for size, blocks in self._free.items():
                self.held_bytes -= size * len(blocks)
            self._free.clear()

    def stats(self) -> dict[str, int]:
        """Return bytes in use, held (in use or free) and the peak of those in use."""
        return {"used": self.used_bytes, "held": self.held_bytes, "peak": self.peak_bytes}

    def report(self, count: int = 5) -> str:
        """Return a line that names the largest live arrays and the ops that made them."""
        with self._lock:
            largest = sorted(self._live.values(), reverse=True)[:count]
        if not largest:
            return "No large array of a kernel is alive."
        items = "; ".join(f"{size / 2**20:.1f} MiB {label}" for size, label in largest)
        return f"Largest live arrays: {items}."


def _class_size(nbytes: int) -> int:
    step = max(4096, 1 << max((nbytes - 1).bit_length() - 1, 0)) // CLASSES_PER_DOUBLING
    step = max(step, 4096)
    return -(-nbytes // step) * step
