"""Numbers: vectors, half and bfloat16, device functions, atomics, tensor cores, cp.async."""

from __future__ import annotations

import numpy as np
import pytest

CODE = r"""
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <tensor_core.h>
#include <async_copy.h>

extern "C" __global__ void to_half(const float* x, __half* out, float* back, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) { out[i] = __float2half(x[i]); back[i] = __half2float(out[i]); }
}
extern "C" __global__ void to_bfloat(const float* x, __nv_bfloat16* out, float* back, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) { out[i] = __float2bfloat16(x[i]); back[i] = __bfloat162float(out[i]); }
}
extern "C" __global__ void half_arithmetic(const __half* a, const __half* b, __half* out, int n) {
  int i = threadIdx.x;
  out[i] = __hadd(a[i], b[i]);
  out[n + i] = __hmul(a[i], b[i]);
  out[2 * n + i] = __hfma(a[i], b[i], a[i]);
  __half2 pair = __hmul2(__halves2half2(a[i], b[i]), __float2half2_rn(2.0f));
  out[3 * n + i] = __high2half(pair);
}
extern "C" __global__ void vectors(const float4* x, float4* out, double2* d, uchar4* c) {
  float4 v = x[threadIdx.x];
  out[threadIdx.x] = make_float4(v.w, v.z, v.y, v.x);
  d[threadIdx.x] = make_double2(v.x, v.y);
  c[threadIdx.x] = make_uchar4(1, 2, 3, threadIdx.x);
}
extern "C" __global__ void bits(unsigned* out) {
  out[0] = __popc(0xf0f0u);
  out[1] = __clz(1);
  out[2] = __ffs(8);
  out[3] = __brev(1u);
  out[4] = __umulhi(0x80000000u, 6u);
  out[5] = (unsigned)__float_as_int(1.0f);
  out[6] = (unsigned)(__umul64hi(1ull << 63, 6ull));
  out[7] = min(3, 5) + max(3u, 5u);
}
extern "C" __global__ void functions(const float* x, float* out) {
  out[0] = rsqrtf(x[0]);
  out[1] = __expf(x[0]);
  out[2] = fmaxf(x[0], x[1]);
  out[3] = __saturatef(x[0]);
  out[4] = __fmaf_rn(x[0], x[0], 1.0f);
  out[5] = max(x[0], x[2]);
}
extern "C" __global__ void denormals(float* x) { x[0] = x[0] * 0.5f; }
extern "C" __global__ void no_contraction(const float* x, float* out) { out[0] = x[0] * x[0] - x[1]; }
extern "C" __global__ void atomics(int* i, unsigned* u, float* f, double* d, unsigned long long* l) {
  const int t = threadIdx.x;
  atomicAdd(i, t);
  atomicMax(i + 1, t);
  atomicMin(i + 2, -t);
  atomicSub(i + 3, 1);
  atomicOr(u, 1u << t);
  atomicXor(u + 1, 3u);
  atomicInc(u + 2, 9u);
  atomicExch(u + 3, 5u);
  atomicCAS(u + 4, 0u, 7u);
  atomicAnd(u + 5, ~(1u << t));
  atomicAdd(f, 0.5f);
  atomicAdd(d, 0.25);
  atomicAdd(l, 1ull << 40);
}

// One warp multiplies A (16 x K) and B (K x 8), both in row order.
__device__ unsigned pack(const __half* p, int a, int b) {
  return __half_as_ushort(p[a]) | (unsigned)__half_as_ushort(p[b]) << 16;
}
extern "C" __global__ void mma_half(const __half* A, const __half* B, float* C) {
  const int group = threadIdx.x / 4, t = threadIdx.x % 4;
  unsigned a[4], b[2];
  for (int i = 0; i < 4; i++) {
    const int row = group + 8 * (i & 1), column = 2 * t + 8 * (i / 2);
    a[i] = pack(A, row * 16 + column, row * 16 + column + 1);
  }
  for (int i = 0; i < 2; i++) {
    const int row = 2 * t + 8 * i;
    b[i] = pack(B, row * 8 + group, (row + 1) * 8 + group);
  }
  float c[4] = {1, 1, 1, 1}, d[4];
  mma_f16_16x8x16(d, a, b, c);
  for (int i = 0; i < 4; i++) C[(group + 8 * (i / 2)) * 8 + 2 * t + (i & 1)] = d[i];
}
extern "C" __global__ void mma_tf32(const float* A, const float* B, float* C) {
  const int group = threadIdx.x / 4, t = threadIdx.x % 4;
  unsigned a[4], b[2];
  for (int i = 0; i < 4; i++) a[i] = to_tf32(A[(group + 8 * (i & 1)) * 8 + t + 4 * (i / 2)]);
  for (int i = 0; i < 2; i++) b[i] = to_tf32(B[(t + 4 * i) * 8 + group]);
  float c[4] = {};
  mma_tf32_16x8x8(c, a, b, c);
  for (int i = 0; i < 4; i++) C[(group + 8 * (i / 2)) * 8 + 2 * t + (i & 1)] = c[i];
}
extern "C" __global__ void mma_double(const double* A, const double* B, double* C, int lanes) {
  const int group = threadIdx.x / 4, t = threadIdx.x % 4;
  double c[2] = {};
  if ((int)threadIdx.x < lanes) mma_f64_8x8x4(c, A + group * 4 + t, B + t * 8 + group, c);
  for (int i = 0; i < 2; i++) C[group * 8 + 2 * t + i] = c[i];
}
extern "C" __global__ void mma_bfloat(const float* A, const float* B, float* C) {
  const int group = threadIdx.x / 4, t = threadIdx.x % 4;
  unsigned a[4], b[2];
  for (int i = 0; i < 4; i++) {
    const int at = (group + 8 * (i & 1)) * 16 + 2 * t + 8 * (i / 2);
    a[i] = __bfloat16_as_ushort(A[at]) | (unsigned)__bfloat16_as_ushort(A[at + 1]) << 16;
  }
  for (int i = 0; i < 2; i++) {
    const int at = (2 * t + 8 * i) * 8 + group;
    b[i] = __bfloat16_as_ushort(B[at]) | (unsigned)__bfloat16_as_ushort(B[at + 8]) << 16;
  }
  float c[4] = {};
  mma_bf16_16x8x16(c, a, b, c);
  for (int i = 0; i < 4; i++) C[(group + 8 * (i / 2)) * 8 + 2 * t + (i & 1)] = c[i];
}
// As mma_half, but the fragments are loaded by ldmatrix; B by its transposing form.
extern "C" __global__ void by_ldmatrix(const __half* A, const __half* B, float* C, int skew, int wait) {
  __shared__ alignas(16) __half a_tile[16 * 16 + 8];
  __shared__ alignas(16) __half b_tile[16 * 8];
  const int lane = threadIdx.x;
  for (int i = lane; i < 256; i += 32) a_tile[i] = A[i];
  for (int i = lane; i < 8; i += 32) a_tile[256 + i] = A[i];
  for (int i = lane; i < 128; i += 32) b_tile[i] = B[i];
  if (wait) __syncwarp();
  unsigned a[4], b[2];
  ldmatrix_x4(a, a_tile + (lane % 16) * 16 + 8 * (lane / 16) + skew);  // at: ldmatrix
  ldmatrix_x2_trans(b, b_tile + (lane % 16) * 8);
  float c[4] = {};
  mma_f16_16x8x16(c, a, b, c);
  const int group = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; i++) C[(group + 8 * (i / 2)) * 8 + 2 * t + (i & 1)] = c[i];
}

extern "C" __global__ void copy_async_kernel(const float* x, float* y, int wait, int sync, int bytes) {
  __shared__ alignas(16) float tile[128];
  copy_async<16>(tile + 4 * threadIdx.x, x + 4 * threadIdx.x, bytes);  // at: issue
  copy_async_commit();
  if (wait) copy_async_wait<0>();
  if (sync) __syncthreads();
  y[threadIdx.x] = tile[127 - threadIdx.x];  // at: use
  copy_async_wait<0>();
}
extern "C" __global__ void copy_pipeline(const float* x, float* y, int steps, int left) {
  __shared__ float tile[2][32];
  float sum = 0;
  copy_async<4>(&tile[0][threadIdx.x], x + threadIdx.x);
  copy_async_commit();
  for (int i = 0; i < steps; i++) {
    if (i + 1 < steps) copy_async<4>(&tile[(i + 1) & 1][threadIdx.x], x + 32 * (i + 1) + threadIdx.x);
    copy_async_commit();
    if (left == 1) copy_async_wait<1>(); else copy_async_wait<2>();
    __syncthreads();
    sum += tile[i & 1][31 - threadIdx.x];
    __syncthreads();
  }
  copy_async_wait<0>();
  y[threadIdx.x] = sum;
}
extern "C" __global__ void copy_forgotten(const float* x) {
  __shared__ float tile[32];
  copy_async<4>(tile + threadIdx.x, x + threadIdx.x);
}
extern "C" __global__ void copy_misaligned(const float* x, int offset) {
  __shared__ alignas(16) float tile[256];
  copy_async<16>(tile + 4 * threadIdx.x + (offset & 3), x + 4 * threadIdx.x);
  if (offset >= 0) copy_async_commit();
  copy_async_wait<0>();
}
"""


