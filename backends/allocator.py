"""The pool from which backends on the CPU take the outputs of kernels.

Fresh large blocks cost a page fault for every 4 KiB; a training step asks for the same sizes again
and again. So a block returns to the pool when the last array over it dies (reference counting by
Python itself) and serves the next request of its size class. Small arrays come straight from
NumPy, whose allocator is faster for them.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict

import numpy as np
import numpy.typing as npt

from trine.dtypes import Array, DType
from trine.errors import BackendError

POOLED_BYTES = 64 * 1024
"""Arrays below this size are not pooled, unless a pool is told otherwise."""

Raw = tuple[npt.NDArray[np.uint8], int]
"""A block and its address."""

Label = tuple[str, tuple[int, ...], DType]
"""Which op asked for what; made into text only for a report."""

CLASSES_PER_DOUBLING = 8
"""Size classes between a power of two and the next: at most 12.5 % of a block is unused."""


class _Loan:
    """A block lent to the arrays over it; gives the block back when the last of them dies.

    NumPy keeps the object whose `__array_interface__` it read as the array's base. (Were it an
    array itself, NumPy would take *its* base instead, and the loan would end too soon.)
    """

    __slots__ = ("__array_interface__", "pool", "raw")

    def __init__(self, pool: PoolAllocator, raw: Raw, shape: tuple[int, ...], dtype: DType) -> None:
        self.pool = pool
        self.raw = raw
        self.__array_interface__ = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (raw[1], False),
            "version": 3,
        }

    def __del__(self) -> None:
        self.pool._give_back(self.raw)


class PoolAllocator:
    """Reference-counted blocks in size classes, safe to use from several threads."""

    def __init__(self, pooled_bytes: int = POOLED_BYTES) -> None:
        self.pooled_bytes = pooled_bytes
        self._free: defaultdict[int, list[Raw]] = defaultdict(list)
        self._live: dict[int, tuple[int, Label]] = {}
        self._lock = threading.RLock()
        """Reentrant: the garbage collector may end a loan while this thread holds the lock."""
        self.op = "empty"
        """The op that asks, for reports of memory."""
        self.used_bytes = 0
        self.held_bytes = 0
        self.peak_bytes = 0

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """Return an uninitialised C-contiguous array.

        Raises BackendError if the memory cannot be had, naming the largest live arrays.
        """
        nbytes = math.prod(shape, start=dtype.itemsize)
        try:
            if nbytes < self.pooled_bytes or nbytes == 0:
                return np.empty(shape, dtype)
            raw = self._lend(nbytes, (self.op, shape, dtype))
        except MemoryError as error:
            self.trim()
            raise BackendError(
                f"[{self.op}] expected {nbytes / 2**30:.2f} GiB of memory for an array {shape} of "
                f"{dtype.name}, but the system has no more. Use a smaller batch. {self.report()}"
            ) from error
        return np.asarray(_Loan(self, raw, shape, dtype))

    def _lend(self, nbytes: int, label: Label) -> Raw:
        size = _class_size(nbytes)
        with self._lock:
            free = self._free[size]
            if free:
                raw = free.pop()
            else:
                block = np.empty(size, np.uint8)
                raw = block, block.ctypes.data
                self.held_bytes += size
            self.used_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.used_bytes)
            self._live[raw[1]] = (size, label)
        return raw

    def _give_back(self, raw: Raw) -> None:
        block, address = raw
        with self._lock:
            self._live.pop(address, None)
            self.used_bytes -= block.nbytes
            self._free[block.nbytes].append(raw)

    def lent(self, array: Array) -> bool:
        """Return whether an array, or what it is a view of, lies in a block of this pool."""
        owner: object = array
        while isinstance(owner, np.ndarray):
            owner = owner.base
        return isinstance(owner, _Loan) and owner.pool is self

    def trim(self) -> None:
        """Give the blocks that nobody uses back to the system."""
        with self._lock:
            free, self._free = self._free, defaultdict(list)
            for size, blocks in free.items():
                self.held_bytes -= size * len(blocks)

    def stats(self) -> dict[str, int]:
        """Return bytes in use, held (in use or free) and the peak of those in use."""
        return {"used": self.used_bytes, "held": self.held_bytes, "peak": self.peak_bytes}

    def report(self, count: int = 5) -> str:
        """Return a line that names the largest live arrays and the ops that made them."""
        with self._lock:
            largest = sorted(self._live.copy().values(), key=lambda loan: -loan[0])[:count]
        if not largest:
            return "No large array of a kernel is alive."
        items = "; ".join(
            f"{size / 2**20:.1f} MiB {op} {shape} {dtype.name}"
            for size, (op, shape, dtype) in largest
        )
        return f"Largest live arrays: {items}."


def _class_size(nbytes: int) -> int:
    step = max(4096, 1 << max((nbytes - 1).bit_length() - 1, 0)) // CLASSES_PER_DOUBLING
    step = max(step, 4096)
    return -(-nbytes // step) * step
