"""Training steps: one definition, right from the first loss, in every library that is here."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from trine import nn
from trine.bench import memory, steps
from trine.bench.models import MODELS
from trine.bench.results import BenchResult
from trine.bench.steps import StepCandidate

SMALL = ("mlp", "mlp-small", "lenet5", "lstm")
"""Those whose float64 reference takes no seconds at a batch of 4."""


def losses(step, count=3):
    return [step() for _ in range(count)]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("how", steps.HOWS)
def test_the_first_losses_are_those_of_float64_and_fall(name, backend, how):
    weights = steps.initial_weights(MODELS[name], 0)
    truth = losses(steps.make_step(name, 4, "numpy", "float64", weights, 0), steps.CHECKED)
    got = losses(steps.make_step(name, 4, backend, "float32", weights, 0, how), steps.CHECKED)
    assert got == pytest.approx(truth, rel=steps.ALLOWED)
    assert truth[-1] < truth[0]


@pytest.mark.parametrize("name", SMALL)
def test_torch_does_the_same_steps(name):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("no torch")
    weights = steps.initial_weights(MODELS[name], 0)
    truth = losses(steps.make_step(name, 4, "numpy", "float64", weights, 0))
    make = steps.peer_step("torch", name, 4, weights, 0)
    assert losses(make()) == pytest.approx(truth, rel=steps.ALLOWED)


def test_the_stated_sizes():
    assert {n: m.batches for n, m in MODELS.items()} == {
        "lenet5": (32, 128, 512), "mlp": (128,), "mlp-small": (64,), "lstm": (32,),
        "lstm-long": (8,), "alexnet-small": (64,),
    }  # fmt: skip
    network = MODELS["alexnet-small"].build(nn)
    kinds = [type(m).__name__ for m in network]
    assert (kinds.count("Conv2d"), kinds.count("Linear")) == (5, 3)
    assert sum(p.data.size for p in MODELS["lenet5"].build(nn).parameters()) == 61706


def candidate(*values):
    found = iter(values)
    result = BenchResult("step x", "numpy", "", "float32", "batch 1")
    return StepCandidate("numpy", "numpy", result, lambda: lambda: next(found))


def test_a_wrong_gradient_gets_no_time():
    one = candidate(2.0, 1.9)
    assert not one.prepare([2.0, 1.5])
    assert "the loss of step 1 is 1.9, in float64 it is 1.5" in one.result.error


def test_a_loss_that_is_nan_is_wrong():
    assert not candidate(np.nan).prepare([2.0])


def test_a_training_that_went_astray_loses_its_times():
    one = candidate(2.0, np.inf)
    assert one.prepare([2.0])
    one.result.rounds.append([1.0])
    one.recheck()
    assert one.result.times == []


def test_a_model_is_timed_with_its_memory(quick):
    rows = list(quick([], models=["mlp-small"]))
    assert [row.kernel for row in rows] == ["eager", "captured"]
    for row in rows:
        assert (row.op, row.shape, row.backend) == ("step mlp-small", "batch 64", "numpy")
        assert row.rounds
        assert 10e6 < row.peak_memory < 2e9


def test_the_arithmetic_of_a_step_is_that_of_its_products():
    """784-256-10 on 4 rows: forward, and backward twice, though not to the first input."""
    weights = steps.initial_weights(MODELS["mlp"], 0)
    found = steps.arithmetic(steps.make_step("mlp", 4, "numpy", "float32", weights, 0))
    products = 3 * 2 * 4 * (784 * 256 + 256 * 10)
    assert products <= found < 3 * products


def test_an_unknown_model_is_an_error(quick):
    with pytest.raises(ValueError, match="Did you mean 'lenet5'"):
        quick([], models=["lenet"])


def test_the_peak_of_this_process_is_known():
    assert memory.peak_bytes() > 10e6


def test_a_process_that_fails_has_no_memory():
    assert memory.of_steps("numpy", "no such model", 1) is None
