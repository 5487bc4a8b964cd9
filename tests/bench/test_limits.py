"""What is faster than the machine is refused; what only multiplies less is not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trine.backends.cases import get
from trine.bench import harness, limits
from trine.bench.guard import TICKS, Usage, Watch
from trine.bench.limits import MARGIN
from trine.kernels import kernel, registry


@pytest.fixture
def matmul(own_table):
    """A function that registers a right kernel of matmul which declares its arithmetic."""

    def register(flops=None):
        @kernel("matmul", backend="numpy", name="mine", flops=flops)
        def mine(x, y, trans_a, trans_b, out):
            np.matmul(x.T if trans_a else x, y.T if trans_b else y, out=out)

    return register


def test_too_many_multiplications_a_second_are_refused(matmul, timed, machine):
    matmul()
    row, _ = timed("mine", ops=["matmul"], roofs=machine(peak=1.0))
    assert row.times == []
    assert "too fast to be true" in row.error
    assert "GFLOP/s is above the limit" in row.error
    assert "kernel(flops=...)" in row.error


@pytest.mark.parametrize("flops", [1e-18, lambda x, y, **_: 1e-9 * x.size])
def test_a_kernel_may_declare_that_it_multiplies_less(matmul, timed, machine, flops):
    matmul(flops)
    row, _ = timed("mine", ops=["matmul"], roofs=machine(peak=1.0))
    assert not row.error
    assert row.work < 1 < row.flops
    assert row.gflops == row.flops / row.median / 1e9


def test_too_many_bytes_a_second_are_refused(timed, machine):
    row, _ = timed("reference", roofs=machine(bandwidth=1.0))
    assert row.times == []
    assert "GB/s is above the limit" in row.error


def test_a_measured_limit_is_looked_at_again_before_a_time_is_refused(timed, machine, monkeypatch):
    asked = []

    def calibrate(again=False):
        asked.append(again)
        return machine() if again else machine(bandwidth=1.0)

    monkeypatch.setattr(harness.limits, "calibrate", calibrate)
    row, report = timed("reference", roofs=None)
    assert asked == [False, True]
    assert row.times
    assert report.roofs == machine()


def test_the_roof_is_the_longer_of_both_and_its_level_that_of_the_bytes(machine):
    roofs = machine(peak=100.0, bandwidth=10.0)
    assert roofs.seconds(1000, 10, "float32") == 10
    assert roofs.bound(1000, 10, "float32") == "compute"
    assert roofs.seconds(0, 100, "float32") == 10
    assert roofs.bound(0, 100, "float32") == "memory"
    assert roofs.memory_seconds(1e6) == 1e6 / 1.0  # beyond L1
    assert roofs.bound(0, 1e-9, "float32") == "latency"


def test_bytes_are_charged_to_the_fastest_level_first(machine):
    """32 kB fit L1; the next byte must not make everything ten times as slow."""
    roofs = machine(bandwidth=1e3)
    least = 32 + 1000 / 100
    assert roofs.too_fast(least / MARGIN * 1.01, 0, 33e3, "float32") is None
    assert roofs.too_fast(least / MARGIN * 0.99, 0, 33e3, "float32") is not None


def test_the_machine_is_measured(monkeypatch):
    monkeypatch.setattr(limits, "_known", {})
    roofs = limits.measure(seconds=0.002)
    assert set(roofs.peak) == {"float32", "float64"}
    assert [v.name for v in roofs.levels] == ["L1", "L2", "L3", "DRAM"]
    assert roofs.levels[-1].capacity == math.inf
    for level in roofs.levels:
        assert 0 < level.bandwidth <= level.limit
    for dtype, peak in roofs.peak.items():
        assert 0 < peak <= roofs.peak_limit[dtype]
    assert roofs.merged(roofs) == roofs
    assert roofs.as_dict()["levels"][-1]["capacity"] is None


def test_measuring_is_done_once_for_a_number_of_threads(monkeypatch, machine):
    monkeypatch.setattr(limits, "_known", {})
    monkeypatch.delenv("TRINE_BENCH_ROOFS", raising=False)
    calls = []
    monkeypatch.setattr(limits, "measure", lambda: calls.append(1) or machine(peak=len(calls)))
    assert limits.calibrate() is limits.calibrate()
    assert len(calls) == 1
    assert limits.calibrate(again=True).peak["float32"] == 2
    monkeypatch.setenv("TRINE_BENCH_ROOFS", "off")
    assert limits.calibrate() is None


def test_an_embedding_needs_the_rows_that_it_looks_up():
    case = get("embedding")
    assert case.nbytes is not None
    assert case.timing is not None
    sample = next(iter(case.timing(np.random.default_rng(0), np.dtype("float32"))))
    weight, indices = sample.args
    assert case.nbytes(sample) <= indices.nbytes + 2 * indices.size * weight.shape[1] * 4


def test_the_hook_of_the_registry():
    entry = registry.Kernel("op", "numba", "k", print, ())
    assert entry.work({}, 10) == 10
    half = registry.Kernel("op", "numba", "k", print, (), flops=0.5)
    assert half.work({}, 10) == 5
    own = registry.Kernel("op", "numba", "k", print, (), flops=lambda n: 3 * n)
    assert own.work({"n": 2}, 10) == 6


def test_rounds_that_others_spoiled():
    assert Usage(1.0, 1.0, 0.5, 0).spoiled
    assert not Usage(1.0, 1.0, 0.05, 0).spoiled
    assert not Usage(1.0, 1.0, None, 0).spoiled
    assert not Usage(0.01, 0.01, TICKS / 100, 0).spoiled  # within the clock's grain
    used = Watch().stop()
    assert used.wall >= 0
    assert used.faults >= 0
