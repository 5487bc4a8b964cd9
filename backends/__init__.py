"""Backends: which ones can run here, which one is the default, and the objects themselves.

A backend is asked for by name and made once. Probing never throws: it keeps the reason why a
backend cannot run and the line that mends it.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType

from trine.backends.base import Backend
from trine.errors import BackendError, suggest

__all__ = [
    "NAMES",
    "Backend",
    "Probe",
    "auto",
    "available",
    "default_backend",
    "get_backend",
    "precision",
    "use",
]

NAMES = ("numpy", "numba", "cupy")


@dataclass(frozen=True)
class Probe:
    """Whether a backend can run here, else why not and what to do."""

    ok: bool
    reason: str
    remedy: str = ""


_instances: dict[str, Backend] = {}
_probes: dict[str, Probe] = {}
_lock = threading.RLock()


def _make_numpy() -> Backend:
    from trine.backends.numpy_backend import NumpyBackend  # noqa: PLC0415

    return NumpyBackend()


def _make_numba() -> Backend:
    from trine.backends.numba_backend import NumbaBackend  # noqa: PLC0415  numba takes 0.3 s

    return NumbaBackend()


def _make_cupy() -> Backend:
    from trine.backends.cupy_backend import CupyBackend  # noqa: PLC0415  needs a GPU

    return CupyBackend(_device)


_device = 0


def select_device(device: int) -> None:
    """Choose the GPU that the cupy backend takes: one a process.

    Raises BackendError if the backend already runs on another one.
    """
    global _device  # noqa: PLW0603  one GPU a process
    made = _instances.get("cupy")
    if made is not None and made.device != f"cuda:{device}":
        raise BackendError(
            f"[device] expected to keep {made.device}, got device {device}: one process uses one "
            "GPU. Start another process with --device."
        )
    _device = device


_makers: dict[str, Callable[[], Backend]] = {
    "numpy": _make_numpy,
    "numba": _make_numba,
    "cupy": _make_cupy,
}


def _probe_numba() -> Probe:
    try:
        import numba  # noqa: PLC0415  only when asked
    except Exception as error:  # numba raises many kinds where it doesn't fit NumPy or Python
        return Probe(
            False,
            f"numba does not import: {type(error).__name__}: {error}",
            "pip install --upgrade numba",
        )
    return Probe(True, f"numba {numba.__version__}")


def _probe_cupy() -> Probe:
    from trine.backends import cupy_probe  # noqa: PLC0415

    ok, reason, remedy = cupy_probe.probe()
    return Probe(ok, reason, remedy)


def probe(name: str) -> Probe:
    """Return whether a backend can run here; the answer is kept. Never throws for a known name."""
    if name not in NAMES:
        raise suggest("backend", "backend", name, NAMES)
    with _lock:
        if name not in _probes:
            if name == "numpy":
                _probes[name] = Probe(True, "always there")
            else:
                _probes[name] = _probe_numba() if name == "numba" else _probe_cupy()
        return _probes[name]


def available() -> dict[str, Probe]:
    """Return the probe of every backend."""
    return {name: probe(name) for name in NAMES}


def get_backend(name: str) -> Backend:
    """Return the backend of a name, made on first use.

    Raises ValueError for an unknown name and BackendError, with the reason and the remedy, for a
    backend that cannot run here.
    """
    found = _instances.get(name)
    if found is not None:
        return found
    with _lock:
        if name not in _instances:
            result = probe(name)
            if not result.ok:
                raise BackendError(
                    f"[backend] expected the {name} backend to run, but {result.reason}. "
                    f"To mend it: {result.remedy}. Or choose another backend."
                )
            _instances[name] = _makers[name]()
        return _instances[name]


_default: ContextVar[str | None] = ContextVar("trine_default_backend", default=None)
_process_default: str | None = None


def default_backend() -> Backend:
    """Return the backend that new tensors go to: `use`'s choice, else numba, else numpy."""
    name = _default.get() or _process_default
    if name is None:
        # numba is looked for, not imported: it comes in when the first kernel runs
        name = "numba" if importlib.util.find_spec("numba") and probe("numba").ok else "numpy"
    return get_backend(name)


class use:  # noqa: N801  called like a function, as in `trine.use("numba")`
    """Set the default backend; as a context manager, only for the block.

    `trine.use("numpy")` lasts; `with trine.use("numpy"): ...` ends with the block. Raises as
    `get_backend` does.
    """

    def __init__(self, name: str) -> None:
        global _process_default  # noqa: PLW0603  the one process-wide choice
        get_backend(name)
        self.name = name
        self._before = _process_default
        self._token: Token[str | None] | None = None
        _process_default = name

    def __enter__(self) -> Backend:
        global _process_default  # noqa: PLW0603
        _process_default = self._before
        self._token = _default.set(self.name)
        return get_backend(self.name)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._token is not None:
            _default.reset(self._token)
            self._token = None


class precision:  # noqa: N801  called like `use`
    """Choose how products of float32 are computed: "fp32", or on tensor cores "tf32" or "bf16".

    `trine.precision("tf32")` lasts; `with trine.precision("tf32"): ...` ends with the block. In
    tf32 the factors of linear layers, matrix products, convolutions and recurrent nets are rounded
    to 10 bits after the point (a relative error of up to 2^-11 each), in bf16 to 7 (2^-8); products are
    added in float32, and weights, gradients and everything else stay float32. float64 is not
    touched. It holds for a backend, the default one if none is named, in all threads.

    Raises ValueError for an unknown mode, BackendError where the backend or its GPU lacks it.
    """

    def __init__(self, mode: str, *, backend: str | None = None) -> None:
        self.mode = mode
        self._backend = default_backend() if backend is None else get_backend(backend)
        self._before = self._backend.precision
        self._backend.set_precision(mode)

    def __enter__(self) -> Backend:
        return self._backend

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._backend.set_precision(self._before)


SMALL_MODEL = 20_000
"""Below this many parameters compiling kernels costs more than they save."""


def auto(parameters: int | None = None) -> tuple[str, str]:
    """Return the backend that `auto` takes, and in one line why.

    cupy where a GPU is usable, else numba (numpy for models too small to repay compiling), else
    numpy.
    """
    gpu = probe("cupy")
    if gpu.ok:
        return "cupy", f"cupy: {gpu.reason}"
    jit = probe("numba")
    if not jit.ok:
        return "numpy", f"numpy, since cupy: {gpu.reason}; numba: {jit.reason}"
    if parameters is not None and parameters < SMALL_MODEL:
        return "numpy", (
            f"numpy, since {parameters:,} parameters do not repay compiling kernels "
            f"(cupy: {gpu.reason})"
        )
    return "numba", f"numba ({jit.reason}), since cupy: {gpu.reason}"
