"""CuPy's exceptions, under the names by which CuPy code catches them."""

from __future__ import annotations


class CUDARuntimeError(RuntimeError):
    """What the CUDA runtime refuses."""

    def __init__(self, status: object) -> None:
        self.status = status
        super().__init__(str(status))


class CUDADriverError(RuntimeError):
    """What the CUDA driver refuses: launches beyond the limits, names that are not there."""

    def __init__(self, status: object) -> None:
        self.status = status
        super().__init__(str(status))


class OutOfMemoryError(MemoryError):
    """The pool's limit, or the device's memory, does not hold another array."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        bound = f" (limit set to: {limit:,} bytes)" if limit else ""
        super().__init__(
            f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes{bound})."
        )


class CompileException(Exception):  # noqa: N818  CuPy's name
    """CUDA C++ that does not compile."""

    def __init__(
        self, msg: str, source: str, name: str, options: tuple[str, ...], backend: str = "nvrtc"
    ) -> None:
        self._msg, self.source, self.name = msg, source, name
        self.options, self.backend = options, backend
        super().__init__(msg)

    def get_message(self) -> str:
        """Return the compiler's message."""
        return self._msg


class HiddenSyncError(AssertionError):
    """A device value was read on the host, while `_streams.machine` refuses what is implicit."""
