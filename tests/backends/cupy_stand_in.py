"""A stand-in for CuPy's array module, for machines without a GPU.

It lets the Python code of `CupyBackend` and the reference bodies run as they would on a device:
device arrays are a type of their own, mixing them with NumPy arrays is refused as CuPy refuses it,
and so is reading a device value on the host (`float(x)`, `bool(x)`, `x.item()`) outside the methods
that may. It computes with NumPy and launches no CUDA kernel.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np

used_names: set[str] = set()
"""Every attribute that was asked of the module, to be compared with the real CuPy."""


class HiddenSyncError(AssertionError):
    """A device value was read on the host where nothing says so."""


class DeviceArray(np.ndarray[Any, Any]):
    """An array "on the device"."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        _refuse_host_arrays(inputs)
        plain = [_host(i) for i in inputs]
        if "out" in kwargs:
            kwargs["out"] = tuple(_host(o) for o in kwargs["out"])
        return _device(getattr(ufunc, method)(*plain, **kwargs))

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        _refuse_host_arrays(args)
        return _device(func(*_host_all(args), **_host_all(kwargs)))

    def __getitem__(self, index: Any) -> Any:
        _refuse_host_arrays(index if isinstance(index, tuple) else (index,))
        return _device(_host(self)[_host_all(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        _refuse_host_arrays((value, *(index if isinstance(index, tuple) else (index,))))
        _host(self)[_host_all(index)] = _host(value)

    def _sync(self, *_: Any, **__: Any) -> Any:
        raise HiddenSyncError("a device value was read on the host")

    __bool__ = __float__ = __int__ = __index__ = item = tolist = _sync  # type: ignore[assignment]

    def fill(self, value: Any) -> None:
        _host(self).fill(value)


for _name in ("reshape", "transpose", "astype", "swapaxes", "copy", "sum", "mean", "max", "min"):

    def _method(self: Any, *args: Any, _name: str = _name, **kwargs: Any) -> Any:
        return _device(getattr(_host(self), _name)(*_host_all(args), **kwargs))

    setattr(DeviceArray, _name, _method)


def _host(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, DeviceArray) else x


def _host_all(x: Any) -> Any:
    if isinstance(x, (tuple, list)):
        return type(x)(_host_all(i) for i in x)
    if isinstance(x, dict):
        return {k: _host_all(v) for k, v in x.items()}
    return _host(x)


def _device(x: Any) -> Any:
    if isinstance(x, (tuple, list)):
        return type(x)(_device(i) for i in x)
    if isinstance(x, (np.ndarray, np.generic)):
        return np.asarray(x).view(DeviceArray)
    return x


def _refuse_host_arrays(values: Any) -> None:
    for value in values:
        if isinstance(value, (tuple, list)):
            _refuse_host_arrays(value)
        elif isinstance(value, np.ndarray) and not isinstance(value, DeviceArray) and value.ndim:
            raise TypeError(f"Unsupported type {type(value)}")


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class _Pool:
    def used_bytes(self) -> int:
        return 0

    def total_bytes(self) -> int:
        return 0

    def free_all_blocks(self) -> None:
        pass


class _Device:
    def __init__(self, index: int) -> None:
        self.id = index

    def use(self) -> None:
        pass


class _Stream:
    def synchronize(self) -> None:
        pass


class StandIn(types.ModuleType):
    """The module object that goes into `sys.modules["cupy"]`."""

    ndarray = DeviceArray
    __version__ = "14.2.0"

    def __init__(self) -> None:
        super().__init__("cupy")
        runtime = types.SimpleNamespace(
            getDeviceCount=lambda: 1,
            getDeviceProperties=lambda i: {"name": b"stand-in"},
            memGetInfo=lambda: (2**30, 2**31),
        )
        self.cuda = types.SimpleNamespace(
            runtime=runtime,
            Device=_Device,
            is_available=lambda: True,
            get_current_stream=_Stream,
            memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        used_names.add(name)
        real = getattr(np, name)
        if isinstance(real, np.ufunc):
            return real
        if not callable(real) or isinstance(real, type):
            return real

        def function(*args: Any, **kwargs: Any) -> Any:
            _refuse_host_arrays(args)
            return _device(real(*_host_all(args), **_host_all(kwargs)))

        return function

    def asarray(self, obj: Any, dtype: Any = None) -> Any:
        return np.array(_host(obj), dtype=dtype, copy=True).view(DeviceArray)

    def ascontiguousarray(self, obj: Any, dtype: Any = None) -> Any:
        return np.ascontiguousarray(_host(obj), dtype=dtype).view(DeviceArray)

    def asnumpy(self, x: Any) -> Any:
        return np.array(_host(x))

    def get_default_memory_pool(self) -> _Pool:
        return _Pool()
