"""The arrays tier of a backend: make arrays, move them, count what moves, draw random ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trine import random
from trine.backends.allocator import PoolAllocator
from trine.backends.op import op
from trine.dtypes import SUPPORTED, Array, DType, as_dtype, float64, promote

if TYPE_CHECKING:
    from trine.backends.dispatch import Counters


class ArrayOps:
    """Arrays on the CPU; a backend for a device overrides what differs there."""

    xp: Any
    counters: Counters
    allocator: PoolAllocator

    def asarray(self, obj: Any, dtype: npt.DTypeLike | None = None) -> Array:
        """Return `obj` as a contiguous array of this backend, in `dtype` or the type it has.

        Lists of Python floats become float32, lists of ints int64. An array of this backend in the
        right dtype is not copied. Raises TypeError for a dtype that tensors don't hold.
        """
        host = self._host_array(obj, dtype)
        return host if host.flags.writeable else host.copy()

    def _host_array(self, obj: Any, dtype: npt.DTypeLike | None) -> npt.NDArray[Any]:
        is_array = isinstance(obj, (np.ndarray, np.generic))
        host = np.asarray(obj)
        if dtype is not None:
            wanted = as_dtype(dtype)
        elif not is_array and host.dtype.kind in "bif":
            wanted = promote(host.dtype.type(0).item())  # Python numbers: the default of their kind
        else:
            wanted = as_dtype(host.dtype)
        if host.dtype.kind not in "biuf":
            names = ", ".join(d.name for d in SUPPORTED)
            raise TypeError(
                f"[asarray] expected numbers, got {host.dtype} from {type(obj).__name__}. Convert "
                f"the data to one of {names} first."
            )
        return np.ascontiguousarray(host, dtype=wanted).reshape(host.shape)

    def asarray_key(self, key: npt.NDArray[np.uint32]) -> Array:
        """Return a Philox key array (`trine.random`) on this backend."""
        return key

    def refill_key(self, key: Array, words: npt.NDArray[np.uint32]) -> None:
        """Write another draw's words into a key array."""
        key[...] = words

    def to_numpy(self, x: Array) -> npt.NDArray[Any]:
        """Return an array as a NumPy array; on the CPU it shares memory."""
        result: npt.NDArray[Any] = x
        return result

    def owns(self, x: Any) -> bool:
        """Return whether `x` is an array of this backend."""
        return isinstance(x, np.ndarray)

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """Return an uninitialised array from the backend's one allocator."""
        return self.allocator.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """Return an array of zeros."""
        return self.full(shape, 0, dtype)

    def full(self, shape: tuple[int, ...], value: float, dtype: DType) -> Array:
        """Return an array filled with one value."""
        out = self.empty(shape, dtype)
        out.fill(value)
        return out

    def constant(self, value: float, dtype: DType) -> Array:
        """Return a number as an array without axes."""
        return self.full((), value, dtype)

    def arange(self, start: int, stop: int, step: int, dtype: DType) -> Array:
        """Return start, start + step, ... up to stop, excluded."""
        return self.xp.arange(start, stop, step, dtype=dtype)

    def copy(self, x: Array) -> Array:
        """Return a contiguous copy."""
        out = self.empty(x.shape, x.dtype)
        out[...] = x
        return out

    def clone(self, x: Array) -> Array:
        """Return a contiguous copy: the primitive behind `Tensor.clone`."""
        return self.copy(x)

    def assign(self, target: Array, value: Array | float) -> None:
        """Write `value`, broadcast, into the elements of `target`."""
        target[...] = value

    def accumulate(self, target: Array, value: Array) -> None:
        """Add `value` to `target` in place."""
        target += value

    def synchronize(self) -> None:
        """Wait until the device has finished; nothing to wait for on the CPU."""

    def memory_stats(self) -> dict[str, int]:
        """Return bytes of kernel outputs: in use, held by the pool, peak in use."""
        return self.allocator.stats()

    def memory_report(self) -> str:
        """Return a line that names the largest live arrays."""
        return self.allocator.report()

    def free_memory(self) -> int | None:
        """Return how many bytes arrays can still take on the device; None where that is the host."""
        return None

    @op(outputs=lambda key, *, n: {"out": ((n,), np.dtype("uint32"))})
    def random_bits(self, key: Array, *, n: int) -> Array:
        """Return the first n words of the Philox draw of a key array, uint32 (n,).

        key: uint32 (5,), see `trine.random`. The same words on every backend.
        """
        return random.bits(key, n, self.xp)

    def random_uniform(self, key: Array, *, shape: tuple[int, ...], dtype: DType) -> Array:
        """Return uniforms in [0, 1), the same bits on every backend."""
        words = random.words_needed(math.prod(shape), dtype)
        return random.uniform_from_bits(self.random_bits(key, n=words), dtype, self.xp).reshape(
            shape
        )

    def random_normal(self, key: Array, *, shape: tuple[int, ...], dtype: DType) -> Array:
        """Return standard normals, the same bits on every backend."""
        words = self.random_bits(key, n=math.prod(shape))
        return random.normal_from_bits(words, dtype, self.xp).reshape(shape)

    def hyper(self, value: float) -> Array:
        """Return a float64 array (1,): a number that may change from step to step."""
        return self.asarray([value], float64)
