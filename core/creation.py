"""Making tensors: from data, constant, counted or random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trine import random
from trine.backends import Backend, default_backend, get_backend
from trine.dtypes import as_dtype, float32, int64
from trine.tensor import Tensor

Shape = int | Sequence[int]


def _backend(backend: str | Backend | None) -> Backend:
    if backend is None:
        return default_backend()
    return get_backend(backend) if isinstance(backend, str) else backend


def _shape(shape: tuple[Shape, ...]) -> tuple[int, ...]:
    sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    result = tuple(int(size) for size in sizes)  # type: ignore[arg-type]
    if any(size < 0 for size in result):
        raise ValueError(f"[shape] expected sizes of at least 0, got {result}. Check the sizes.")
    return result


def tensor(
    data: Any,
    dtype: npt.DTypeLike | None = None,
    requires_grad: bool = False,
    backend: str | Backend | None = None,
) -> Tensor:
    """Return a new tensor that holds a copy of `data`: numbers, nested lists, an array or a tensor.

    Python floats become float32, ints int64; arrays keep their dtype. Raises TypeError for data
    that are not numbers.
    """
    target = _backend(
        backend if backend is not None or not isinstance(data, Tensor) else data.backend
    )
    if isinstance(data, Tensor):
        data = data.backend.to_numpy(data.data)
    elif isinstance(data, (list, tuple)) and any(isinstance(item, Tensor) for item in data):
        data = [item.tolist() if isinstance(item, Tensor) else item for item in data]
    array = target.asarray(data, dtype)
    if target.owns(data) and array is not None and np.shares_memory(array, data):
        array = target.copy(array)
    return Tensor(array, target, requires_grad)


def as_tensor(
    data: Any, dtype: npt.DTypeLike | None = None, backend: str | Backend | None = None
) -> Tensor:
    """Return `data` as a tensor, sharing memory where it is an array of the backend."""
    if isinstance(data, Tensor):
        moved = data if backend is None else data.to(_backend(backend).name)
        return moved if dtype is None else moved.astype(dtype)
    target = _backend(backend)
    return Tensor(target.asarray(data, dtype), target)


def from_numpy(array: npt.NDArray[Any], backend: str | Backend | None = None) -> Tensor:
    """Return a tensor on the elements of a NumPy array, shared on the CPU."""
    return as_tensor(array, backend=backend)


def from_dlpack(obj: Any) -> Tensor:
    """Return a tensor that shares the memory of an object with `__dlpack__`.

    CPU memory comes to the default backend if it is on the CPU, else to numpy; CUDA memory to cupy.
    Raises TypeError for an object without the protocol.
    """
    if not hasattr(obj, "__dlpack_device__"):
        raise TypeError(
            f"[from_dlpack] expected an object with __dlpack__, got {type(obj).__name__}. Use "
            "trine.tensor(x) for other data."
        )
    cpu = obj.__dlpack_device__()[0] == 1
    if cpu:
        target = default_backend()
        target = target if target.device == "cpu" else get_backend("numpy")
    else:
        target = get_backend("cupy")
    array = target.xp.from_dlpack(obj)
    as_dtype(array.dtype)
    return Tensor(array, target)


def full(
    shape: Shape,
    value: float,
    *,
    dtype: npt.DTypeLike | None = None,
    requires_grad: bool = False,
    backend: str | Backend | None = None,
) -> Tensor:
    """Return a tensor filled with one value."""
    target = _backend(backend)
    return Tensor(target.full(_shape((shape,)), value, as_dtype(dtype)), target, requires_grad)


def zeros(
    *shape: Shape,
    dtype: npt.DTypeLike | None = None,
    requires_grad: bool = False,
    backend: str | Backend | None = None,
) -> Tensor:
    """Return a tensor of zeros."""
    return full(_shape(shape), 0, dtype=dtype, requires_grad=requires_grad, backend=backend)


def ones(
    *shape: Shape,
    dtype: npt.DTypeLike | None = None,
    requires_grad: bool = False,
    backend: str | Backend | None = None,
) -> Tensor:
    """Return a tensor of ones."""
    return full(_shape(shape), 1, dtype=dtype, requires_grad=requires_grad, backend=backend)


def zeros_like(x: Tensor) -> Tensor:
    """Return zeros in the shape, dtype and backend of x."""
    return Tensor(x.backend.zeros(x.shape, x.dtype), x.backend)


def ones_like(x: Tensor) -> Tensor:
    """Return ones in the shape, dtype and backend of x."""
    return Tensor(x.backend.full(x.shape, 1, x.dtype), x.backend)


def arange(
    start: int,
    stop: int | None = None,
    step: int = 1,
    *,
    dtype: npt.DTypeLike | None = int64,
    backend: str | Backend | None = None,
) -> Tensor:
    """Return start, start + step, ... below stop; from 0 with one argument."""
    first, last = (0, start) if stop is None else (start, stop)
    target = _backend(backend)
    return Tensor(target.arange(first, last, step, as_dtype(dtype)), target)


def linspace(
    start: float,
    stop: float,
    steps: int,
    *,
    dtype: npt.DTypeLike | None = float32,
    backend: str | Backend | None = None,
) -> Tensor:
    """Return `steps` evenly spaced values from start to stop, both included."""
    return tensor(np.linspace(start, stop, steps), dtype, backend=backend)


def eye(
    n: int, *, dtype: npt.DTypeLike | None = None, backend: str | Backend | None = None
) -> Tensor:
    """Return the identity matrix."""
    return tensor(np.eye(n), as_dtype(dtype), backend=backend)


def rand(
    *shape: Shape,
    dtype: npt.DTypeLike | None = None,
    generator: random.Generator | None = None,
    requires_grad: bool = False,
    backend: str | Backend | None = None,
) -> Tensor:
    """Return uniforms in [0, 1): the same bits on every backend for the same seed."""
    return _draw("random_uniform", "rand", shape, dtype, generator, requires_grad, backend)


def randn(
    *shape: Shape,
    dtype: npt.DTypeLike | None = None,
    generator: random.Generator | None = None,
    requires_grad: bool = False,
    backend: str | Backend | None = None,
) -> Tensor:
    """Return standard normals: the same bits on every backend for the same seed."""
    return _draw("random_normal", "randn", shape, dtype, generator, requires_grad, backend)


def _draw(
    method: str,
    purpose: str,
    shape: tuple[Shape, ...],
    dtype: npt.DTypeLike | None,
    generator: random.Generator | None,
    requires_grad: bool,
    backend: str | Backend | None,
) -> Tensor:
    target = _backend(backend)
    source = generator if generator is not None else random.default_generator()
    key = target.asarray_key(source.key(random.stream_id(purpose)))
    array = getattr(target, method)(key, shape=_shape(shape), dtype=as_dtype(dtype))
    return Tensor(array, target, requires_grad)
