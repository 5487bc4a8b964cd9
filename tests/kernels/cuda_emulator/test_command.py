"""`trine check --emulate` on users' kernels, right and wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SOURCE = r"""
template <typename T> __global__ void relu(const T* __restrict__ x, T* __restrict__ out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = x[i] < T(0) ? T(0) : x[i];
}
"""

FILE = """
from trine.backends.cuda_launch import Launch
from trine.kernels import cuda_kernel


def launch(x, out):
    return Launch(grid=(max(1, -(-x.size // 64)),), block=(64,), arguments=(x, out, x.size))


cuda_kernel("relu", name="mine", source="relu.cu", function="relu<{T}>", launch=launch)
"""


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", "from trine.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


@pytest.fixture
def files(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "relu.cu").write_text(SOURCE)
    return tmp_path


def test_a_right_kernel_passes(files):
    done = command("check", "--kernel-file", files / "mine.py", "--emulate", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["passed"] > 10
    assert (counts["failed"], counts["skipped"]) == (0, 0)
    assert "relu on cupy (mine)" in done.stderr


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("if (i < n)", "if (i <= n)", "out-of-bounds: read of"),
        ("T(0) ? T(0)", "T(0) ? T(1)", "element ("),
        ("out[i] = x[i]", "out[i / 2] = x[i]", "race: written after a write"),
        ("T(0) : x[i];", "T(0) : y[i];", "'y' was not declared"),
    ],
)
def test_a_wrong_kernel_fails_and_says_where(files, right, wrong, message):
    assert right in SOURCE
    (files / "relu.cu").write_text(SOURCE.replace(right, wrong))
    done = command("check", "--kernel-file", files / "mine.py", "--emulate", LC_ALL="C")
    assert done.returncode == 1
    assert "FAILED relu on cupy (mine, float32)" in done.stdout
    assert message in done.stdout.replace("‘", "'").replace("’", "'")
    if ":" in message:
        assert "relu.cu:4" in done.stdout  # the line of the access


def test_a_file_without_cuda_kernels(files):
    (files / "mine.py").write_text("")
    done = command("check", "--kernel-file", files / "mine.py", "--emulate")
    assert done.returncode == 1
    assert "[check] expected a CUDA kernel in" in done.stderr


def test_another_backend_cannot_be_emulated(files):
    done = command("check", "relu", "--backend", "numba", "--emulate")
    assert done.returncode == 1
    assert "expected a known backend to emulate, got 'numba'" in done.stderr


def test_without_a_compiler_it_says_what_to_install(files):
    done = command("check", "--kernel-file", files / "mine.py", "--emulate", PATH="")
    assert done.returncode == 1
    assert "it needs g++" in done.stderr
    assert "apt install g++" in done.stderr
