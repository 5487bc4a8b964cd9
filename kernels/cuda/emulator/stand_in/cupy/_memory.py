"""The memory pool: blocks by stream, freed when their array goes, lent again to one that fits."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ._errors import OutOfMemoryError
from ._streams import Stream, get_current_stream, refuse_in_capture, submit

ROUNDING = 512
ALIGNMENT = 256
DEVICE_BYTES = 16 * 2**30
POISON = 0xFFF8CDCD
"""A word that floats of 32 and of 64 bits read as NaN, and integers as a number that nothing means."""


class Block:
    """A piece of the device's memory; `use` counts how often it was lent."""

    def __init__(self, size: int, stream: int) -> None:
        self.size, self.stream = size, stream
        self.use = 0
        self.in_use = False


class Memory:
    """Bytes on the device, aligned as CUDA's and poisoned."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.device_id = 0
        room = np.full(-(-(size + ALIGNMENT) // 4), POISON, np.uint32).view(np.uint8)
        start = -room.ctypes.data % ALIGNMENT
        self.bytes = room[start : start + size]
        self.block = Block(size, 0)
        self.owner: Any = None

    @property
    def ptr(self) -> int:
        """Their address."""
        return int(self.bytes.ctypes.data)


class UnownedMemory(Memory):
    """Bytes that another object owns."""

    def __init__(self, ptr: int, size: int, owner: Any, device_id: int = -1) -> None:
        self.size, self.device_id, self.owner = size, device_id, owner
        memory = getattr(owner, "_memory", owner)
        if not isinstance(memory, Memory):
            raise TypeError("UnownedMemory of the stand-in takes memory of its own arrays only")
        start = ptr - memory.ptr
        self.bytes = memory.bytes[start : start + size]
        self.block = memory.block


class MemoryPointer:
    """A place in device memory."""

    def __init__(self, mem: Memory, offset: int) -> None:
        self.mem, self.offset = mem, offset
        self.device_id = 0

    @property
    def ptr(self) -> int:
        """The address."""
        return self.mem.ptr + self.offset

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.offset + offset)

    def __int__(self) -> int:
        return self.ptr

    def memset(self, value: int, size: int) -> None:
        """Set bytes."""
        target = self.mem.bytes[self.offset : self.offset + size]
        submit(lambda: target.fill(value), self.mem)

    def memset_async(self, value: int, size: int, stream: Stream | None = None) -> None:
        """Set bytes in a stream."""
        self.memset(value, size)

    def copy_from_device(self, src: MemoryPointer, size: int) -> None:
        """Copy bytes of the device here."""
        target = self.mem.bytes[self.offset : self.offset + size]
        source = src.mem.bytes[src.offset : src.offset + size]
        submit(lambda: np.copyto(target, source), self.mem, src.mem)

    def copy_from_device_async(
        self, src: MemoryPointer, size: int, stream: Stream | None = None
    ) -> None:
        """Copy bytes of the device here in a stream."""
        self.copy_from_device(src, size)


class MemoryPool:
    """CuPy's pool, reduced to what its numbers and its refusals need."""

    def __init__(self, allocator: Callable[[int], MemoryPointer] | None = None) -> None:
        self._free: dict[int, list[Block]] = {}
        self._used = self._held = self._limit = 0

    def malloc(self, size: int) -> MemoryPointer:
        """Lend memory; raises OutOfMemoryError, and in a capture where no freed block fits."""
        rounded = -(-max(size, 1) // ROUNDING) * ROUNDING
        stream = get_current_stream().ptr
        free = self._free.setdefault(stream, [])
        fitting = [block for block in free if rounded <= block.size <= 2 * rounded]
        if fitting:
            block = min(fitting, key=lambda b: b.size)
            free.remove(block)
        else:
            if get_current_stream().is_capturing():
                refuse_in_capture(
                    f"an allocation of {size} bytes that the pool cannot serve (run the step once in "
                    "this stream before it is captured)"
                )
            limit = min(self._limit or DEVICE_BYTES, DEVICE_BYTES)
            if self._held + rounded > limit:
                raise OutOfMemoryError(rounded, self._held, self._limit)
            block = Block(rounded, stream)
            self._held += rounded
        block.in_use = True
        block.use += 1
        self._used += block.size
        memory = Memory(size)
        memory.block = block
        weakref.finalize(memory, self._give_back, block).atexit = False
        return MemoryPointer(memory, 0)

    def _give_back(self, block: Block) -> None:
        block.in_use = False
        self._used -= block.size
        self._free.setdefault(block.stream, []).append(block)

    def free_all_blocks(self, stream: Stream | None = None) -> None:
        """Give unused blocks back to the device."""
        refuse_in_capture("MemoryPool.free_all_blocks")
        for key in [stream.ptr] if stream is not None else list(self._free):
            self._held -= sum(block.size for block in self._free.pop(key, []))

    def used_bytes(self) -> int:
        """Return the bytes in use."""
        return self._used

    def total_bytes(self) -> int:
        """Return the bytes held."""
        return self._held

    def free_bytes(self) -> int:
        """Return the bytes held and not in use."""
        return self._held - self._used

    def n_free_blocks(self) -> int:
        """Return how many blocks are held and not in use."""
        return sum(map(len, self._free.values()))

    def get_limit(self) -> int:
        """Return the limit in bytes, 0 for none."""
        return self._limit

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        """Set the limit."""
        self._limit = int(size if size is not None else (fraction or 0) * DEVICE_BYTES)


class PinnedMemoryPointer(bytearray):
    """Memory of the host that the device can copy from; all memory is, here."""


class PinnedMemoryPool:
    """Keeps nothing."""

    def malloc(self, size: int) -> PinnedMemoryPointer:
        """Return memory of the host."""
        return PinnedMemoryPointer(size)

    def free_all_blocks(self) -> None:
        """Give unused blocks back."""

    def n_free_blocks(self) -> int:
        """Return how many blocks are held."""
        return 0


_pool = MemoryPool()
_pinned_pool = PinnedMemoryPool()
_allocators: list[Callable[[int], MemoryPointer]] = [_pool.malloc]


def get_default_memory_pool() -> MemoryPool:
    """Return the pool that arrays come from."""
    return _pool


def get_default_pinned_memory_pool() -> PinnedMemoryPool:
    """Return the pool of host memory."""
    return _pinned_pool


def alloc(size: int) -> MemoryPointer:
    """Return memory from the current allocator."""
    return _allocators[-1](size)


def alloc_pinned_memory(size: int) -> PinnedMemoryPointer:
    """Return memory of the host that copies can run from."""
    return PinnedMemoryPointer(size)


def set_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> None:
    """Choose where arrays come from; None means straight from the device."""
    _allocators[-1] = MemoryPool().malloc if allocator is None else allocator


@contextmanager
def using_allocator(
    allocator: Callable[[int], MemoryPointer] | None = None,
) -> Iterator[None]:
    """Choose where arrays come from, inside the block."""
    _allocators.append(MemoryPool().malloc if allocator is None else allocator)
    try:
        yield
    finally:
        _allocators.pop()
