"""Races: in shared and global memory, within warps, across blocks, with atomics and fences."""

from __future__ import annotations

import numpy as np
import pytest

from trine.kernels.cuda import emulator

CODE = r"""
extern "C" __global__ void neighbours(float* x) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];  // at: neighbours write
#ifdef NEVER
  nothing
#endif
  if (x[64] == 0.0f) __syncthreads();
  x[threadIdx.x] = tile[63 - threadIdx.x];  // at: neighbours read
}
extern "C" __global__ void overwritten(float* x) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  float v = tile[63 - threadIdx.x];  // at: overwritten read
  if (x[64] == 0.0f) __syncthreads();
  tile[threadIdx.x] = v;  // at: overwritten write
}
extern "C" __global__ void read_by_all(float* x) {
  __shared__ float tile[64];
  tile[threadIdx.x] = 1.0f;
  __syncthreads();
  float v = tile[0] + tile[1];
  if (x[64] == 0.0f) __syncthreads();
  if (threadIdx.x == 1) tile[0] = v;  // at: read_by_all
}
// The writer is the last reader, in the order in which threads run: the others count as well.
extern "C" __global__ void last_reader_writes(float* x, int sync) {
  __shared__ float tile[2];
  if (threadIdx.x == 0) tile[0] = 1.0f;
  __syncthreads();
  float v = tile[0];
  if (sync) __syncthreads();
  if (threadIdx.x == blockDim.x - 1) tile[0] = v + 1.0f;
}
extern "C" __global__ void last_block_writes(float* x, int offset) {
  float v = x[0];
  if (blockIdx.x == gridDim.x - 1) x[offset] = v + 1.0f;
}
extern "C" __global__ void double_buffer(float* x) {
  __shared__ float tile[2][64];
  float sum = 0;
  for (int i = 0; i < 8; i++) {
    tile[i & 1][threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    sum += tile[i & 1][63 - threadIdx.x];
  }
  x[threadIdx.x] = sum;
}
extern "C" __global__ void global_neighbours(float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];
  if (x[64] == 0.0f) __syncthreads();
  x[threadIdx.x] = y[(threadIdx.x + 1) % 64];
}
extern "C" __global__ void blocks_write_one_place(float* x, int each) {
  x[threadIdx.x + each * blockIdx.x] = 1.0f;  // at: blocks_write
}
extern "C" __global__ void block_reads_another(float* x, float* y) {
  x[blockIdx.x * 32 + threadIdx.x] = 1.0f;  // at: block_reads_another write
  if (y) y[blockIdx.x * 32 + threadIdx.x] = x[threadIdx.x];  // at: block_reads_another read
}
extern "C" __global__ void add(float* x, int atomic) {
  if (atomic) atomicAdd(x, 1.0f);
  else x[0] += 1.0f;
}
extern "C" __global__ void atomic_then_plain(int* x, int wait) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1);  // at: atomic
  if (wait) __syncthreads();
  if (threadIdx.x == 5) x[0] = count;  // at: plain
}
extern "C" __global__ void plain_then_atomic(int* x, int wait) {
  if (threadIdx.x == 0) x[0] = 5;
  if (wait) __syncthreads();
  atomicAdd(x, 1);
}
extern "C" __global__ void bytes(unsigned char* x, int shift) {
  x[threadIdx.x >> shift] = 1;
}
extern "C" __global__ void mixed_widths(unsigned* x, int last) {
  if (threadIdx.x < 4) reinterpret_cast<unsigned char*>(x)[threadIdx.x] = 1;
  __syncthreads();
  if (threadIdx.x == 0) x[0] += 1;
  if (threadIdx.x == 1) reinterpret_cast<unsigned char*>(x)[last] = 3;
}

// --- within a warp

extern "C" __global__ void reduce_in_warp(float* x, int how) {
  __shared__ float s[32];
  const int t = threadIdx.x;
  s[t] = x[t];
  for (int o = 16; o; o >>= 1) {
    if (how == 0) __syncwarp();
    if (how == 1) __shfl_sync(0xffffffffu, 0, 0);
    float v = t < o ? s[t] + s[t + o] : 0.0f;
    if (how == 0) __syncwarp();
    if (how == 1) __shfl_sync(0xffffffffu, 0, 0);
    if (t < o) s[t] = v;
  }
  if (t == 0) x[0] = s[0];
}
// Each half passes a value on within itself, or to the other half.
extern "C" __global__ void halves(float* x, unsigned reach) {
  __shared__ float s[32];
  const unsigned t = threadIdx.x, mask = t < 16 ? 0x0000ffffu : 0xffff0000u;
  s[t] = x[t];
  __syncwarp(mask);
  x[t] = s[t ^ reach];
}
// All lanes read one place, which one of them then writes: ordered by __syncwarp alone.
extern "C" __global__ void lanes_read_then_one_writes(float* x, int sync) {
  __shared__ float s;
  if (threadIdx.x == 0) s = 1.0f;
  __syncwarp();
  float v = s;
  if (sync) __syncwarp();
  if (threadIdx.x == 3) s = 2.0f;
  x[threadIdx.x] = v;
}
// Only some of the readers have met the writer.
extern "C" __global__ void some_readers_unmet(float* x, unsigned mask) {
  __shared__ float s;
  if (threadIdx.x == 0) s = 1.0f;
  __syncwarp();
  float v = s;
  if ((mask >> threadIdx.x) & 1) __syncwarp(mask);
  if (threadIdx.x == 3) s = 2.0f;
  x[threadIdx.x] = v;
}

// --- fences and atomics

extern "C" __global__ void last_block(float* part, int* count, float* out, int fence, int after) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    part[blockIdx.x] = 1.0f + blockIdx.x;
    if (fence) __threadfence();
    last = atomicAdd(count, 1) == (int)gridDim.x - 1;
  }
  if (after) __syncthreads();
  if (after ? last : (threadIdx.x == 0 && last)) {
    if (threadIdx.x == 0) {
      float sum = 0;
      for (int i = 0; i < (int)gridDim.x; i++) sum += part[i];
      out[0] = sum;
    }
  }
}
// All threads of a block write, a barrier, one thread releases: what it saw is released too.
extern "C" __global__ void last_block_of_many(float* part, int* count, float* out) {
  __shared__ bool last;
  part[blockIdx.x * 32 + threadIdx.x] = 1.0f;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(count, 1) == (int)gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (last) {
    float sum = 0;
    for (int i = 0; i < (int)gridDim.x; i++) sum += part[i * 32 + threadIdx.x];
    out[threadIdx.x] = sum;
  }
}
// Written after the fence: not released.
extern "C" __global__ void written_after_the_fence(float* part, int* count, float* out) {
  __threadfence();
  part[blockIdx.x] = 1.0f;
  int ticket = atomicAdd(count, 1);
  __threadfence();
  if (ticket == (int)gridDim.x - 1)
    for (int i = 0; i < (int)gridDim.x; i++) out[0] += part[i];
}
extern "C" __global__ void flag_between_warps(float* x, int fence) {
  __shared__ float value;
  __shared__ volatile int flag;
  if (threadIdx.x == 0) flag = 0;
  __syncthreads();
  if (threadIdx.x == 40) {
    value = 5.0f;
    if (fence) __threadfence_block();
    flag = 1;
  }
  if (threadIdx.x == 0) {
    while (flag == 0) {}
    __threadfence_block();
    x[0] = value;
  }
}

// --- allowed

extern "C" __global__ void same_value(int* x, int* y) {
  x[0] = 1;  // trine: allow-race(every thread stores the same flag)
  if (y) y[0] = 1;
}
"""


