"""What the tests of training on a GPU share, be that a real one or the emulator."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import pytest

import trine
from trine import data, models, optim
from trine.data import ArrayDataset, DataLoader
from trine.models.lstm import marked_sequences
from trine.training import Callback, Summary, Trainer


@pytest.fixture(scope="session")
def dry_run():
    """Whether the emulator stands for the GPU in tests marked `gpu`: small sizes then."""
    return bool(os.environ.get("TRINE_GPU_DRY_RUN"))


class Run(NamedTuple):
    """What a training run leaves."""

    losses: np.ndarray
    """The mean so far after each step."""
    summary: Summary
    launches: np.ndarray
    """Of each step but the first, where the emulator counts them."""
    weights: dict[str, bytes]


class Watch(Callback):
    """Reads after each step the mean loss so far, and how many launches the emulator has seen."""

    def __init__(self, machine):
        self.machine = machine
        self.losses, self.launches = [], []

    def on_step_end(self, trainer):
        self.losses.append(trainer.sums.means()["loss"])
        if self.machine is not None:
            self.launches.append(self.machine.launches)


def samples(system, count):
    """Return so many samples for a system: shipped digits, or sequences of symbols."""
    if system == "lstm":
        return marked_sequences(count, 1).train
    whole = data.load("digits").train
    return ArrayDataset(whole.x[:count], whole.y[:count], 10, "few digits")


def train(
    backend, system, count, batch, capture="off", *, epochs=2, steps=None, dtype="float32",
    machine=None, seed=0,
):  # fmt: skip
    """Train a system strictly from a seed, by Adam on shuffled samples."""
    trine.seed(seed)
    with trine.use(backend):
        model = models.get(system).build()
        model.to(dtype=dtype)
    watch = Watch(machine)
    trainer = Trainer(
        model, optim.Adam(model.parameters(), lr=1e-3), seed=seed, progress="none",
        capture=capture, callbacks=[watch], strict=True,
    )  # fmt: skip
    loader = DataLoader(samples(system, count), batch, shuffle=True)
    summary = trainer.fit(loader, epochs=epochs, max_steps=steps)
    weights = {k: v.detach().numpy().tobytes() for k, v in model.state_dict().items()}
    return Run(np.array(watch.losses), summary, np.diff(watch.launches), weights)


@pytest.fixture(name="train")
def train_fixture():
    """`train`."""
    return train


@pytest.fixture(name="samples")
def samples_fixture():
    """`samples`."""
    return samples
