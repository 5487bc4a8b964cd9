"""The Numba backend: JIT-compiled kernels on the CPU, the reference for every other op.

This module is the one place that brings in numba, by importing `trine.kernels.numba`; it is itself
imported only when the backend is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from trine.backends import threads
from trine.backends.base import Backend
from trine.backends.op import OpSpec
from trine.dtypes import Array
from trine.kernels import numba as numba_kernels
from trine.kernels import registry
from trine.kernels.numba import jit, replay


class NumbaBackend(Backend):
    """Numba kernels over NumPy arrays."""

    name = "numba"
    device = "cpu"

    def __init__(self) -> None:
        super().__init__(np)
        threads.choose_layer()
        self._user_kernels: dict[Any, Callable[..., Any]] = {}

    def make_launch(self, spec: OpSpec, entry: registry.Kernel) -> Callable[..., Any]:
        """Return a launch of the kernel, compiled here if a user wrote it in plain Python."""
        function: Any = self.kernel_function(entry)
        parameters = entry.parameters

        def launch(**call: Any) -> None:
            function(*[call[name] for name in parameters])

        return launch

    def kernel_function(self, entry: registry.Kernel) -> Callable[..., Any] | None:
        """Return the kernel, compiled if a user wrote it in plain Python."""
        return self._compiled(entry) if entry.user else entry.function

    def _compiled(self, entry: registry.Kernel) -> Callable[..., Any]:
        """Compile a user's kernel once, however often the choice among kernels is made anew."""
        if entry.function not in self._user_kernels:
            self._user_kernels[entry.function] = numba_kernels.compile_user(entry.function)
        return self._user_kernels[entry.function]

    def thread_count(self) -> int:
        """Return on how many threads kernels run."""
        return threads.get_threads()

    def note_launches(self, launches: list[Any]) -> AbstractContextManager[None]:
        """Append what kernels launch inside the block."""
        return numba_kernels.note_launches(launches)

    def contiguous(self, array: Array) -> Array:
        """Return a copy with its elements in row-major order, as part of the kernel's launch."""
        out = self.empty(array.shape, array.dtype)
        jit.assign(out, array)
        return out

    def array_entry(self, name: str, args: tuple[Any, ...], made: Sequence[Array]) -> Any:
        """Return a copy or a sum of whole arrays that can stand among launches."""
        if name == "assign" and replay.copyable(*args):
            return jit.Copy(*args)
        if name in ("copy", "clone") and replay.copyable(made[0], args[0]):
            return jit.Copy(made[0], args[0])
        if name == "accumulate" and replay.addable(*args):
            return replay.Add(*args)
        if name in ("full", "zeros", "constant"):
            return jit.Copy(made[0], made[0].copy())
        return None

    def compile_entries(self, entries: Sequence[Any]) -> Callable[[], None]:
        """Return a native function that repeats launches and what stands among them."""
        return replay.compile_entries(entries)

    def compile_seconds(self) -> float:
        """Return how long kernels took to compile or load so far, in seconds."""
        return numba_kernels.compile_seconds()
