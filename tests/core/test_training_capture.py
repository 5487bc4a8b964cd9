"""A trainer that captures its steps trains exactly as one that does not."""

from __future__ import annotations

import numpy as np
import pytest

import trine
from trine import nn, optim
from trine.data import ArrayDataset, DataLoader
from trine.errors import CaptureError, DivergenceError
from trine.training import Trainer

BACKENDS = ("numpy", "numba")


def loader(bad=None, count=44, size=8):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 6)).astype(np.float32)
    data = ArrayDataset(x, rng.integers(0, 3, count), 3)
    if bad is not None:
        data.x[bad] = np.nan  # the data set itself would refuse it
    return DataLoader(data, size)


def trainer(backend, capture, out=None, **options):
    with trine.use(backend):
        trine.seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, 3))
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    if options.pop("schedule", False):
        options["schedule"] = optim.CosineAnnealingLR(optimizer, 30)
    return Trainer(model, optimizer, seed=1, progress="none", capture=capture, out=out, **options)


def weights(run):
    return {k: v.detach().numpy().tobytes() for k, v in run.model.state_dict().items()}


@pytest.mark.parametrize(
    "options", [{}, {"schedule": True}, {"clip_norm": 0.1}, {"accumulate": 2}], ids=str
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_run_byte_for_byte(backend, options, tmp_path):
    """44 samples in batches of 8: the last batch of each epoch is smaller."""
    runs = {}
    for capture in ("off", "on", "auto"):
        run = trainer(backend, capture, tmp_path / capture, **options)
        summary = run.fit(loader(), loader(), epochs=4)
        rows = (tmp_path / capture / "metrics.jsonl").read_bytes()
        runs[capture] = weights(run), rows, summary.train_loss, summary.test_accuracy
        assert (summary.replayed_steps > 0) == (capture != "off")
    assert runs["on"] == runs["off"]
    assert runs["auto"] == runs["off"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_goes_on_is_the_same_run(backend, tmp_path):
    whole = trainer(backend, "off", tmp_path / "whole")
    whole.fit(loader(), loader(), epochs=4)
    trainer(backend, "on", tmp_path / "part").fit(loader(), loader(), epochs=4, max_steps=14)
    rest = trainer(backend, "on", tmp_path / "part")
    rest.fit(loader(), loader(), epochs=4, resume="auto")
    assert weights(rest) == weights(whole)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_in_a_replayed_step_stops_before_the_update(backend):
    """Sample 30 is in batch 3, which is the first that is replayed."""
    found = []
    for capture in ("off", "on"):
        run = trainer(backend, capture)
        with pytest.raises(DivergenceError, match=r"step 4 .* in the input batch"):
            run.fit(loader(bad=30), epochs=1)
        found.append(weights(run))
        assert run.step == 3
    assert found[0] == found[1]


def test_hooks_see_every_step_under_auto():
    run = trainer("numba", "auto")
    seen = []
    run.model.register_forward_hook(lambda *call: seen.append(1))
    summary = run.fit(loader(), epochs=2)
    assert summary.replayed_steps == 0
    assert len(seen) == summary.steps


def test_a_loss_that_reads_numbers_is_refused_when_capture_is_on():
    run = trainer("numba", "on")
    plain = run.loss

    def reading(output, target):
        loss = plain(output, target)
        assert loss.item() > 0
        return loss

    run.loss = reading
    with pytest.raises(CaptureError, match="reads numbers"):
        run.fit(loader(), epochs=1)


def test_an_unknown_choice_is_an_error():
    with pytest.raises(ValueError, match=r"\[Trainer\] expected a known capture"):
        trainer("numpy", "yes")