@pytest.fixture(scope="module")
def cu(compile_source):
    return compile_source("races.cu", CODE)


def with_switch(on):
    """65 numbers of which the last lets the kernel take its barrier."""
    return np.array([*range(64), 0 if on else 1], np.float32)


def floats(n):
    return np.zeros(n, np.float32)


def ints(n):
    return np.zeros(n, np.int32)


@pytest.mark.parametrize("order", ["forward", "reverse", "shuffled"])
def test_shared_read_without_barrier_names_both_lines(cu, order):
    chosen = emulator.Settings(order=order)
    with pytest.raises(emulator.KernelError) as caught:
        cu.run("neighbours", (with_switch(False),), block=64, chosen=chosen)
    # Depending on the order of threads the read comes before or after the write.
    assert caught.value.kind in ("race", "uninitialised-shared")
    fault = cu.fault("overwritten", (with_switch(False),), block=64, chosen=chosen)
    assert (fault.kind, fault.place.array) == ("race", "tile")
    assert set(fault.place.lines) == {cu.line("overwritten read"), cu.line("overwritten write")}
    assert "the earlier access: races.cu:" in str(fault)
    for kernel in ("neighbours", "overwritten"):
        cu.run(kernel, (with_switch(True),), block=64, chosen=chosen)


def test_values_are_right_with_the_barrier(cu):
    x = with_switch(True)
    cu.run("neighbours", (x,), block=64)
    np.testing.assert_array_equal(x[:64], np.arange(63, -1, -1))


