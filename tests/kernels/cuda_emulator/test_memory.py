"""Memory: bounds of every kind, unwritten shared memory, const, alignment, local arrays."""

from __future__ import annotations

import numpy as np
import pytest

CODE = r"""
struct Pair { float a, b; };

extern "C" __global__ void copy(const float* x, float* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n)
    y[i] = x[i];  // at: copy
}
extern "C" __global__ void read_before(const float* x, float* y) {
  y[threadIdx.x] = x[(int)threadIdx.x - 1];  // at: read_before
}
extern "C" __global__ void write_far(float* y) {
  y[1000000] = 1.0f;
}
extern "C" __global__ void through_null(float* y) {
  y[threadIdx.x] = 1.0f;
}
extern "C" __global__ void pair_across_the_end(Pair* y) {
  y[1] = Pair{1.0f, 2.0f};
}
extern "C" __global__ void shared_index(float* y, int i) {
  __shared__ float first[8];
  __shared__ float second[8];
  first[threadIdx.x % 8] = 1.0f;
  second[threadIdx.x % 8] = 2.0f;
  float* p = first;
  __syncthreads();
  y[threadIdx.x] = p[i];  // at: shared_index
}
extern "C" __global__ void declared_index(float* y, int i) {
  float local[4] = {1, 2, 3, 4};
  y[threadIdx.x] = local[i];  // at: declared_index
}
extern "C" __global__ void dynamic_index(float* y, int i) {
  extern __shared__ float space[];
  space[threadIdx.x] = (float)threadIdx.x;
  __syncthreads();
  y[threadIdx.x] = space[i];  // at: dynamic_index
}
extern "C" __global__ void reverse(float* y) {
  __shared__ float tile[32];
  if (threadIdx.x != 5 || y[5] == 0.0f) tile[threadIdx.x] = y[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = tile[31 - threadIdx.x];  // at: reverse
}
extern "C" __global__ void count_in_shared(int* y) {
  __shared__ int count;
  if (y[0] && threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1);  // at: count_in_shared
  __syncthreads();
  if (threadIdx.x == 31) y[31] = count;
}
extern "C" __global__ void cast_away_const(const float* x) {
  const_cast<float*>(x)[threadIdx.x] = 0.0f;  // at: cast_away_const
}
extern "C" __global__ void vector_load(const float* x, float* y, int offset) {
  float4 v = *reinterpret_cast<const float4*>(x + offset);  // at: vector_load
  y[threadIdx.x] = v.x + v.w;
}
extern "C" __global__ void odd_atomic(char* x, int offset) {
  atomicAdd(reinterpret_cast<int*>(x + offset), 1);
}
extern "C" __global__ void deep(float* y, int depth) {
  volatile float local[4096];
  local[0] = (float)depth;
  y[threadIdx.x] = local[0];
  volatile float more[16384];
  if (depth > 0) more[(int)y[0] % 7] = 1.0f;
}
extern "C" __global__ void less_deep(float* y) {
  volatile float local[12288];  // 48 of a thread's 64 KiB
  local[12287 - threadIdx.x] = (float)threadIdx.x;
  y[threadIdx.x] = local[12287 - threadIdx.x];
}
__constant__ float table[4] = {1, 2, 3, 4};
__device__ int counter[2];
extern "C" __global__ void from_constant(float* y, int i) {
  y[threadIdx.x] = table[(threadIdx.x + i) % 5];  // at: from_constant
}
extern "C" __global__ void to_global_variable(int i) {
  if (threadIdx.x == 0) {
    int* p = counter;
    p[i] = 7;  // at: to_global_variable
  }
}
extern "C" __global__ void library_copy(float* y, const float* x, int bytes) {
  if (threadIdx.x == 0)
    memcpy(y, x, bytes);  // at: library_copy
}
"""


@pytest.fixture(scope="module")
def cu(compile_source):
    return compile_source("memory.cu", CODE)


def floats(n):
    return np.arange(n, dtype=np.float32)


def test_a_guarded_copy_passes_and_computes(cu):
    x, y = floats(40), np.zeros(40, np.float32)
    cu.run("copy", (x, y, np.int32(40)), grid=2)
    np.testing.assert_array_equal(x, y)


def test_global_access_past_the_end(cu):
    fault = cu.fault("copy", (floats(40), floats(41), np.int32(41)), grid=2)
    assert fault.kind == "out-of-bounds"
    assert fault.place.block == (1, 0, 0)
    assert fault.place.thread == (8, 0, 0)
    assert (fault.place.array, fault.place.offset) == ("x", 160)
    assert fault.place.lines == (cu.line("copy"),)
    assert str(fault).startswith("[copy] expected every access to lie inside its array, but")
    assert "Guard the index" in str(fault)


def test_global_access_before_the_start(cu):
    x = floats(64)
    fault = cu.fault("read_before", (x[:32], x[32:]))  # what lies before belongs to no argument
    assert (fault.kind, fault.place.array, fault.place.offset) == ("out-of-bounds", "x", -4)
    assert fault.place.lines == (cu.line("read_before"),)


def test_an_access_far_from_everything_and_through_null(cu):
    assert cu.fault("write_far", (floats(8),)).kind == "out-of-bounds"
    fault = cu.fault("through_null", (None,))
    assert fault.kind == "out-of-bounds"
    assert "null pointer" in str(fault)
    cu.run("through_null", (floats(32),))


