"""Warp operations: values, masks, widths; what is undefined is refused."""

from __future__ import annotations

import numpy as np
import pytest

CODE = r"""
extern "C" __global__ void shuffles(int* x, int kind, int argument, int width) {
  const int t = threadIdx.x, v = t + 100;
  int r = 0;
  if (kind == 1) r = __shfl_sync(0xffffffffu, v, argument + t, width);
  if (kind == 2) r = __shfl_up_sync(0xffffffffu, v, argument, width);
  if (kind == 3) r = __shfl_down_sync(0xffffffffu, v, argument, width);
  if (kind == 4) r = __shfl_xor_sync(0xffffffffu, v, argument, width);
  x[t] = r - 100;
}
extern "C" __global__ void doubles(double* x) {
  x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
}
extern "C" __global__ void votes(unsigned* x) {
  const int t = threadIdx.x;
  unsigned ballot = __ballot_sync(0xffffffffu, t % 3 == 0);
  int any = __any_sync(0xffffffffu, t == 9), all = __all_sync(0xffffffffu, t < 32);
  int not_all = __all_sync(0xffffffffu, t < 31), none = __any_sync(0xffffffffu, 0);
  unsigned same = __match_any_sync(0xffffffffu, t / 8);
  int sum = __reduce_add_sync(0xffffffffu, t), low = __reduce_min_sync(0xffffffffu, t - 5);
  x[t] = ballot;
  x[32 + t] = any * 8 + all * 4 + not_all * 2 + none;
  x[64 + t] = same;
  x[96 + t] = sum * 100 + low;
}
extern "C" __global__ void partial(unsigned* x, unsigned mask) {
  if (threadIdx.x < 16) x[threadIdx.x] = __ballot_sync(mask, 1);  // at: partial
}
extern "C" __global__ void full_mask_in_a_branch(unsigned* x) {
  if (threadIdx.x < 16) x[threadIdx.x] = __ballot_sync(0xffffffffu, 1);
  else __syncwarp();
}
extern "C" __global__ void two_lines(int* x, int until) {
  if ((int)threadIdx.x < until)
    x[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
  else
    x[threadIdx.x] = __shfl_sync(0xffffffffu, 2, 0);
}
extern "C" __global__ void from_an_absent_lane(int* x, int lane) {
  x[threadIdx.x] = __shfl_sync(0xffffffffu, (int)threadIdx.x, lane);  // at: absent
}
extern "C" __global__ void after_a_return(int* x, int lane) {
  if (threadIdx.x == 31) return;
  x[threadIdx.x] = __shfl_sync(0xffffffffu, (int)threadIdx.x, lane);
}
extern "C" __global__ void active(unsigned* x) { x[threadIdx.x] = __activemask(); }
"""


@pytest.fixture(scope="module")
def cu(compile_source):
    return compile_source("warps.cu", CODE)


def ints(n=32):
    return np.zeros(n, np.int32)


def expected_source(kind, lane, argument, width):
    """CUDA's rules, written anew."""
    start = lane - lane % width
    if kind == 1:
        return start + (argument + lane) % width
    if kind == 2:
        return lane - argument if lane - argument >= start else lane
    if kind == 3:
        return lane + argument if lane + argument < start + width else lane
    return lane ^ argument if (lane ^ argument) < start + width else lane


@pytest.mark.parametrize("width", [32, 8, 2])
@pytest.mark.parametrize("argument", [0, 1, 5, 16])
@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_shuffles(cu, kind, argument, width):
    x = ints()
    cu.run("shuffles", (x, np.int32(kind), np.int32(argument), np.int32(width)))
    assert x.tolist() == [expected_source(kind, lane, argument, width) for lane in range(32)]


def test_a_width_that_is_no_power_of_two(cu):
    fault = cu.fault("shuffles", (ints(), np.int32(3), np.int32(1), np.int32(12)))
    assert fault.kind == "warp-undefined"
    assert "power of 2" in str(fault)


def test_values_of_eight_bytes(cu):
    x = np.arange(32.0)
    cu.run("doubles", (x,))
    np.testing.assert_array_equal(x, np.arange(32).reshape(16, 2)[:, ::-1].ravel())


def test_votes(cu):
    x = np.zeros(128, np.uint32)
    cu.run("votes", (x,))
    assert x[0] == sum(1 << lane for lane in range(0, 32, 3))
    assert set(x[32:64]) == {12}
    assert x[64:96].tolist() == [0xFF << 8 * (lane // 8) for lane in range(32)]
    assert set(x[96:]) == {496 * 100 - 5}


def test_the_mask_names_who_takes_part(cu):
    x = np.zeros(32, np.uint32)
    cu.run("partial", (x, np.uint32(0xFFFF)))
    assert x[0] == 0xFFFF
    fault = cu.fault("partial", (x, np.uint32(0xFF)))
    assert fault.kind == "warp-divergence"
    assert "lane 8, which is not in its mask 000000ff" in str(fault)
    assert fault.place.lines == (cu.line("partial"),)


def test_a_full_mask_where_lanes_are_elsewhere(cu):
    fault = cu.fault("full_mask_in_a_branch", (np.zeros(32, np.uint32),))
    assert fault.kind == "warp-divergence"
    assert "__ballot_sync" in str(fault)


def test_lanes_that_meet_at_different_lines(cu):
    assert cu.fault("two_lines", (ints(), np.int32(7))).kind == "warp-divergence"
    cu.run("two_lines", (ints(), np.int32(32)))


def test_reading_a_lane_that_does_not_exist_or_has_returned(cu):
    fault = cu.fault("from_an_absent_lane", (ints(), np.int32(20)), block=20)
    assert fault.kind == "warp-undefined"
    assert "reads lane 20" in str(fault)
    cu.run("from_an_absent_lane", (ints(), np.int32(19)), block=20)
    assert cu.fault("after_a_return", (ints(), np.int32(31))).kind == "warp-undefined"
    cu.run("after_a_return", (ints(), np.int32(30)))


def test_activemask_is_refused(cu):
    assert cu.fault("active", (np.zeros(32, np.uint32),)).kind == "unsupported"
