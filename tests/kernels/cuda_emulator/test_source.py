"""Reading a `.cu`; and that what these tests plant their faults in is CUDA C++ to nvcc too."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from trine.kernels.cuda import emulator
from trine.kernels.cuda.emulator import source

CODE = r"""
// __global__ void not_this(int a);
/* nor
   extern "C" __global__ void this_one() */
const char* text = "// __global__ void nor_that()";
extern "C" __global__ void __launch_bounds__(TILE * (2 + 2), 2)
first(const float* __restrict__ x, int n /* elements */, Pair<float, 2> p);
extern "C" __global__ void __launch_bounds__(64) first(const float* __restrict__ x, int n) {}
extern "C" {
__global__ void second(void) {}
}
template <typename T, int N> __global__ void third(T *x, T (*pairs)[2]) {}
__global__ void mangled(int a) {}
"""


def test_kernels_are_read_from_the_source():
    clean = source.strip_comments(CODE)
    assert clean.count("\n") == CODE.count("\n")
    assert "// __global__ void nor_that()" in clean  # in a string
    found = {kernel.name: kernel for kernel in source.kernels(clean)}
    assert list(found)[-4:] == ["first", "second", "third", "mangled"]
    assert found["first"] == source.KernelText("first", False, True, "64", ("x", "n"))
    assert (found["second"].is_extern_c, found["second"].parameters) == (True, ())
    assert (found["third"].is_template, found["third"].bounds) == (True, "0")
    assert not found["mangled"].is_extern_c


def test_lines_stay_where_they_were():
    code = "extern __shared__ float a[];\nvoid f() {\n  extern __shared__\n    T b[];\n}\nlast"
    changed = source.for_gcc(code)
    assert "#define a ((float*)trine_dynamic_shared())\n#line 1\n" in changed
    assert "T* const b = ((T*)trine_dynamic_shared());" in changed
    swapped = source.for_gcc("__shared__ alignas(16) float x[4];")
    assert swapped == "alignas(16) __shared__ float x[4];"


@pytest.mark.parametrize(
    "declaration",
    [
        "extern __shared__ float s[];",
        "extern __shared__ __align__(16) unsigned char s[];",
        "extern __shared__ alignas(alignof(T)) T s [ ] ;",
        "extern __align__(8) __shared__ double s[];",
    ],
)
def test_forms_of_dynamic_shared_memory(declaration):
    inside = source.for_gcc(f"namespace a {{ void f() {{ {declaration} }} }}")
    assert "* const s = ((" in inside
    for scope in ("{}", "namespace a {{ {} }}", 'extern "C" {{ void f() {{ }} {} }}'):
        outside = source.for_gcc(scope.format(declaration))
        assert "#define s ((" in outside
        assert "extern __" not in outside


def test_allowed_races_are_read_from_comments():
    code = "a;\nb;  // trine: allow-race(all store one)\n// trine: allow-race()\n"
    assert source.allowed_race_lines(code) == {2: "all store one"}


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize(
    "subject", ["memory", "races", "barriers", "warps", "launch", "numeric_types"]
)
def test_the_tests_kernels_are_cuda(subject, tmp_path):
    text = (Path(__file__).parent / f"test_{subject}.py").read_text()
    found = re.search(r'^CODE = r"""(.*?)"""', text, flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "kernels.cu").write_text(found[1])
    done = subprocess.run(
        ["nvcc", "-std=c++17", "-arch=sm_80", "-DTHIRTY=30", f"-I{emulator.INCLUDE}", "-cubin",
         "-o", "kernels.cubin", "kernels.cu"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
