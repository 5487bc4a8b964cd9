"""How kernels are compiled, cached and run on threads.

Every kernel is one Python function over `prange`. `@parallel` compiles it, on first use, as a
parallel and as a truly serial function; the latter runs for small work and with one thread, so that
no thread pool is ever started then. Both do the same operations in the same order, because what
they share is compiled once, in `@helper` functions.

Numba's own cache notices neither changed helpers in other files nor other compiler options. So the
cache folder is named by a hash of all sources here, Numba's version and the CPU, and serial and
parallel code lie in separate folders below it.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numba
import numpy as np

from trine.dtypes import Array, DType
from trine.errors import BackendError
from trine.kernels.cache import user_cache_root

log = logging.getLogger("trine")

Function = Callable[..., Any]

# Parallel loops are the only thing that Numba may make parallel: reductions over threads would
# depend on their number.
PARALLEL_OPTIONS = {
    "prange": True,
    "reduction": False,
    "comprehension": False,
    "inplace_binop": False,
    "setitem": False,
    "numpy": False,
    "stencil": False,
    "fusion": False,
}
COMMON = {"error_model": "numpy", "boundscheck": False, "nogil": True}
FAST = {"contract"}
"""Multiplication and addition may become one FMA; NaN, Inf and the order of sums stay as written."""
FAST_SUM = {"contract", "reassoc", "nsz"}
"""Besides, a sum may be split over the lanes of vectors; NaN and Inf still count."""


# --- the cache folder ---------------------------------------------------------------------------


def hash_of(folder: Path) -> str:
    """Return the hash of all that compiled code depends on: a folder's sources, Numba, the CPU."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    features = llvm.get_host_cpu_features().flatten()
    width = os.environ.get("TRINE_VECTOR_BYTES", "")  # see simd.py
    parts = (numba.__version__, llvm.get_host_cpu_name(), features, sys.version, width)
    digest.update("\0".join(parts).encode())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def source_hash() -> str:
    """Return the hash that names the cache folder of this version's kernels."""
    return hash_of(Path(__file__).parent)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@lru_cache(maxsize=1)
