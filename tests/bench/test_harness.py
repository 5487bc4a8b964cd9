"""Only right kernels get a time, and the file says what a time depends on."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from trine import bench
from trine.kernels import kernel, registry


@pytest.fixture
def own_table(monkeypatch):
    monkeypatch.setattr(registry, "_kernels", {})
    registry._touch()
    yield
    monkeypatch.undo()
    registry._touch()


def timed(name):
    results = bench.run(["relu"], ["numpy"], shapes=["tiny"], seconds=0.01)
    found = {r.kernel: r for r in results}
    assert len(found["reference"].times) > 1
    return found[name], results


def test_a_right_kernel_gets_times_and_rates(own_table):
    @kernel("relu", backend="numpy", name="mine")
    def mine(x, out):
        np.maximum(x, 0, out=out)

    result, _ = timed("mine")
    assert not result.error
    assert 0 < result.percentile(10) <= result.median <= result.percentile(90) < 1
    assert result.gbytes == pytest.approx(result.bytes / result.median / 1e9)


def test_a_wrong_kernel_gets_none(own_table):
    @kernel("relu", backend="numpy", name="zeros")
    def zeros(x, out):
        out[...] = 0

    result, _ = timed("zeros")
    assert result.times == []
    assert "relative error" in result.error


def test_a_kernel_that_remembers_its_first_answer_loses_its_times(own_table):
    """It passes the check, whose inputs it sees first; fresh numbers after timing find it out."""
    seen = {}

    @kernel("relu", backend="numpy", name="remembers")
    def remembers(x, out):
        out[...] = seen.setdefault(x.shape, np.maximum(x, 0))

    result, _ = timed("remembers")
    assert result.times == []
    assert "wrong after timing" in result.error


def test_results_are_shown_and_saved_with_what_they_depend_on(own_table, tmp_path):
    @kernel("relu", backend="numpy", name="zeros")
    def zeros(x, out):
        out[...] = 0

    _, results = timed("zeros")
    console = Console(width=200, record=True, file=io.StringIO())
    bench.print_table(results, console)
    shown = console.export_text()
    assert "no time" in shown
    assert "reference" in shown
    path = tmp_path / "results.json"
    bench.write_json(results, path)
    saved = json.loads(path.read_text())
    assert saved["schema"] == 1
    assert saved["environment"]["packages"]["numpy"] == np.__version__
    rows = {row["kernel"]: row for row in saved["results"]}
    assert rows["zeros"]["median"] is None
    assert rows["reference"]["median"] > 0