@pytest.fixture(scope="module")
def cu(compile_source):
    return compile_source("numeric.cu", CODE)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def hard_floats(rng):
    """Numbers of every size, near ties, subnormal, infinite."""
    wide = rng.standard_normal(4000) * 2.0 ** rng.integers(-30, 20, 4000)
    ties = (np.arange(2000) * 2 + 1) * 2.0**-11 + 1.0
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 65504, 65519.9, 65520, 2.0**-24, 2.0**-25, 1e-30]
    return np.concatenate([wide, ties, special]).astype(np.float32)


def bfloat_bits(x):
    words = x.view(np.uint32)
    rounded = ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FFF), rounded)


def test_half_is_that_of_ieee(cu, rng):
    x = hard_floats(rng)
    half, back = np.zeros(x.size, np.float16), np.zeros_like(x)
    cu.run("to_half", (x, half, back, np.int32(x.size)), grid=-(-x.size // 256), block=256)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    np.testing.assert_array_equal(half, expected)
    np.testing.assert_array_equal(back, expected.astype(np.float32))


def test_bfloat16_is_rounded_to_even(cu, rng):
    x = hard_floats(rng)
    bits, back = np.zeros(x.size, np.uint16), np.zeros_like(x)
    cu.run("to_bfloat", (x, bits, back, np.int32(x.size)), grid=-(-x.size // 256), block=256)
    np.testing.assert_array_equal(bits, bfloat_bits(x))
    np.testing.assert_array_equal(back, (bits.astype(np.uint32) << 16).view(np.float32))


def test_half_arithmetic(cu, rng):
    n = 256
    a, b = rng.standard_normal((2, n)).astype(np.float16)
    out = np.zeros(4 * n, np.float16)
    cu.run("half_arithmetic", (a, b, out, np.int32(n)), block=n)
    exact = a.astype(np.float64) * b + a.astype(np.float64)
    np.testing.assert_array_equal(out[:n], a + b)
    np.testing.assert_array_equal(out[n : 2 * n], a * b)
    np.testing.assert_array_equal(out[2 * n : 3 * n], exact.astype(np.float16))
    np.testing.assert_array_equal(out[3 * n :], b * np.float16(2))


def aligned(count, dtype, to=16):
    room = np.zeros(count * np.dtype(dtype).itemsize + to, np.uint8)
    start = -room.ctypes.data % to
    return room[start : start + count * np.dtype(dtype).itemsize].view(dtype)


def test_vectors(cu):
    x, out = aligned(32, np.float32), aligned(32, np.float32)
    x[:] = np.arange(32)
    pairs, bytes4 = aligned(16, np.float64), aligned(32, np.uint8)
    cu.run("vectors", (x, out, pairs, bytes4), block=8)
    np.testing.assert_array_equal(out.reshape(8, 4), x.reshape(8, 4)[:, ::-1])
    np.testing.assert_array_equal(pairs.reshape(8, 2), x.reshape(8, 4)[:, :2])
    np.testing.assert_array_equal(bytes4.reshape(8, 4)[3], [1, 2, 3, 3])


def test_bit_functions(cu):
    out = np.zeros(8, np.uint32)
    cu.run("bits", (out,), block=1)
    assert out.tolist() == [8, 31, 4, 2**31, 3, 0x3F800000, 3, 8]


def test_functions(cu):
    x = np.array([4.0, 9.0, np.nan], np.float32)
    out = np.zeros(6, np.float32)
    cu.run("functions", (x, out), block=1)
    np.testing.assert_allclose(out, [0.5, np.exp(4.0), 9, 1, 17, 4], rtol=1e-6)


def test_denormals_are_zero_as_cupy_compiles(cu):
    x = np.array([2.0**-126], np.float32)
    cu.run("denormals", (x,), block=1)
    assert x[0] == 0
    x = np.array([2.0**-125], np.float32)
    cu.run("denormals", (x,), block=1)
    assert x[0] == np.float32(2.0**-126)


def test_products_and_sums_are_rounded_one_by_one(cu):
    x = np.array([1 + 2.0**-12, 0], np.float32)
    x[1] = x[0] * x[0]
    out = np.ones(1, np.float32)
    cu.run("no_contraction", (x, out), block=1)
    assert out[0] == 0


def test_atomics(cu):
    i, u = np.array([0, 0, 0, 32], np.int32), np.array([0, 0, 0, 0, 0, 0xFFFFFFFF], np.uint32)
    f, d, words = np.zeros(1, np.float32), np.zeros(1), np.zeros(1, np.uint64)
    cu.run("atomics", (i, u, f, d, words))
    assert i.tolist() == [496, 31, -31, 0]
    assert u.tolist() == [0xFFFFFFFF, 0, 2, 5, 7, 0]
    assert (f[0], d[0], words[0]) == (16, 8, 32 << 40)


def test_mma_of_half(cu, rng):
    A, B = rng.integers(-8, 8, (16, 16)), rng.integers(-8, 8, (16, 8))
    C = np.zeros((16, 8), np.float32)
    cu.run("mma_half", (A.astype(np.float16), B.astype(np.float16), C))
    np.testing.assert_array_equal(C, A @ B + 1)


def test_mma_of_bfloat(cu, rng):
    A, B = rng.integers(-8, 8, (16, 16)), rng.integers(-8, 8, (16, 8))
    C = np.zeros((16, 8), np.float32)
    cu.run("mma_bfloat", (A.astype(np.float32), B.astype(np.float32), C))
    np.testing.assert_array_equal(C, A @ B)


def test_mma_of_tf32_has_ten_bits(cu, rng):
    A, B = rng.standard_normal((16, 8)), rng.standard_normal((8, 8))
    C = np.zeros((16, 8), np.float32)
    cu.run("mma_tf32", (A.astype(np.float32), B.astype(np.float32), C))
    short = [m.astype(np.float32).view(np.uint32) + 0x1000 & 0xFFFFE000 for m in (A, B)]
    exact = np.matmul(*(m.astype(np.uint32).view(np.float32).astype(np.float64) for m in short))
    np.testing.assert_allclose(C, exact, rtol=1e-6, atol=1e-6)
    assert np.abs(C - A @ B).max() > 1e-5  # they are not float32


def test_mma_of_double_and_with_lanes_missing(cu, rng):
    A, B = rng.standard_normal((8, 4)), rng.standard_normal((4, 8))
    C = np.zeros((8, 8))
    cu.run("mma_double", (A, B, C, np.int32(32)))
    np.testing.assert_allclose(C, A @ B, rtol=1e-14)
    fault = cu.fault("mma_double", (A, B, C, np.int32(31)))
    assert fault.kind in ("warp-undefined", "deadlock")
    assert cu.fault("mma_double", (A, B, C, np.int32(32)), block=31).kind == "warp-undefined"


def test_ldmatrix(cu, rng):
    A, B = rng.integers(-8, 8, (16, 16)), rng.integers(-8, 8, (16, 8))
    C = np.zeros((16, 8), np.float32)
    arrays = A.astype(np.float16), B.astype(np.float16), C
    cu.run("by_ldmatrix", (*arrays, np.int32(0), np.int32(1)))
    np.testing.assert_array_equal(C, A @ B)
    fault = cu.fault("by_ldmatrix", (*arrays, np.int32(1), np.int32(1)))
    assert fault.kind == "misaligned"
    fault = cu.fault("by_ldmatrix", (*arrays, np.int32(0), np.int32(0)))
    assert fault.kind in ("race", "uninitialised-shared")


def test_async_copy_arrives_after_wait_and_barrier(cu):
    x, y = aligned(128, np.float32), np.zeros(32, np.float32)
    x[:] = np.arange(128)
    cu.run("copy_async_kernel", (x, y, np.int32(1), np.int32(1), np.int32(16)))
    np.testing.assert_array_equal(y, np.arange(127, 95, -1))


def test_async_copy_fills_with_zeros(cu):
    x, y = aligned(128, np.float32), np.zeros(32, np.float32)
    x[:] = np.arange(128)
    cu.run("copy_async_kernel", (x, y, np.int32(1), np.int32(1), np.int32(8)))
    assert y[:4].tolist() == [0, 0, 125, 124]


@pytest.mark.parametrize(("wait", "sync"), [(0, 1), (1, 0), (0, 0)])
def test_async_copy_used_too_early(cu, wait, sync):
    x, y = aligned(128, np.float32), np.zeros(32, np.float32)
    fault = cu.fault("copy_async_kernel", (x, y, np.int32(wait), np.int32(sync), np.int32(16)))
    assert fault.kind in ("race", "uninitialised-shared")
    assert fault.place.array == "tile"
    if fault.kind == "race":
        assert set(fault.place.lines) == {cu.line("issue"), cu.line("use")}


def test_async_copies_in_a_pipeline(cu):
    x, y = np.arange(128, dtype=np.float32), np.zeros(32, np.float32)
    cu.run("copy_pipeline", (x, y, np.int32(4), np.int32(1)))
    np.testing.assert_array_equal(y, x.reshape(4, 32).sum(0)[::-1])
    assert cu.fault("copy_pipeline", (x, y, np.int32(4), np.int32(2))).kind == "race"


def test_async_copy_that_nobody_waits_for(cu):
    assert cu.fault("copy_forgotten", (aligned(32, np.float32),)).kind == "in-flight-copy"


def test_async_copy_at_an_odd_address(cu):
    x = aligned(128, np.float32)
    cu.run("copy_misaligned", (x, np.int32(0)))
    assert cu.fault("copy_misaligned", (x, np.int32(2))).kind == "misaligned"


def test_waiting_covers_only_what_was_committed(cu):
    fault = cu.fault("copy_misaligned", (aligned(128, np.float32), np.int32(-4)))
    assert fault.kind == "in-flight-copy"
