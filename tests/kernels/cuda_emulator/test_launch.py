"""Launching: limits, arguments, arithmetic that overflows, kernels that never end, compiling."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from trine.kernels.cuda import emulator

CODE = r"""
struct Geometry { int rows, columns; float scale; };

extern "C" __global__ void __launch_bounds__(64) fill(float* out, int n, float value) {
  int i = threadIdx.x + blockDim.x * blockIdx.x;
  if (i < n) out[i] = value;
}
extern "C" {
__global__ void by_struct(float* out, Geometry g) { out[threadIdx.x] = g.rows * g.columns * g.scale; }
}
template <typename T, int N> __global__ void scale(T* x, T by) { x[threadIdx.x] *= by * N; }

extern "C" __global__ void where(int* out) {
  const int t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const int b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  out[b * blockDim.x * blockDim.y * blockDim.z + t] = b * 1000 + t;
}
extern "C" __global__ void multiply(int* out, int a, int b) {
  out[0] = a * b;  // at: multiply
}
extern "C" __global__ void add(int* out, int a, int b) { out[0] = a + b; }
extern "C" __global__ void negate(int* out, int a) { out[0] = -a; }
extern "C" __global__ void divide(int* out, int a, int b) { out[0] = a / b; }
extern "C" __global__ void shift(int* out, int a, int b) { out[0] = a << b; }
extern "C" __global__ void wrap(unsigned* out, unsigned a, unsigned b) { out[0] = a * b + 1u; }