def test_a_struct_that_crosses_the_end(cu):
    y = floats(4)
    cu.run("pair_across_the_end", (y,), block=1)
    np.testing.assert_array_equal(y, [0, 1, 1, 2])
    assert cu.fault("pair_across_the_end", (floats(3),), block=1).kind == "out-of-bounds"


@pytest.mark.parametrize("index", [8, 9, -1])
def test_static_shared_access_does_not_reach_a_neighbour(cu, index):
    fault = cu.fault("shared_index", (floats(8), np.int32(index)), block=8)
    assert fault.kind == "out-of-bounds"
    assert fault.place.lines == (cu.line("shared_index"),)


def test_static_shared_access_inside(cu):
    y = floats(8)
    cu.run("shared_index", (y, np.int32(7)), block=8)
    np.testing.assert_array_equal(y, np.ones(8))


def test_index_of_a_declared_size(cu):
    cu.run("declared_index", (floats(1), np.int32(3)), block=1)
    fault = cu.fault("declared_index", (floats(1), np.int32(4)), block=1)
    assert fault.kind == "out-of-bounds"
    assert "index 4" in str(fault)
    assert fault.place.lines == (cu.line("declared_index"),)


@pytest.mark.parametrize("index", [32, 40, -1])
def test_dynamic_shared_access_outside(cu, index):
    fault = cu.fault("dynamic_index", (floats(32), np.int32(index)), shared_bytes=128)
    assert (fault.kind, fault.place.array) == ("out-of-bounds", "dynamic shared memory")
    assert fault.place.offset == 4 * index
    assert fault.place.lines == (cu.line("dynamic_index"),)


def test_dynamic_shared_access_inside(cu):
    y = floats(32)
    cu.run("dynamic_index", (y, np.int32(31)), shared_bytes=128)
    np.testing.assert_array_equal(y, np.full(32, 31))


def test_shared_memory_read_before_it_is_written(cu):
    y = floats(32)
    fault = cu.fault("reverse", (y,))
    assert (fault.kind, fault.place.array, fault.place.offset) == (
        "uninitialised-shared",
        "tile",
        20,
    )
    assert fault.place.thread == (26, 0, 0)
    assert fault.place.lines == (cu.line("reverse"),)
    y = floats(32)
    y[5] = 0
    cu.run("reverse", (y,))
    assert y[0] == 31


def test_an_earlier_block_does_not_initialise_shared_memory(cu):
    once = np.zeros(32, np.int32)
    once[0] = 1
    cu.run("count_in_shared", (once,))
    assert once[31] == 32
    fault = cu.fault("count_in_shared", (np.zeros(32, np.int32),))
    assert fault.kind == "uninitialised-shared"
    assert fault.place.lines == (cu.line("count_in_shared"),)


def test_writing_through_const(cu):
    fault = cu.fault("cast_away_const", (floats(32),))
    assert (fault.kind, fault.place.array) == ("const-write", "x")
    assert fault.place.lines == (cu.line("cast_away_const"),)


def test_an_array_passed_twice_may_be_written_through_the_other(cu):
    x = floats(32)
    cu.run("copy", (x, x, np.int32(32)))


def test_misaligned_vectors(cu):
    x = np.zeros(12, np.float32)
    start = -(x.ctypes.data // 4) % 4  # so that the array begins at a multiple of 16
    cu.run("vector_load", (x[start:], floats(1), np.int32(4)), block=1)
    fault = cu.fault("vector_load", (x[start:], floats(1), np.int32(1)), block=1)
    assert fault.kind == "misaligned"
    assert fault.place.lines == (cu.line("vector_load"),)


def test_misaligned_atomics(cu):
    x = np.zeros(16, np.int8)
    cu.run("odd_atomic", (x, np.int32(4)))
    assert x.view(np.int32)[1] == 32
    assert cu.fault("odd_atomic", (x, np.int32(2))).kind == "misaligned"


def test_stack_overflow_is_a_fault_and_not_a_crash(cu):
    assert cu.fault("deep", (floats(32), np.int32(1))).kind == "stack-overflow"
    y = np.zeros(32, np.float32)
    cu.run("less_deep", (y,))  # and the next launch works
    np.testing.assert_array_equal(y, floats(32))


def test_constants_and_device_variables_have_bounds(cu):
    y = floats(4)
    cu.run("from_constant", (y, np.int32(0)), block=4)
    np.testing.assert_array_equal(y, [1, 2, 3, 4])
    fault = cu.fault("from_constant", (y, np.int32(1)), block=4)
    assert (fault.kind, fault.place.lines) == ("out-of-bounds", (cu.line("from_constant"),))
    cu.run("to_global_variable", (np.int32(1),))
    assert cu.module.variable("counter").nbytes == 8
    assert cu.fault("to_global_variable", (np.int32(2),)).place.array == "counter"


def test_copies_by_the_library_are_seen(cu):
    x, y = floats(4), np.zeros(4, np.float32)
    cu.run("library_copy", (y, x, np.int32(16)))
    np.testing.assert_array_equal(x, y)
    fault = cu.fault("library_copy", (y, x, np.int32(20)))
    assert (fault.kind, fault.place.lines) == ("out-of-bounds", (cu.line("library_copy"),))
