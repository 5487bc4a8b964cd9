"""What the tests of the benchmark share: an empty registry, limits of a slow machine, a short run."""

from __future__ import annotations

import pytest

from trine import bench
from trine.bench.limits import Level, Roofs
from trine.kernels import registry


@pytest.fixture
def own_table(monkeypatch):
    """An empty registry for this test."""
    monkeypatch.setattr(registry, "_kernels", {})
    registry._touch()
    yield
    monkeypatch.undo()
    registry._touch()


def machine(peak: float = 1e18, bandwidth: float = 1e18) -> Roofs:
    """Return limits of a machine that was never measured: by default of one without limits."""
    both = {"float32": peak, "float64": peak}
    levels = (
        Level("L1", 32e3, bandwidth, bandwidth),
        Level("DRAM", float("inf"), bandwidth / 10, bandwidth / 10),
    )
    return Roofs(1, both, both, levels, 1e-9)


def quick(ops=("relu",), **options):
    """Run a benchmark on the numpy backend for hundredths of a second, with no measured limits."""
    settings = {"shapes": ["tiny"], "seconds": 0.01, "roofs": machine(), **options}
    return bench.run(list(ops), ["numpy"], **settings)


@pytest.fixture
def timed():
    """A function that runs the benchmark and returns the row of one kernel, and the report."""

    def run(name, **options):
        report = quick(**options)
        found = {r.kernel: r for r in report}
        return found[name], report

    return run


@pytest.fixture(name="machine")
def machine_fixture():
    """`machine`."""
    return machine


@pytest.fixture(name="quick")
def quick_fixture():
    """`quick`."""
    return quick
