"""The table of goals: what its lines add up, and that they name what exists."""

from __future__ import annotations

import numpy as np
import pytest

from trine.backends import get_backend
from trine.backends.cases import get
from trine.bench import peer_table, winograd_study
from trine.bench.harness import samples
from trine.bench.models import MODELS
from trine.bench.peer_table import CONV, WORKS, Work
from trine.bench.results import BenchResult, Report
from trine.kernels import registry


def row(op, shape, side, kernel, seconds):
    return BenchResult(op, side, kernel, "float32", shape, side=side, rounds=[[seconds]])


def report(*rows):
    return Report(list(rows), {}, None)


def test_every_line_names_calls_that_exist():
    for work in WORKS:
        for op in work.ops:
            assert samples(get(op), "float32", 0, (work.shape,)), work
    assert sum(work.ops == CONV for work in WORKS) == 10
    assert set(peer_table.STEPS) == set(MODELS)


def test_the_kernels_that_are_asked_for_exist():
    get_backend("numba")
    for op in winograd_study.OPS:
        known = {entry.name for entry in registry.kernels(op, "numba")}
        assert {kernel for _, kernel in winograd_study.ARITHMETICS} <= known
    for work in WORKS:
        if work.kernel != "default":
            assert work.kernel in {k.name for op in work.ops for k in registry.kernels(op, "numba")}


def test_a_line_compares_the_sums_of_its_calls():
    work = Work("both", ("a", "b"), "s", 1.3, 2)
    rows = [
        row("a", "s", "trine", "fast", 1.0), row("a", "s", "trine", "slow", 9.0),
        row("b", "s", "trine", "fast", 3.0), row("a", "s", "torch", "", 2.0),
        row("b", "s", "torch", "", 6.0), row("a", "other", "torch", "", 99.0),
    ]  # fmt: skip
    defaults = {("a", "s"): "fast", ("b", "s"): "fast"}
    assert peer_table._time_of(report(*rows), work, defaults) == 2.0
    assert peer_table._time_of(report(*rows[:-2]), work, defaults) is None


@pytest.mark.parametrize(
    ("ratio", "word"),
    [(2.5, "aim reached"), (1.5, "reached"), (1.0, "short (a tie)"), (0.5, "short")],
)
def test_verdicts(ratio, word):
    assert peer_table.verdict(ratio, 1.3, 2) == word


def test_steps_tell_ratios_and_memory():
    rows = [
        row("step mlp", "batch 128", "trine", "", 1.0),
        row("step mlp", "batch 128", "torch", "", 3.0),
    ]
    rows[0].peak_memory, rows[1].peak_memory = 50, 100
    time, memory = peer_table.step_lines([report(*rows)])
    assert "**3.00**" in time
    assert "aim reached" in time
    assert "**0.50**" in memory


def test_the_relative_error():
    assert peer_table._rms(np.array([1.0, 2.0]), np.array([1.0, 1.0])) == pytest.approx(0.5**0.5)