def cache_dir() -> Path:
    """Return the folder of this version's compiled kernels, made on first use.

    Where it cannot be written a temporary one serves until the process ends, with one warning on
    the logger "trine".
    """
    folder = user_cache_root() / "numba" / source_hash()
    if all(_is_writable(folder / kind) for kind in ("serial", "parallel")):
        return folder
    temporary = Path(tempfile.mkdtemp(prefix="trine-numba-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    log.warning(
        "[cache] expected a writable folder for compiled kernels, but %s is not; they are compiled "
        "anew in every process. Set TRINE_CACHE_DIR to a folder that can be written.",
        folder,
    )
    return temporary


def clear_cache() -> int:
    """Remove the compiled kernels of all versions and return how many bytes that freed."""
    folders = {user_cache_root() / "numba", cache_dir()}
    freed = 0
    for folder in folders:
        if folder.is_dir():
            freed += sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
            shutil.rmtree(folder)
    return freed


# --- time spent compiling -----------------------------------------------------------------------

_compile_seconds = 0.0
_lock = threading.RLock()


def compile_seconds() -> float:
    """Return how long compiling kernels, or loading them from the cache, took so far."""
    return _compile_seconds


before_loading: list[Callable[[], None]] = []
"""Called before a kernel is compiled or loaded: another process may have written to the cache what the
loaded code calls."""


def _count_compile_time(dispatcher: Any) -> Any:
    """Make a dispatcher add the time of its compilations to the total."""
    compile_for_args = dispatcher._compile_for_args

    def timed(*args: Any, **kwargs: Any) -> Any:
        global _compile_seconds  # noqa: PLW0603  one total a process
        start = time.perf_counter()
        for prepare in before_loading:
            prepare()
        try:
            return compile_for_args(*args, **kwargs)
        finally:
            with _lock:
                _compile_seconds += time.perf_counter() - start

    dispatcher._compile_for_args = timed
    return dispatcher


# --- threads ------------------------------------------------------------------------------------


class _Threads:
    """What a parallel launch must know; `trine.backends.threads` sets it."""

    def __init__(self) -> None:
        self.count: int = numba.config.NUMBA_NUM_THREADS
        self.lock: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        self.dies_by_fork = False
        self.started = False
        self.forked = False
        self.generation = 0
        """Counts forks, so that a child knows that its parent's pools are not its own."""
        self.local = threading.local()
        self.set_blas: Callable[[int], None] = lambda count: None
        self.blas_count = 1


threads = _Threads()


def _after_fork_in_child() -> None:
    threads.forked = threads.started and threads.dies_by_fork
    threads.generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def check_fork() -> None:
    """Raise BackendError in a forked child whose parent had started the thread pool.

    OpenMP's pool does not survive a fork: the child would die without a word.
    """
    if threads.forked and threads.count > 1:
        raise BackendError(
            "[numba] expected to run parallel kernels in the process that started the thread pool, "
            "but this is a forked child of it. Start workers with multiprocessing's 'spawn' method, "
            "or call set_threads(1) first."
        )


def run_parallel(function: Function, args: tuple[Any, ...]) -> None:
    """Run a parallel function on the chosen number of threads."""
    check_fork()
    threads.started = True
    if getattr(threads.local, "count", 0) != threads.count:  # Numba keeps it for each thread
        numba.set_num_threads(threads.count)
        threads.local.count = threads.count
    with threads.lock:
        function(*args)


# --- launches -----------------------------------------------------------------------------------


class Launch(NamedTuple):
    """A call of a compiled function, as it was made."""

    function: Any
    args: tuple[Any, ...]
    parallel: bool


class Copy(NamedTuple):
    """target[...] = source, for arrays of one shape and dtype."""

    target: Array
    source: Array


class _Noted(threading.local):
    """Where the launches of one Python thread are noted, if anywhere."""

    launches: list[Launch | Copy] | None = None


_noted = _Noted()


@contextlib.contextmanager
def note_launches(launches: list[Launch | Copy]) -> Iterator[None]:
    """Append what this thread launches or copies inside the block to `launches`."""
    before, _noted.launches = _noted.launches, launches
    try:
        yield
    finally:
        _noted.launches = before


def launch(function: Function, args: tuple[Any, ...], parallel: bool) -> None:
    """Call a compiled function, here or on the threads."""
    if _noted.launches is not None:
        _noted.launches.append(Launch(function, args, parallel))
    if parallel:
        run_parallel(function, args)
    else:
        function(*args)


def assign(target: Array, source: Array) -> None:
    """target[...] = source for arrays of one shape and dtype, as part of a kernel."""
    if _noted.launches is not None:
        _noted.launches.append(Copy(target, source))
    target[...] = source


# --- scratch memory -----------------------------------------------------------------------------


class _Scratch(threading.local):
    """Buffers of one Python thread: they grow and stay, so that steps meet no fresh pages."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[str, np.dtype[Any]], Array] = {}


_scratch = _Scratch()


def scratch(purpose: str, size: int, dtype: DType) -> Array:
    """Return an uninitialised vector of at least `size` elements, the same one at the next call.

    It is the calling thread's own, until the thread asks for the same purpose again.
    """
    key = (purpose, dtype)
    held = _scratch.buffers.get(key)
    if held is None or held.size < size:
        held = _scratch.buffers[key] = np.empty(size, dtype)
    return held


# --- compiling ----------------------------------------------------------------------------------


def helper(function: Function | None = None, *, fastmath: set[str] | bool = False) -> Any:
    """Compile a function for the use of kernels; its code is optimised once for all of them."""

    def compile_it(function: Function) -> Function:
        compiled: Function = numba.njit(function, fastmath=fastmath, **COMMON)
        return compiled

    return compile_it if function is None else compile_it(function)


_all_parallel: list[Parallel] = []


def all_parallel() -> tuple[Parallel, ...]:
    """Return every function over `prange` that was decorated so far."""
    return tuple(_all_parallel)


class Parallel:
    """A function over `prange`, compiled on first use as a serial and as a parallel one."""

    def __init__(self, function: Function, grain: int, fastmath: set[str] | bool) -> None:
        self.py_func = function
        self.grain = grain
        self.fastmath = fastmath
        _all_parallel.append(self)

    def __call__(self, work: int, *args: Any) -> None:
        """Run with `args`; `work`, about the number of operations, decides on the variant."""
        if work < self.grain or threads.count == 1:
            launch(self.serial, args, parallel=False)
        else:
            launch(self.parallel, args, parallel=True)

    def _compile(self, kind: str, options: dict[str, Any]) -> Any:
        folder = str(cache_dir() / kind)
        with _lock:
            before = numba.config.CACHE_DIR
            numba.config.CACHE_DIR = (
                folder  # read when the function is decorated, not when compiled
            )
            try:
                dispatcher = numba.njit(
                    self.py_func, cache=True, fastmath=self.fastmath, **COMMON, **options
                )
            finally:
                numba.config.CACHE_DIR = before
        return _count_compile_time(dispatcher)

    @cached_property
    def serial(self) -> Function:
        """The function with plain loops."""
        compiled: Function = self._compile("serial", {})
        return compiled

    @cached_property
    def parallel(self) -> Function:
        """The function with loops over threads."""
        compiled: Function = self._compile("parallel", {"parallel": PARALLEL_OPTIONS})
        return compiled


GRAIN = 32768
"""Elements of a simple loop below which starting threads costs more than it saves."""


def parallel(
    *, grain: int = GRAIN, fastmath: set[str] | bool = False
) -> Callable[[Function], Parallel]:
    """Compile the decorated function over `prange`; it is called with the work first.

    Two traps: `prange` takes a plain variable (over an expression with `if` Numba stays serial and
    warns), and its index is unsigned, so index arithmetic starts with `np.int64(index)`.
    """

    def wrap(function: Function) -> Parallel:
        return Parallel(function, grain, fastmath)

    return wrap


def _uses_prange(function: Function) -> bool:
    return "prange" in function.__code__.co_names


def compile_user(function: Function) -> Function:
    """Return a user's kernel ready to be called: compiled here if it is plain Python.

    A plain function is compiled in parallel if it uses `prange`, without a cache, since a cache
    would not notice that other files it imports have changed. What is compiled already keeps its
    own options.
    """
    if isinstance(function, Parallel):
        return function
    if hasattr(function, "py_func"):
        is_parallel = bool(function.targetoptions.get("parallel", False))
        compiled = function
    else:
        is_parallel = _uses_prange(function)
        options = {"parallel": PARALLEL_OPTIONS} if is_parallel else {}
        compiled = _count_compile_time(numba.njit(function, **COMMON, **options))
    if not is_parallel:
        return compiled

    def run(*args: Any) -> None:
        run_parallel(compiled, args)

    return run
