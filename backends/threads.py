"""The one knob for threads, and the choice of Numba's thread layer.

OpenMP is taken where Numba ships it: it starts a parallel loop in microseconds and several Python
threads may use it at once, but a forked child cannot. Elsewhere the work queue serves, behind one
lock, since two Python threads in it at once abort the process.
"""

from __future__ import annotations

import importlib
import math
import os
import threading
from pathlib import Path

import numba
import threadpoolctl

from trine.kernels.numba import jit
from trine.kernels.numba.jit import check_fork

__all__ = ["available_cpus", "check_fork", "choose_layer", "get_threads", "layer", "set_threads"]

_layer = ""


def choose_layer() -> str:
    """Choose the thread layer, once, before the first parallel loop; returns "omp" or "workqueue".

    A layer named in $NUMBA_THREADING_LAYER is kept.
    """
    global _layer  # noqa: PLW0603  one layer a process
    if _layer:
        return _layer
    wanted = os.environ.get("NUMBA_THREADING_LAYER", "")
    if wanted not in ("omp", "tbb", "workqueue"):
        wanted = "omp" if _load_omp() else "workqueue"
        numba.config.THREADING_LAYER = wanted
    elif wanted == "omp":
        _load_omp()
    if wanted == "workqueue":
        jit.threads.lock = threading.RLock()
    jit.threads.dies_by_fork = wanted == "omp"
    _find_blas()
    _layer = wanted
    if jit.threads.count > available_cpus():
        set_threads(available_cpus())
    return _layer


WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables by which users say how idle threads wait."""
SPINS = "50000"
"""Looks for work before an idle thread of OpenMP goes to sleep: a fraction of a millisecond, longer
than Python takes between two kernels. Waking a sleeping thread costs 50 to 100 us."""


def _load_omp() -> bool:
    """Load Numba's OpenMP layer, if there is one, so that its idle threads soon sleep.

    By default they spin for some milliseconds after each loop and take the CPU from whatever else
    runs; if they never spin, a training step of LeNet-5 waits longer for threads to wake than it
    computes. OpenMP reads the environment once, when it is loaded; other libraries with an OpenMP
    of their own don't see it.
    """
    is_set = any(name in os.environ for name in WAITING)
    if not is_set:
        os.environ["GOMP_SPINCOUNT"] = SPINS
    try:
        importlib.import_module("numba.np.ufunc.omppool")
    except ImportError:
        return False
    finally:
        if not is_set:
            del os.environ["GOMP_SPINCOUNT"]
    return True


def _find_blas() -> None:
    """Look up NumPy's BLAS once, so that kernels can set its threads in a microsecond."""
    found = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    # Newer versions let only the first Python thread that asks change OpenBLAS; kernels may run on
    # any, and take turns by a lock of their own.
    setters = [getattr(b, "_real_set_num_threads", b.set_num_threads) for b in found]

    def set_blas(count: int) -> None:
        for setter in setters:
            setter(count)

    jit.threads.set_blas = set_blas
    jit.threads.blas_count = max((library.num_threads for library in found), default=1)


def layer() -> str:
    """Return the chosen thread layer."""
    return choose_layer()


def available_cpus() -> int:
    """Return how many CPUs this process may use: its affinity and its control group's quota."""
    has_affinity = hasattr(os, "sched_getaffinity")
    count = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return count
    if quota == "max":
        return count
    return max(1, min(count, math.ceil(int(quota) / int(period))))


def get_threads() -> int:
    """Return the number of threads that kernels use."""
    return jit.threads.count


def set_threads(count: int) -> None:
    """Use `count` threads in kernels and in the BLAS.

    Raises ValueError unless 1 <= count <= the number of threads that Numba can start.
    """
    most = numba.config.NUMBA_NUM_THREADS
    if not 1 <= count <= most:
        raise ValueError(
            f"[threads] expected 1 to {most} threads on this machine, got {count}. Choose a number "
            "in that range; NUMBA_NUM_THREADS raises it."
        )
    choose_layer()
    jit.threads.count = jit.threads.blas_count = count
    jit.threads.set_blas(count)
