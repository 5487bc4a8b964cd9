"""RawModule and RawKernel: CUDA C++ that is compiled and launched by the emulator."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from trine.kernels.cuda import emulator

from ._array import ndarray
from ._errors import CompileException, CUDADriverError
from ._memory import Memory, MemoryPointer
from ._streams import capture_under_way, machine, submit


class RawModule:
    """CUDA C++ source and its kernels."""

    def __init__(
        self,
        code: str | None = None,
        *,
        path: str | None = None,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Sequence[str] | None = None,
        jitify: bool | None = None,
    ) -> None:
        if (code is None) == (path is None):
            raise TypeError("Exactly one of `code` and `path` keyword arguments must be given.")
        if not isinstance(options, tuple):
            raise TypeError("options must be a tuple")
        if code is None:
            raise ValueError(f"`path` names compiled code, which the stand-in cannot run: {path}")
        if backend not in ("nvrtc", "nvcc"):
            raise ValueError(f"Invalid compiler backend {backend!r}")
        self.code = code
        self.options = options
        self.backend = backend
        self.enable_cooperative_groups = enable_cooperative_groups
        self.name_expressions = tuple(name_expressions or ())
        self._compiled: emulator.Module | None = None

    def compile(self, log_stream: Any = None) -> None:
        """Compile now; raises CompileException."""
        self._module()

    def _module(self) -> emulator.Module:
        if self._compiled is None:
            try:
                self._compiled = emulator.Module(
                    self.code, options=self.options, name_expressions=self.name_expressions
                )
            except emulator.CompileError as error:
                raise CompileException(
                    str(error), self.code, "kernel.cu", self.options, self.backend
                ) from error
        return self._compiled

    def get_function(self, name: str) -> RawKernel:
        """Return a kernel; raises CUDADriverError if there is none of the name."""
        try:
            kernel = self._module().kernel(name)
        except emulator.LaunchError as error:
            raise CUDADriverError(
                f"CUDA_ERROR_NOT_FOUND: named symbol not found. {error}"
            ) from error
        made = RawKernel.__new__(RawKernel)
        made._set(self, name, kernel)
        return made

    def get_global(self, name: str) -> MemoryPointer:
        """Return where a variable of the module lies."""
        try:
            found = self._module().variable(name)
        except emulator.LaunchError as error:
            raise CUDADriverError(f"CUDA_ERROR_NOT_FOUND: {error}") from error
        memory = Memory(0)
        memory.size = found.nbytes
        there = (ctypes.c_uint8 * found.nbytes).from_address(found.address)
        memory.bytes = np.ctypeslib.as_array(there)
        memory.owner = self
        return MemoryPointer(memory, 0)


class RawKernel:
    """One kernel."""

    def __init__(
        self,
        code: str,
        name: str,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        *,
        enable_cooperative_groups: bool = False,
        jitify: bool | None = None,
    ) -> None:
        module = RawModule(
            code,
            options=options,
            backend=backend,
            enable_cooperative_groups=enable_cooperative_groups,
        )
        self._set(module, name, None)

    def _set(self, module: RawModule, name: str, kernel: emulator.CompiledKernel | None) -> None:
        self._module, self.name, self._known = module, name, kernel
        self.enable_cooperative_groups = module.enable_cooperative_groups

    @property
    def kernel(self) -> emulator.CompiledKernel:
        """The compiled kernel."""
        if self._known is None:
            self._known = self._module.get_function(self.name)._known
        assert self._known is not None
        return self._known

    def compile(self, log_stream: Any = None) -> None:
        """Compile now; raises CompileException."""
        self._module.compile(log_stream)

    @property
    def code(self) -> str:
        """The source."""
        return self._module.code

    @property
    def options(self) -> tuple[str, ...]:
        """The compiler's options."""
        return self._module.options

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        """The most dynamic shared memory that a launch may ask for."""
        return self.kernel.max_dynamic_shared_bytes

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, value: int) -> None:
        if not 0 <= value <= emulator.MAX_SHARED_BYTES:
            raise CUDADriverError(
                f"CUDA_ERROR_INVALID_VALUE: {value} bytes of shared memory; at most "
                f"{emulator.MAX_SHARED_BYTES}"
            )
        self.kernel.max_dynamic_shared_bytes = value

    @property
    def max_threads_per_block(self) -> int:
        """The largest block."""
        return self.kernel.launch_bounds or emulator.MAX_THREADS

    @property
    def attributes(self) -> dict[str, int]:
        """What is known of the compiled kernel; registers are not."""
        return {
            "max_threads_per_block": self.max_threads_per_block,
            "max_dynamic_shared_size_bytes": self.max_dynamic_shared_size_bytes,
        }

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], **kwargs: Any
    ) -> None:
        """Launch in the current stream; takes `shared_mem`."""
        shared = kwargs.pop("shared_mem", 0)
        if kwargs:
            raise TypeError(f"unexpected keyword arguments {sorted(kwargs)}")
        arguments = [_argument(value) for value in args]
        kernel, together = self.kernel, self.enable_cooperative_groups
        try:
            kernel.check(grid, block, arguments, shared_bytes=shared)
        except emulator.LaunchError as error:
            raise CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: {error}") from error
        if capture_under_way() is None:
            machine.launches += 1

        def launch() -> None:
            kernel.launch(grid, block, arguments, shared_bytes=shared, cooperative=together)

        submit(launch, *(value for value in args if isinstance(value, ndarray)))


def _argument(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value._a
    if isinstance(value, MemoryPointer):
        return emulator.DeviceMemory(value.ptr, value.mem.size - value.offset, value.mem.bytes)
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    return value
