"""The stand-in's `cupy.cuda`: one device, which is the host."""

from __future__ import annotations

from typing import Any

from .._memory import (
    DEVICE_BYTES,
    Memory,
    MemoryPointer,
    MemoryPool,
    PinnedMemoryPointer,
    PinnedMemoryPool,
    UnownedMemory,
    alloc,
    alloc_pinned_memory,
    set_allocator,
    using_allocator,
)
from .._memory import get_default_memory_pool as _default_pool
from .._streams import Event, Graph, Stream, get_current_stream, get_elapsed_time, machine
from . import compiler, device, driver, graph, memory, nvrtc, runtime, stream

__all__ = [
    "Device",
    "Event",
    "Graph",
    "Memory",
    "MemoryPointer",
    "MemoryPool",
    "PinnedMemoryPointer",
    "PinnedMemoryPool",
    "Stream",
    "UnownedMemory",
    "alloc",
    "alloc_pinned_memory",
    "compiler",
    "device",
    "driver",
    "get_current_stream",
    "get_device_id",
    "get_elapsed_time",
    "get_local_runtime_version",
    "graph",
    "is_available",
    "memory",
    "nvrtc",
    "runtime",
    "set_allocator",
    "stream",
    "using_allocator",
]


class Device:
    """The one device."""

    def __init__(self, device: Any = None) -> None:
        self.id = 0 if device is None else int(device)
        if self.id != 0:
            raise runtime.CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return self.id

    def use(self) -> None:
        """Make it the current device."""

    def synchronize(self) -> None:
        """Wait until all its work is done."""
        machine.wait("Device.synchronize")

    @property
    def compute_capability(self) -> str:
        """What kernels are compiled for."""
        return "90"

    @property
    def mem_info(self) -> tuple[int, int]:
        """Free and total bytes."""
        return DEVICE_BYTES - _default_pool().total_bytes(), DEVICE_BYTES

    @property
    def attributes(self) -> dict[str, int]:
        """What the device can do."""
        return {
            "MaxThreadsPerBlock": 1024,
            "MaxSharedMemoryPerBlock": 48 * 1024,
            "MaxSharedMemoryPerBlockOptin": 227 * 1024,
            "MultiProcessorCount": 4,
            "WarpSize": 32,
            "CooperativeLaunch": 1,
        }


def is_available() -> bool:
    """Return whether there is a device."""
    return True


def get_device_id() -> int:
    """Return the current device."""
    return 0


def get_local_runtime_version() -> int:
    """Return CUDA's version."""
    return runtime.runtimeGetVersion()
