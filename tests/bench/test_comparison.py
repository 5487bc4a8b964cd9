"""Verdicts on times that are made up, so that the right answer is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trine.bench.comparison import compare, compare_files, interval, judge


def row(medians, spread=0.02, **changes):
    times = np.asarray(medians, dtype=float)
    found = {
        "op": "relu", "shape": "tiny", "dtype": "float32", "backend": "numba", "kernel": "k",
        "median": None, "p10": None, "p90": None, "rounds": list(times), "disturbed": False,
    }  # fmt: skip
    if times.size:
        median = float(np.median(times))
        found |= {"median": median, "p10": median * (1 - spread), "p90": median * (1 + spread)}
    return found | changes


def around(value, noise=0.01, count=7, seed=0):
    return value * (1 + noise * np.random.default_rng(seed).normal(size=count))


def file(*rows, environment=None, limits=None):
    return {
        "schema": 2, "environment": environment or {}, "limits": limits, "results": list(rows),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "spread", "verdict"),
    [
        (1.0, 0.5, 0.02, "faster"),
        (1.0, 2.0, 0.02, "slower"),
        (1.0, 1.0, 0.02, "same"),
        (1.0, 0.97, 0.001, "same"),  # certain, but of no interest
        (1.0, 0.7, 0.9, "faster"),  # single calls overlap, the rounds' medians do not
    ],
)
def test_verdicts(old, new, spread, verdict):
    a, b = row(around(old, seed=1), spread), row(around(new, seed=2), spread)
    assert judge(a, b)[0] == verdict


def test_noise_is_no_difference():
    a = row(around(1.0, noise=0.3, seed=3), 0.5)
    b = row(around(1.15, noise=0.3, seed=4), 0.5)
    assert judge(a, b)[0] == "same"


def test_equal_machines_are_rarely_called_different():
    """100 pairs from one distribution: the interval holds 1 in nearly all of them."""
    wrong = 0
    for seed in range(100):
        a, b = around(1, 0.2, seed=2 * seed), around(1, 0.2, seed=2 * seed + 1)
        wrong += judge(row(a, 0.3), row(b, 0.3))[0] != "same"
    assert wrong <= 5


def test_few_rounds_have_no_interval():
    assert interval([1.0, 1.0], [0.5, 0.5]) is None
    assert judge(row([1.0, 1.0]), row([0.5, 0.5]))[0] == "faster"  # ranges apart


def test_the_interval_holds_the_ratio():
    low, high = interval(around(2.0, seed=5), around(1.0, seed=6))
    assert low < 2.0 < high
    assert high - low < 0.2


def test_rows_that_came_went_or_failed():
    old = file(row(around(1)), row(around(1), kernel="gone"), row(around(1), kernel="broke"))
    new = file(row(around(1)), row(around(1), kernel="new"), row([], kernel="broke"))
    found = {v.key[-1]: v.verdict for v in compare(old, new).verdicts}
    assert found == {"k": "same", "gone": "only old", "new": "only new", "broke": "no time"}


def test_another_machine_is_a_warning():
    cpu = ({"cpu": {"model": "a", "flags": []}}, {"cpu": {"model": "b", "flags": []}})
    peak = ({"peak": {"float32": 100.0}}, {"peak": {"float32": 50.0}})
    old, new = (
        file(row(around(1), disturbed=True), environment=c, limits=p)
        for c, p in zip(cpu, peak, strict=True)
    )
    text = " ".join(compare(old, new).warnings)
    assert "cpu differs" in text
    assert "0.50 times as fast" in text
    assert "busy machine" in text


def test_files_are_compared(tmp_path):
    for name, value in (("old", 1.0), ("new", 0.5)):
        (tmp_path / f"{name}.json").write_text(json.dumps(file(row(around(value)))))
    found = compare_files(tmp_path / "old.json", tmp_path / "new.json")
    assert found.count("faster") == 1
    assert found.geometric_mean == pytest.approx(2, rel=0.05)
