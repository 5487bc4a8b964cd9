"""Barriers of a block and of a co-resident grid: divergence, deadlock, votes."""

from __future__ import annotations

import numpy as np
import pytest

from trine.kernels.cuda import emulator

CODE = r"""
#include <cooperative_groups.h>

extern "C" __global__ void in_a_branch(int* x, int until) {
  if ((int)threadIdx.x < until) {
    __syncthreads();  // at: in_a_branch
  }
  x[threadIdx.x] = 1;
}
extern "C" __global__ void early_return(int* x, int n) {
  if ((int)threadIdx.x >= n) return;
  __syncthreads();
  x[threadIdx.x] = 1;
}
extern "C" __global__ void two_barriers(int* x, int until) {
  if ((int)threadIdx.x < until) {
    __syncthreads();  // at: first of two
  } else {
    __syncthreads();  // at: second of two
  }
  x[threadIdx.x] = 1;
}
extern "C" __global__ void two_kinds(int* x, int until) {
  int n = 0;
  if ((int)threadIdx.x < until) n = __syncthreads_count(1); else __syncthreads();
  x[threadIdx.x] = n;
}
extern "C" __global__ void votes(int* x) {
  const int t = threadIdx.x;
  int n = __syncthreads_count(t < 10);
  int all = __syncthreads_and(t < 64), some = __syncthreads_or(t == 3), none = __syncthreads_or(0);
  x[t] = n * 1000 + all * 100 + some * 10 + none;
}
extern "C" __global__ void warp_waits_for_barrier(int* x) {
  if (threadIdx.x < 16) {
    __syncwarp();
    __syncthreads();
  } else {
    __syncthreads();
    __syncwarp();
  }
  x[threadIdx.x] = 1;
}
extern "C" __global__ void grid_sum(float* x, float* out, int sync) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  __shared__ float mine[32];
  mine[threadIdx.x] = (float)i;
  x[i] = 1.0f + i;
  if (sync) cooperative_groups::this_grid().sync();
  const int n = gridDim.x * blockDim.x;
  out[i] = x[n - 1 - i] + mine[threadIdx.x];
}
extern "C" __global__ void grid_return(float* x) {
  if (blockIdx.x == 0 && threadIdx.x == 0) return;
  cooperative_groups::this_grid().sync();
  x[threadIdx.x] = 1.0f;
}
// A barrier of the grid made by hand: the last to arrive opens it.
extern "C" __global__ void own_grid_barrier(float* x, float* out, volatile int* state) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x;
  x[i] = (float)i;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd((int*)state, 1);
    while (*state < (int)gridDim.x) {}
    __threadfence();
  }
  __syncthreads();
  out[i] = x[n - 1 - i];
}
"""


@pytest.fixture(scope="module")
def cu(compile_source):
    return compile_source("barriers.cu", CODE)


def ints(n=64):
    return np.zeros(n, np.int32)


@pytest.mark.parametrize("kernel", ["in_a_branch", "early_return"])
def test_a_barrier_that_not_all_threads_reach(cu, kernel):
    fault = cu.fault(kernel, (ints(), np.int32(40)), block=64)
    assert fault.kind == "barrier-divergence"
    assert "__syncthreads" in str(fault)
    cu.run(kernel, (ints(), np.int32(64)), block=64)


def test_two_barriers_at_once(cu):
    fault = cu.fault("two_barriers", (ints(), np.int32(40)), block=64)
    assert fault.kind == "barrier-divergence"
    assert fault.place.lines == (cu.line("second of two"),)
    first = cu.line("first of two").split(":")[1]
    assert f"wait at line {first}" in str(fault)
    cu.run("two_barriers", (ints(), np.int32(64)), block=64)
    cu.run("two_barriers", (ints(), np.int32(0)), block=64)


def test_two_kinds_of_barrier_at_once(cu):
    fault = cu.fault("two_kinds", (ints(), np.int32(40)), block=64)
    assert "__syncthreads_count" in str(fault)
    cu.run("two_kinds", (ints(), np.int32(64)), block=64)


def test_votes(cu):
    x = ints()
    cu.run("votes", (x,), block=64)
    np.testing.assert_array_equal(x, np.full(64, 10110))


def test_deadlock_names_who_waits_where(cu):
    fault = cu.fault("warp_waits_for_barrier", (ints(),), block=32)
    assert fault.kind == "deadlock"
    assert "at a warp operation in line" in str(fault)
    assert "at __syncthreads in line" in str(fault)
    cu.run("warp_waits_for_barrier", (ints(),), block=16)  # all of them in one branch


def test_a_grid_barrier_orders_all_blocks(cu):
    x, out = np.zeros(128, np.float32), np.zeros(128, np.float32)
    cu.run("grid_sum", (x, out, np.int32(1)), grid=4, cooperative=True)
    np.testing.assert_array_equal(out, np.full(128, 128))  # also: shared memory is each block's own
    fault = cu.fault("grid_sum", (x, out, np.int32(0)), grid=4, cooperative=True)
    assert (fault.kind, fault.place.array) == ("race", "x")


def test_a_grid_barrier_needs_a_cooperative_launch(cu):
    x, out = np.zeros(128, np.float32), np.zeros(128, np.float32)
    assert cu.fault("grid_sum", (x, out, np.int32(1)), grid=4).kind == "unsupported"


def test_a_grid_too_large_to_be_there_together(cu):
    """512 blocks of 32 fit, one more does not."""
    n = 512 * 32
    x, out = np.zeros(n, np.float32), np.zeros(n, np.float32)
    cu.run("grid_sum", (x, out, np.int32(1)), grid=512, cooperative=True)
    assert set(out) == {n}
    with pytest.raises(emulator.LaunchError, match=r"\[grid_sum\].* at most 16384 can be together"):
        cu.run("grid_sum", (x, out, np.int32(1)), grid=513, cooperative=True)


def test_a_grid_barrier_that_one_thread_misses(cu):
    fault = cu.fault("grid_return", (np.zeros(32, np.float32),), grid=2, cooperative=True)
    assert fault.kind in ("barrier-divergence", "deadlock")


def test_a_grid_barrier_of_atomics(cu):
    x, out = np.zeros(128, np.float32), np.zeros(128, np.float32)
    cu.run("own_grid_barrier", (x, out, ints(1)), grid=4, cooperative=True)
    np.testing.assert_array_equal(out, np.arange(127, -1, -1))