def test_a_place_that_many_read_then_one_writes(cu):
    fault = cu.fault("read_by_all", (with_switch(False),), block=64)
    assert fault.place.lines[0] == cu.line("read_by_all")
    cu.run("read_by_all", (with_switch(True),), block=64)


@pytest.mark.parametrize("threads", [2, 33, 64])
def test_all_readers_count_not_only_the_last(cu, threads):
    cu.run("last_reader_writes", (floats(1), np.int32(1)), block=threads)
    fault = cu.fault("last_reader_writes", (floats(1), np.int32(0)), block=threads)
    assert (fault.kind, fault.place.array) == ("race", "tile")


def test_readers_of_other_blocks_count(cu):
    cu.run("last_block_writes", (floats(2), np.int32(1)), grid=3, block=1)
    for order in ("forward", "reverse"):
        chosen = emulator.Settings(order=order)
        arguments = floats(2), np.int32(0)
        assert (
            cu.fault("last_block_writes", arguments, grid=3, block=1, chosen=chosen).kind == "race"
        )


def test_a_double_buffer_needs_one_barrier_a_step(cu):
    cu.run("double_buffer", (floats(64),), block=64)


def test_global_race_within_a_block(cu):
    assert cu.fault("global_neighbours", (with_switch(False), floats(64)), block=64).kind == "race"
    cu.run("global_neighbours", (with_switch(True), floats(64)), block=64)


def test_global_races_between_blocks(cu):
    fault = cu.fault("blocks_write_one_place", (floats(64), np.int32(31)), grid=2)
    assert (fault.kind, fault.place.block, fault.place.offset) == ("race", (1, 0, 0), 124)
    assert fault.place.lines == (cu.line("blocks_write"), cu.line("blocks_write"))
    cu.run("blocks_write_one_place", (floats(64), np.int32(32)), grid=2)
    fault = cu.fault("block_reads_another", (floats(64), floats(64)), grid=2)
    assert fault.place.lines == (
        cu.line("block_reads_another read"), cu.line("block_reads_another write"),
    )  # fmt: skip
    cu.run("block_reads_another", (floats(64), None), grid=2)


def test_a_write_after_another_block_has_read(cu):
    """Whichever block comes first."""
    for order in ("forward", "reverse"):
        chosen = emulator.Settings(order=order)
        arguments = (floats(64), floats(64))
        fault = cu.fault("block_reads_another", arguments, grid=2, chosen=chosen)
        assert fault.kind == "race"


def test_atomics_do_not_race_with_each_other(cu):
    x = floats(1)
    cu.run("add", (x, np.int32(1)), grid=3)
    assert x[0] == 96
    assert cu.fault("add", (floats(1), np.int32(0)), grid=3).kind == "race"


def test_an_atomic_and_a_plain_access_race(cu):
    fault = cu.fault("atomic_then_plain", (ints(1), np.int32(0)), block=64)
    assert {fault.kind, *fault.place.lines} == {"race", cu.line("atomic"), cu.line("plain")}
    x = ints(1)
    cu.run("atomic_then_plain", (x, np.int32(1)), block=64)
    assert x[0] == 64
    fault = cu.fault("atomic_then_plain", (ints(1), np.int32(0)), block=6)  # nothing after the read
    assert fault.place.lines == (cu.line("plain"), cu.line("atomic"))
    assert cu.fault("plain_then_atomic", (ints(1), np.int32(0))).kind == "race"
    cu.run("plain_then_atomic", (ints(1), np.int32(1)))


