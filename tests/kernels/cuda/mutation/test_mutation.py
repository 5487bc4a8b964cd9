"""The mutation tool's parts, and ten mutants of the real kernels, all of which must be caught."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cpp_mutants
import launch_mutants
import pytest
from drawing import KINDS, draw, explained, mutants_of, sources
from scratch import KERNELS, Scratch

from trine.kernels.cuda import emulator

HERE = Path(__file__).parent

CODE = r"""
// a < b in a comment
#define BITS (1 + 2)
#ifdef TRINE_EMULATOR
template <class T> __global__ void f(const T* x, T* y, int height, int width) {
    __shared__ T part[32];
    T held[2][3], z = x[0];
    for (int i = threadIdx.x; i < height; i += blockDim.x) y[i * width] = part[i] - z;
    __syncthreads();
    return held[1][2];
}
#else
int g() { return 1 + 2; }
#endif
"""


def changed(code, found):
    """The changed line of each mutant, by kind."""
    lines = {}
    for kind, start, end, new in found:
        after = code[:start] + new + code[end:]
        line = after.split("\n")[code.count("\n", 0, start)].strip()
        lines.setdefault(kind, []).append(line)
    return lines


def test_mutants_of_cuda_code():
    found = changed(CODE, cpp_mutants.mutants(CODE))
    loop = "for (int i = threadIdx.x; i < height; i += blockDim.x) y[i * width] = part[i] - z;"
    assert found["barrier"] == [";"]
    assert found["bound"] == [loop.replace("i < h", "i <= h")]
    assert found["index"] == [
        "T held[2][3], z = x[(0) + 1];",
        loop.replace("i * width", "(i * width) + 1"),
        loop.replace("part[i]", "part[(i) + 1]"),
        "return held[(1) + 1][2];",
        "return held[1][(2) + 1];",
    ]
    assert found["stride"] == [
        loop.replace("* width", "* (width + 1)"),
        loop.replace("+= blockDim.x", "+= 1 + (blockDim.x)"),
    ]
    assert found["operator"] == [
        loop.replace("i += b", "i -= b"),
        loop.replace("i * w", "i / w"),
        loop.replace("- z", "+ z"),
    ]
    assert loop.replace("threadIdx.x", "threadIdx.y") in found["axis"]
    assert loop.replace("< height", "< width") in found["axis"]
    assert not any("BITS" in line or "1 - 2" in line for lines in found.values() for line in lines)


TABLE = """
def launch(x: Array | None, out: Array) -> Launches:
    if x.size <= 1 + 2:
        raise ValueError(f"{1 + 2}")
    return Launch(blocks(x.shape[1], 8), block=(256, 2), arguments=())
"""


def test_mutants_of_launch_tables():
    found = changed(TABLE, launch_mutants.mutants(TABLE))
    assert found["bound"] == ["if x.size < 1 + 2:"]
    assert found["operator"] == ["if x.size <= 1 - 2:"]
    assert found["axis"] == ["return Launch(blocks(x.shape[0], 8), block=(256, 2), arguments=())"]
    assert len(found["launch"]) == 5
    assert "g[0] - 1), *g[1:]))(blocks(x.shape[1], 8)), block" in found["launch"][0]
    assert "(*g[:-1], max(1, g[-1] // 2)))((256, 2)), arguments" in found["launch"][4]


def test_every_file_has_mutants_and_the_draw_repeats():
    assert {file for file in sources() if file.endswith(".cu")} == {
        p.name for p in KERNELS.glob("*.cu")
    }
    assert not [f for f in sources() if f.endswith(".cu") and not list(mutants_of(f))]
    first, again = ([m.name for m, _ in zip(draw(3), range(50), strict=False)] for _ in range(2))
    assert first == again
    assert [name.split(": ")[1] for name in first[:7]] == list(KINDS)
    every = [m.name for m in draw(1)]
    assert len(every) == len(set(every)) > 1000


def test_what_is_explained_exists():
    every = {m.name for m in draw(1)}
    assert not set(explained()) - every, "mutants that are no more: take them out of explained.txt"
    assert all(len(reason) > 20 for reason in explained().values())


@pytest.fixture
def scratch(tmp_path):
    reason = emulator.unavailable()
    if reason is not None:
        pytest.skip(f"no CUDA emulator: {reason}")
    return Scratch(tmp_path)


RELU = f"{HERE.parent}/test_op_cases.py::test_kernels_agree_with_float64_in_any_order[relu]"


def test_a_scratch_runs_its_own_kernels(scratch):
    right = (KERNELS / "include" / "activation.h").read_text()
    assert scratch.run([RELU], 100).status == "survived"
    scratch.write(
        "include/activation.h",
        right.replace("case RELU: return z < T(0)", "case RELU: return z > T(0)"),
    )
    verdict = scratch.run([RELU], 100)
    assert (verdict.status, "[relu]" in verdict.reason) == ("caught", True)
    scratch.write("include/activation.h", right.replace("case RELU", "case RELOU"))
    assert scratch.run([RELU], 100).status == "does not compile"
    assert (KERNELS / "include" / "activation.h").read_text() == right
    late = scratch.run([RELU], 0.01)
    assert (late.status, "no end within" in late.reason) == ("survived", True)
    with pytest.raises(RuntimeError, match="pytest could not run"):
        scratch.run([RELU + "no such test"], 100)


def test_ten_mutants_are_caught(scratch):
    """Those that change nothing are not drawn; see `make mutants` for a hundred with them."""
    command = [
        sys.executable,
        str(HERE / "run.py"),
        "--seed",
        "1",
        "--count",
        "10",
        "--skip-explained",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Caught: 10 of 10, 100 %", done.stdout)
