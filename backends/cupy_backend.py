"""The CuPy backend: the reference on the GPU, and CUDA C++ kernels where they are registered.

The one place, beside the probe, that imports cupy. Copies between host and device, and waiting for
the device, happen only in the methods here that say so, and each is counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cupy
import numpy as np
import numpy.typing as npt

from trine.backends.base import Backend
from trine.backends.cuda_launch import make_cuda_launch, prepare
from trine.backends.graph_recording import GraphRecorder
from trine.backends.op import OpSpec
from trine.backends.recording import Recorder
from trine.dtypes import Array, DType, as_dtype
from trine.errors import BackendError
from trine.kernels import cuda as cuda_kernels
from trine.kernels import registry

INCLUDE = Path(cuda_kernels.__file__).parent / "include"
"""The headers that kernels share."""
LINES = ("-lineinfo",) if os.environ.get("TRINE_CUDA_LINES") else ()
"""With that variable NVIDIA's tools name lines of a `.cu`; the code is the same."""

TENSOR_CORES = 80
"""The compute capability, here 8.0, from which tensor cores multiply TF32 and bfloat16."""


class CupyBackend(Backend):
    """CUDA arrays on one GPU."""

    name = "cupy"

    def __init__(self, device: int = 0) -> None:
        super().__init__(cupy)
        count = cupy.cuda.runtime.getDeviceCount()
        if not 0 <= device < count:
            raise BackendError(
                f"[cupy] expected a device from 0 to {count - 1}, got {device}. See `nvidia-smi -L`."
            )
        cupy.cuda.Device(device).use()
        self.device = f"cuda:{device}"
        self.capability = int(cupy.cuda.Device(device).compute_capability)
        """Compute capability, 90 for 9.0."""
        self._modules: dict[tuple[Path, tuple[str, ...], str], Any] = {}

    @property
    def precisions(self) -> tuple[str, ...]:
        """What `set_precision` takes: all modes where the tensor cores have them."""
        return registry.PRECISIONS if self.capability >= TENSOR_CORES else ("fp32",)

    def why_fp32(self) -> str:
        """Return why products are in fp32 only, and what to do."""
        have, need = (f"{c // 10}.{c % 10}" for c in (self.capability, TENSOR_CORES))
        return (
            f"{self.device} has compute capability {have}, and TF32 and bfloat16 products need {need}. "
            "Leave precision at fp32, or use a later GPU"
        )

    # Arrays

    def asarray(self, obj: Any, dtype: npt.DTypeLike | None = None) -> Array:
        """Return `obj` on the GPU; an upload unless it is there already."""
        if isinstance(obj, cupy.ndarray):
            wanted = as_dtype(obj.dtype if dtype is None else dtype)
            return cupy.ascontiguousarray(obj, dtype=wanted).reshape(obj.shape)
        host = self._host_array(obj, dtype)
        self.counters.uploads += 1
        return self._allocate(lambda: cupy.asarray(host), host.shape, host.dtype)

    def asarray_key(self, key: npt.NDArray[np.uint32]) -> Array:
        """Return a Philox key array on the GPU; an upload of 20 bytes."""
        if isinstance(key, cupy.ndarray):
            return key
        self.counters.uploads += 1
        return cupy.asarray(key)

    def refill_key(self, key: Array, words: npt.NDArray[np.uint32]) -> None:
        """Write another draw's words into a key array; an upload of 20 bytes."""
        self.counters.uploads += 1
        key.set(words)

    def to_numpy(self, x: Array) -> npt.NDArray[Any]:
        """Return a copy on the host; waits for the device."""
        self.counters.downloads += 1
        self.counters.syncs += 1
        result: npt.NDArray[Any] = cupy.asnumpy(x)
        return result

    def owns(self, x: Any) -> bool:
        """Return whether `x` is a CuPy array."""
        return isinstance(x, cupy.ndarray)

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """Return an uninitialised array from CuPy's pool."""
        return self._allocate(lambda: cupy.empty(shape, dtype), shape, dtype)

    def _allocate(self, make: Callable[[], Array], shape: tuple[int, ...], dtype: DType) -> Array:
        try:
            return make()
        except cupy.cuda.memory.OutOfMemoryError:
            cupy.get_default_memory_pool().free_all_blocks()
        try:
            return make()
        except cupy.cuda.memory.OutOfMemoryError as error:
            size = np.dtype(dtype).itemsize * float(np.prod(shape)) / 2**30
            raise BackendError(
                f"[{self.allocator.op}] expected {size:.2f} GiB of GPU memory for an array {shape} of "
                f"{np.dtype(dtype).name}, but the device has no more. Use a smaller batch. "
                f"{self.memory_report()}"
            ) from error

    def synchronize(self) -> None:
        """Wait until the device has finished; faults of earlier kernels surface here."""
        self.counters.syncs += 1
        cupy.cuda.get_current_stream().synchronize()

    def memory_stats(self) -> dict[str, int]:
        """Return bytes in use and held by CuPy's pool."""
        pool = cupy.get_default_memory_pool()
        return {"used": pool.used_bytes(), "held": pool.total_bytes(), "peak": pool.total_bytes()}

    def memory_report(self) -> str:
        """Return a line with the pool's bytes and the device's free memory."""
        stats = self.memory_stats()
        free, total = cupy.cuda.runtime.memGetInfo()
        return (
            f"In use {stats['used'] / 2**20:.0f} MiB, held {stats['held'] / 2**20:.0f} MiB, "
            f"{free / 2**20:.0f} of {total / 2**20:.0f} MiB free on the device."
        )

    def free_memory(self) -> int:
        """Return the device's free bytes and those that the pool holds unused, within its limit."""
        pool = cupy.get_default_memory_pool()
        free = int(cupy.cuda.runtime.memGetInfo()[0]) + int(pool.free_bytes())
        limit = int(pool.get_limit())
        return min(free, limit - int(pool.used_bytes())) if limit else free

    # Kernels

    def recorder(self) -> Recorder:
        """Return a recorder whose recording is a CUDA graph."""
        return GraphRecorder(self)

    def make_launch(self, spec: OpSpec, entry: registry.Kernel) -> Callable[..., Any]:
        """Return a launch of the CUDA kernel, or a plain call of a Python function on arrays."""
        if entry.cuda is None:
            return super().make_launch(spec, entry)
        return make_cuda_launch(entry, self._compile, self.empty)

    def prepare(self, launched: Any, arrays: Sequence[Any]) -> Callable[..., None] | None:
        """Return what launches the same again on other arrays, if there is such a thing."""
        return prepare(launched, arrays, self.empty, lambda array: int(array.data.ptr))

    def kernel_function(self, entry: registry.Kernel) -> Callable[..., Any] | None:
        """Return a Python function on arrays; CUDA kernels are launched by name instead."""
        return None if entry.cuda is not None else entry.function

    def _compile(self, path: Path, options: tuple[str, ...], expression: str) -> Any:
        """Return a kernel, compiled by itself when it is first launched; CuPy keeps it on disk.

        By NVRTC 13.5 for sm_90, on one core, the 19 kernels of a LeNet-5 step take 6.3 s one by one.
        One module for each of their six files would take 155 s with all kernels that they have,
        and 5.4 s with those 19 alone, which nobody knows before they are launched.
        """
        key = (path, options, expression)
        if key not in self._modules:
            module = cupy.RawModule(
                code=f'#line 1 "{path.name}"\n{path.read_text()}',  # for the compiler's messages
                options=("--std=c++17", f"-I{INCLUDE}", *LINES, *options),
                name_expressions=(expression,),
            )
            self._modules[key] = module.get_function(expression)
        return self._modules[key]