def test_neighbouring_bytes_do_not_race(cu):
    cu.run("bytes", (np.zeros(32, np.uint8), np.int32(0)))
    assert cu.fault("bytes", (np.zeros(32, np.uint8), np.int32(1))).kind == "race"


def test_a_word_overlaps_its_bytes(cu):
    cu.run("mixed_widths", (np.zeros(2, np.uint32), np.int32(4)))
    assert cu.fault("mixed_widths", (np.zeros(2, np.uint32), np.int32(3))).kind == "race"


def test_syncwarp_orders_memory_and_shuffles_do_not(cu):
    x = np.arange(32, dtype=np.float32)
    cu.run("reduce_in_warp", (x, np.int32(0)))
    assert x[0] == 496
    assert cu.fault("reduce_in_warp", (x, np.int32(1))).kind == "race"
    assert cu.fault("reduce_in_warp", (x, np.int32(2))).kind == "uninitialised-shared"


def test_syncwarp_orders_the_lanes_of_its_mask_only(cu):
    cu.run("halves", (floats(32), np.uint32(15)))
    assert cu.fault("halves", (floats(32), np.uint32(16))).kind in ("race", "uninitialised-shared")


def test_readers_are_a_set(cu):
    cu.run("lanes_read_then_one_writes", (floats(32), np.int32(1)))
    assert cu.fault("lanes_read_then_one_writes", (floats(32), np.int32(0))).kind == "race"
    cu.run("some_readers_unmet", (floats(32), np.uint32(0xFFFFFFFF)))
    assert cu.fault("some_readers_unmet", (floats(32), np.uint32(0x0000FFFF))).kind == "race"


@pytest.mark.parametrize("after", [0, 1])
def test_the_last_block_may_read_what_the_others_released(cu, after):
    arguments = floats(4), ints(1), floats(1)
    if after:
        cu.run("last_block", (*arguments, np.int32(1), np.int32(1)), grid=4)
        assert arguments[2][0] == 10
    fault = cu.fault(
        "last_block", (floats(4), ints(1), floats(1), np.int32(0), np.int32(after)), grid=4
    )
    assert (fault.kind, fault.place.array) == ("race", "part")


def test_reading_needs_a_fence_or_barrier_after_the_atomic(cu):
    arguments = (floats(4), ints(1), floats(1), np.int32(1), np.int32(0))
    assert cu.fault("last_block", arguments, grid=4).kind == "race"


def test_a_release_covers_what_a_barrier_ordered_before(cu):
    out = floats(32)
    cu.run("last_block_of_many", (floats(128), ints(1), out), grid=4)
    np.testing.assert_array_equal(out, np.full(32, 4))


def test_a_release_does_not_cover_what_comes_after_the_fence(cu):
    arguments = (floats(4), ints(1), floats(1))
    assert cu.fault("written_after_the_fence", arguments, grid=4, block=1).place.array == "part"


def test_a_flag_between_warps(cu):
    x = floats(1)
    cu.run("flag_between_warps", (x, np.int32(1)), block=64)
    assert x[0] == 5
    assert cu.fault("flag_between_warps", (x, np.int32(0)), block=64).place.array == "value"


def test_a_race_that_a_line_allows_is_counted(cu):
    cu.module.allowed_races.clear()
    x, y = ints(1), ints(1)
    cu.run("same_value", (x, None))
    assert x[0] == 1
    (allowed,) = cu.module.allowed_races
    assert allowed.kernel == "same_value"
    assert allowed.reason == "every thread stores the same flag"
    assert emulator.allowed_races()[allowed] >= 1
    fault = cu.fault("same_value", (x, y))  # the next line allows nothing
    assert fault.place.array == "y"


def test_unchecked_launches_are_not_judged(cu):
    x = floats(1)
    cu.run("add", (x, np.int32(0)), grid=3, chosen=emulator.Settings(checked=False))
    assert x[0] == 96