extern "C" __global__ void loop_on_memory(volatile float* out, int n) {
  for (long long i = 0; n < 0 || i < n; i++) out[0] = out[0] + 1.0f;
}
extern "C" __global__ void loop_on_plain_memory(float* out, int n) {
  for (unsigned i = 0; n < 0 || (int)i < n; i++) out[i & 1] = out[(i + 1) & 1] + 1.0f;
}
extern "C" __global__ void loop_on_registers(float* out, float until) {
  float x = out[0];
  while (x < until) x = x * 0.5f + 0.5f;
  out[0] = x;
}
extern "C" __global__ void checks_itself(float* out, int n) {
  assert(n < 10);  // at: assertion
  out[0] = 1.0f;
}
extern "C" __global__ void big_shared(float* out, int n) {
  __shared__ float tile[12288];
  extern __shared__ float more[];
  tile[threadIdx.x] = more[threadIdx.x] = 0.0f;
  out[threadIdx.x] = tile[threadIdx.x] + more[threadIdx.x];
}
extern __shared__ double pool[];
extern "C" __global__ void file_scope_shared(double* out) {
  pool[threadIdx.x] = (double)threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = pool[31 - threadIdx.x] + THIRTY;
}
"""


@pytest.fixture(scope="module")
def cu(compile_source):
    expressions = ("scale<float, 2>", "scale<double, 3>")
    return compile_source(
        "launch.cu", CODE, options=("--std=c++17", "-DTHIRTY=30"), name_expressions=expressions
    )


def floats(n):
    return np.zeros(n, np.float32)


def launch(cu, kernel, grid, block, arguments, **more):
    return cu.module.kernel(kernel).launch(grid, block, arguments, **more)


FILL = (np.int32(8), np.float32(2))


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [
        ((1,), (1025,), r"expected a block of 1 to \(1024, 1024, 64\)"),
        ((1,), (1, 1, 65), "expected a block of 1 to"),
        ((1,), (0,), "expected a block of 1 to"),
        ((0,), (1,), "expected a grid of 1 to"),
        ((1, 65536), (1,), "expected a grid of 1 to"),
        ((1, 1, 65536), (1,), "expected a grid of 1 to"),
        ((1, 1, 1, 1), (1,), "expected a grid of 1 to"),
        ((1,), (65,), r"at most 64 threads by __launch_bounds__\(64\)"),
    ],
)
def test_launch_limits(cu, grid, block, message):
    with pytest.raises(emulator.LaunchError, match=message):
        launch(cu, "fill", grid, block, (floats(8), *FILL))


def test_a_block_of_too_many_threads_over_its_directions(cu):
    with pytest.raises(
        emulator.LaunchError, match=r"at most 1024 threads by the device, got .*1056"
    ):
        launch(cu, "where", (1,), (33, 32), (np.zeros(2000, np.int32),))
    launch(cu, "where", (1,), (32, 32), (np.zeros(1024, np.int32),))


def test_what_is_just_within_the_limits(cu):
    out = floats(8)
    launch(cu, "fill", (1,), (64,), (out, *FILL))
    np.testing.assert_array_equal(out, np.full(8, 2))
    launch(cu, "fill", (1, 3, 1), (1, 1, 64), (floats(1), np.int32(0), np.float32(2)))


def test_indices_in_three_directions(cu):
    out = np.zeros(12 * 24, np.int32)
    launch(cu, "where", (2, 3, 2), (4, 2, 3), (out,))
    np.testing.assert_array_equal(out, [b * 1000 + t for b in range(12) for t in range(24)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((floats(8), np.int32(8)), r"expected 3 arguments \(out, n, value\), got 2"),
        ((floats(8), *FILL, np.int32(1)), "expected 3 arguments"),
        ((floats(8), np.int64(8), np.float32(2)), "an integer of 4 bytes for n, got int64"),
        ((floats(8), np.float32(8), np.float32(2)), "an integer of 4 bytes for n, got float32"),
        ((floats(8), np.int32(8), np.float64(2)), "floating-point number of 4 bytes for value"),
        ((floats(8), np.int32(8), 2.0), "floating-point number of 4 bytes for value, got float64"),
        ((floats(8), np.int32(8), 2), "floating-point number of 4 bytes for value"),
        ((floats(8), 2**40, np.float32(2)), "an integer of 4 bytes for n"),
        ((floats(8), "8", np.float32(2)), "an integer of 4 bytes for n, got str"),
        ((floats(8), floats(1), np.float32(2)), "an integer of 4 bytes for n, got ndarray"),
        ((np.float32(1), *FILL), "expected an array for the pointer out, got float32"),
        (([1.0], *FILL), "expected an array for the pointer out, got list"),
        ((np.zeros(8), *FILL), "4-byte floating-point numbers for out, got float64"),
        ((np.zeros(8, np.int32), *FILL), "4-byte floating-point numbers for out, got int32"),
    ],
)
def test_arguments_that_do_not_fit(cu, arguments, message):
    with pytest.raises(emulator.ArgumentError, match=message):
        launch(cu, "fill", (1,), (8,), arguments)


def test_arguments_that_fit(cu):
    out = floats(8)
    launch(cu, "fill", (1,), (8,), (out, 8, np.float32(3)))  # CuPy passes int as it stands
    assert out[7] == 3
    geometry = np.zeros((), np.dtype([("r", "i4"), ("c", "i4"), ("s", "f4")]))
    geometry[()] = (3, 5, 0.5)
    launch(cu, "by_struct", (1,), (1,), (out, geometry[()]))
    assert out[0] == 7.5
    with pytest.raises(emulator.ArgumentError, match="a struct of 12 bytes for g"):
        launch(cu, "by_struct", (1,), (1,), (out, np.int32(1)))


def test_templates_are_named_by_expressions(cu):
    x = np.ones(4)
    launch(cu, "scale<double, 3>", (1,), (4,), (x, 2.0))
    np.testing.assert_array_equal(x, np.full(4, 6))
    with pytest.raises(emulator.LaunchError, match=r"expected a kernel of launch.cu \(it has fill"):
        cu.module.kernel("scale<int, 1>")


def test_shared_memory_limits(cu):
    kernel = cu.module.kernel("big_shared")
    launch(cu, "file_scope_shared", (1,), (32,), (np.zeros(32),), shared_bytes=256)
    with pytest.raises(
        emulator.LaunchError, match="49152 bytes of dynamic shared memory, got 49156"
    ):
        kernel.launch((1,), (8,), (floats(8), np.int32(0)), shared_bytes=49156)
    with pytest.raises(emulator.LaunchError, match=r"but it uses 49152 and 49184"):
        kernel.launch((1,), (8,), (floats(8), np.int32(0)), shared_bytes=32)


def test_dynamic_shared_memory_at_file_scope(cu):
    out = np.zeros(32)
    launch(cu, "file_scope_shared", (1,), (32,), (out,), shared_bytes=256)
    np.testing.assert_array_equal(out, np.arange(31, -1, -1) + 30)


INTS = np.iinfo(np.int32)


@pytest.mark.parametrize(
    ("kernel", "good", "bad", "kind"),
    [
        ("multiply", (46340, 46340), (46341, 46341), "int-overflow"),
        ("add", (INTS.max, -1), (INTS.max, 1), "int-overflow"),
        ("negate", (INTS.max,), (INTS.min,), "int-overflow"),
        ("divide", (7, 2), (7, 0), "divide-by-zero"),
        ("divide", (INTS.min, 1), (INTS.min, -1), "divide-by-zero"),
        ("shift", (1, 30), (1, 32), "bad-shift"),
    ],
)
def test_arithmetic_that_is_undefined(cu, kernel, good, bad, kind):
    out = np.zeros(1, np.int32)
    cu.run(kernel, (out, *map(np.int32, good)), block=1)
    fault = cu.fault(kernel, (out, *map(np.int32, bad)), block=1)
    assert fault.kind == kind


def test_overflow_names_its_line_and_unsigned_wraps(cu):
    out = np.zeros(1, np.int32)
    fault = cu.fault("multiply", (out, np.int32(2**20), np.int32(2**20)), block=1)
    assert fault.place.lines == (cu.line("multiply"),)
    words = np.zeros(1, np.uint32)
    cu.run("wrap", (words, np.uint32(2**31), np.uint32(2)), block=1)
    assert words[0] == 1


def test_runaway_by_accesses(cu):
    few = emulator.Settings(access_budget=1000)
    fault = cu.fault("loop_on_memory", (floats(1), np.int32(-1)), block=1, chosen=few)
    assert fault.kind == "runaway"
    assert "1000 accesses" in str(fault)
    cu.run("loop_on_memory", (floats(1), np.int32(400)), block=1, chosen=few)


@pytest.mark.parametrize(
    ("kernel", "endless", "ends"),
    [
        ("loop_on_memory", np.int32(-1), np.int32(400)),
        ("loop_on_plain_memory", np.int32(-1), np.int32(400)),
        ("loop_on_registers", np.float32(2), np.float32(0.9)),
    ],
)
def test_runaway_by_time(cu, kernel, endless, ends):
    short = emulator.Settings(seconds_budget=0.2)
    fault = cu.fault(kernel, (floats(2), endless), block=1, chosen=short)
    assert fault.kind == "runaway"
    assert "0.2 s of CPU time" in str(fault)
    cu.run(kernel, (floats(2), ends), block=1, chosen=short)  # and the next launch works


def test_assertions_of_the_kernel(cu):
    cu.run("checks_itself", (floats(1), np.int32(9)), block=1)
    fault = cu.fault("checks_itself", (floats(1), np.int32(10)), block=1)
    assert (fault.kind, fault.place.lines) == ("assertion", (cu.line("assertion"),))
    assert "assert(n < 10) does not hold" in str(fault)


def test_launches_from_several_threads_wait_for_each_other(cu):
    outs = [floats(64) for _ in range(8)]

    def work(i):
        for _ in range(5):
            launch(cu, "fill", (1,), (64,), (outs[i], np.int32(64), np.float32(i)))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [set(out) for out in outs] == [{float(i)} for i in range(8)]


@pytest.mark.parametrize("order", ["forward", "reverse", "shuffled"])
def test_orders_of_threads(cu, order):
    out = np.zeros(300, np.int32)
    launch(cu, "where", (3,), (100,), (out,), chosen=emulator.Settings(order=order, seed=3))
    np.testing.assert_array_equal(out, [b * 1000 + t for b in range(3) for t in range(100)])


def test_settings_are_checked():
    with pytest.raises(ValueError, match="expected an order among forward, reverse, shuffled"):
        emulator.configure(order="backwards")
    before = emulator.configure(order="reverse")
    assert before.order == "forward"
    assert emulator.configure(order="forward").order == "reverse"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ('extern "C" __global__ void k(float* x) { x[0] = y; }', "bad.cu:1.*'?y'?"),
        ('extern "C" __global__ void k(float* x) { x[0] = INFINITY; }', "INFINITY"),
        ("#include <torch.h>\n", "torch.h"),
    ],
)
def test_code_that_does_not_compile(code, message):
    with pytest.raises(emulator.CompileError, match=message):
        emulator.Module(code, name="bad.cu")


def test_options_are_those_of_nvrtc():
    code = 'extern "C" __global__ void k(float* x) { x[0] = VALUE; }'
    options = ("-DVALUE=1.5f", "--fmad=false", "-lineinfo", "--gpu-architecture=sm_90")
    x = floats(1)
    emulator.Module(code, options=options).kernel("k").launch((1,), (1,), (x,))
    assert x[0] == 1.5
    with pytest.raises(emulator.CompileError, match="expected an option of NVRTC, got '-O9'"):
        emulator.Module(code, options=("-DVALUE=1", "-O9"))


def test_a_module_is_compiled_once_and_again_when_a_header_changes(tmp_path):
    header = tmp_path / "value.h"
    header.write_text("#define VALUE 1.0f\n")
    code = '#include "value.h"\nextern "C" __global__ void k(float* x) { x[0] = VALUE; }'
    options = (f"-I{tmp_path}",)
    first = emulator.Module(code, options=options)
    stamp = first.build.library.stat().st_mtime_ns
    assert emulator.Module(code, options=options).build.library == first.build.library
    assert first.build.library.stat().st_mtime_ns == stamp
    header.write_text("#define VALUE 2.0f\n")
    changed = emulator.Module(code, options=options)
    x = floats(1)
    changed.kernel("k").launch((1,), (1,), (x,))
    assert x[0] == 2


def test_without_a_compiler_the_reason_is_told(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "g++" in emulator.unavailable()
    with pytest.raises(emulator.ToolchainError, match=r"\[emulate\] expected a machine .* g\+\+"):
        emulator.require()


def test_on_another_machine_the_reason_is_told(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert "aarch64" in emulator.unavailable()


def test_an_old_compiler_is_told(monkeypatch):
    monkeypatch.setattr("trine.kernels.cuda.emulator.build._compiler_version", lambda: 9)
    assert emulator.unavailable() == "it needs g++ 11 or later, and this is 9"


def test_without_checks_kernels_only_compute():
    code = """
    extern "C" __global__ void k(float* x, int n) {
      __shared__ float s[32];
      s[threadIdx.x] = 1.0f;
      if (n) __syncthreads();
      x[threadIdx.x] += s[31 - threadIdx.x] + x[0];
    }"""
    module = emulator.Module(code, checked=False)
    x = floats(32)
    counts = module.kernel("k").launch((1,), (32,), (x, np.int32(1)))
    assert counts.accesses == 0
    assert counts.barriers == 1
    assert (x >= 1).all()
    with pytest.raises(emulator.KernelError, match="race"):
        emulator.Module(code).kernel("k").launch((1,), (32,), (x, np.int32(1)))
