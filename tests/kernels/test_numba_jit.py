"""How Numba kernels are compiled and cached; each process of its own where state is global."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from trine.kernels.numba import jit

SQUARES = """
import logging, sys
import numpy as np
logging.basicConfig(format="%(message)s", stream=sys.stdout)
from trine.backends import get_backend
from trine.kernels.numba import clear_cache, jit, optimiser
be = get_backend("numba")
be.strict = True
def squares():
    return be.sum_squares(np.arange(10, dtype=np.float32))[0]
print(squares())
stats = optimiser._sum_squares.serial.stats
print("hits", sum(stats.cache_hits.values()), "misses", sum(stats.cache_misses.values()))
"""


def python(code: str, **environment: str) -> str:
    """Run code in a new process and return what it printed; an error fails the test."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_second_process_loads_from_the_cache_and_clearing_empties_it(tmp_path: Path) -> None:
    cache = {"TRINE_CACHE_DIR": str(tmp_path)}
    assert "hits 0 misses 1" in python(SQUARES, **cache)
    assert "hits 1 misses 0" in python(SQUARES, **cache)
    compiled = [f for f in tmp_path.rglob("*") if f.suffix in (".nbi", ".nbc")]
    assert {"serial"} == {f.relative_to(tmp_path).parts[2] for f in compiled}
    cleared = python(SQUARES + "print(clear_cache() > 0, squares())", **cache)
    assert "True 285.0" in cleared
    assert not [f for f in tmp_path.rglob("*") if f.is_file()]


def test_serial_and_parallel_code_lie_apart(tmp_path: Path) -> None:
    code = SQUARES + "optimiser._sum_squares.grain = 0\nprint(squares(), jit.cache_dir())"
    printed = python(code, TRINE_CACHE_DIR=str(tmp_path), NUMBA_NUM_THREADS="2")
    folder = Path(printed.split()[-1])
    for kind in ("serial", "parallel"):
        assert len(list((folder / kind).rglob("*.nbc"))) == 1
    assert folder.name == jit.source_hash()


def test_unwritable_cache_warns_once_and_still_works(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file is no folder")
    printed = python(
        SQUARES + "print(jit.cache_dir().is_dir())", TRINE_CACHE_DIR=str(tmp_path / "file" / "x")
    )
    assert printed.count("expected a writable folder") == 1
    assert "285.0" in printed
    assert printed.rstrip().endswith("True")


def test_changed_helper_names_another_cache_folder(tmp_path: Path) -> None:
    for name in ("helper.py", "kernel.py"):
        (tmp_path / name).write_text("x = 1\n")
    before = jit.hash_of(tmp_path)
    assert jit.hash_of(tmp_path) == before
    (tmp_path / "helper.py").write_text("x = 2\n")
    assert jit.hash_of(tmp_path) != before


@pytest.mark.parametrize("variable", ["TRINE_CACHE_DIR", "XDG_CACHE_HOME"])
def test_cache_root_follows_the_environment(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRINE_CACHE_DIR", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    is_own = variable == "TRINE_CACHE_DIR"
    if not is_own and sys.platform in ("win32", "darwin"):
        pytest.skip("XDG folders are Linux's")
    assert jit.user_cache_root() == (tmp_path if is_own else tmp_path / "trine")


def test_user_kernel_of_plain_python_is_compiled_and_timed() -> None:
    def double(x, out):  # type: ignore[no-untyped-def]
        for i in numba.prange(x.size):
            out[i] = 2 * x[i]

    launch = jit.compile_user(double)
    x, out = np.arange(5.0), np.empty(5)
    before = jit.compile_seconds()
    launch(x, out)
    np.testing.assert_array_equal(out, 2 * x)
    assert jit.compile_seconds() > before
    after = jit.compile_seconds()
    launch(x, out)
    assert jit.compile_seconds() == after


def test_user_kernel_that_is_compiled_already_keeps_its_options() -> None:
    @numba.njit
    def double(x, out):  # type: ignore[no-untyped-def]
        for i in range(x.size):
            out[i] = 2 * x[i]

    launch = jit.compile_user(double)
    out = np.empty(3)
    launch(np.ones(3), out)
    np.testing.assert_array_equal(out, 2)
    assert launch is double


def test_small_work_and_one_thread_run_serially(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    entry = jit.Parallel(lambda: None, 100, False)
    monkeypatch.setitem(entry.__dict__, "serial", lambda: ran.append("serial"))
    monkeypatch.setitem(entry.__dict__, "parallel", lambda: ran.append("parallel"))
    monkeypatch.setattr(jit, "run_parallel", lambda function, args: function(*args))
    monkeypatch.setattr(jit.threads, "count", 2)
    entry(99)
    entry(100)
    monkeypatch.setattr(jit.threads, "count", 1)
    entry(100)
    assert ran == ["serial", "parallel", "serial"]


@pytest.mark.slow
def test_a_process_that_came_before_the_cache_was_filled_can_use_it(tmp_path):
    """What another process compiled calls machine code that this one has not loaded yet."""
    begin = "from trine.backends import get_backend; backend = get_backend('numba'); "
    work = (
        "import numpy as np; x, w = np.ones((9, 7), np.float32), np.ones((5, 7), np.float32); "
        "backend.linear(x, w, None, activation='none')"
    )
    code = (
        f"{begin} import subprocess, sys; "
        f"subprocess.run([sys.executable, '-c', {begin + work!r}], check=True); {work}"
    )
    environ = {**os.environ, "TRINE_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
