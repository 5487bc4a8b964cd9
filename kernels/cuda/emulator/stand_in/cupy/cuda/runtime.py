"""The stand-in's `cupy.cuda.runtime`."""

from __future__ import annotations

from typing import Any

from .._errors import CUDARuntimeError
from .._memory import DEVICE_BYTES, get_default_memory_pool
from .._streams import machine

__all__ = [
    "CUDARuntimeError",
    "deviceSynchronize",
    "driverGetVersion",
    "getDevice",
    "getDeviceCount",
    "getDeviceProperties",
    "is_hip",
    "memGetInfo",
    "runtimeGetVersion",
    "streamCaptureModeGlobal",
    "streamCaptureModeRelaxed",
    "streamCaptureModeThreadLocal",
]

is_hip = False
streamCaptureModeGlobal = 0  # noqa: N816  CUDA's names
streamCaptureModeThreadLocal = 1  # noqa: N816
streamCaptureModeRelaxed = 2  # noqa: N816
NAME = b"Trine's emulator (no GPU)"


def getDeviceCount() -> int:  # noqa: N802
    """Return the number of devices."""
    return 1


def getDevice() -> int:  # noqa: N802
    """Return the current device."""
    return 0


def getDeviceProperties(device: int) -> dict[str, Any]:  # noqa: N802
    """Return what the device is and has."""
    return {
        "name": NAME,
        "major": 9,
        "minor": 0,
        "totalGlobalMem": DEVICE_BYTES,
        "multiProcessorCount": 4,
        "sharedMemPerBlock": 48 * 1024,
        "sharedMemPerBlockOptin": 227 * 1024,
        "maxThreadsPerBlock": 1024,
        "warpSize": 32,
        "clockRate": 1,
        "memoryClockRate": 1,
        "memoryBusWidth": 64,
        "l2CacheSize": 2**20,
    }


def memGetInfo() -> tuple[int, int]:  # noqa: N802
    """Return free and total bytes."""
    return DEVICE_BYTES - get_default_memory_pool().total_bytes(), DEVICE_BYTES


def deviceSynchronize() -> None:  # noqa: N802
    """Wait until all work is done."""
    machine.wait("deviceSynchronize")


def runtimeGetVersion() -> int:  # noqa: N802
    """Return the runtime's version."""
    return 13000


def driverGetVersion() -> int:  # noqa: N802
    """Return the driver's version."""
    return 13000
