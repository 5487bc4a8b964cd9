"""A tiny run for the tests of training, as a function and as a program that tests may kill.

    python training_run.py OUT BACKEND SECONDS_A_STEP

continues the run in OUT, or starts it, and says "training" on stdout when it is about to step.
"""

from __future__ import annotations

import sys
import time

import numpy as np

import trine
from trine import Trainer, nn, optim
from trine.data import ArrayDataset, DataLoader
from trine.training import Callback

EPOCHS = 4


def dataset(n=50, seed=0):
    """Three classes of points in four dimensions."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.normal(size=(n, 4)).astype(np.float32) + np.eye(3, 4, dtype=np.float32)[y] * 2
    return ArrayDataset(x, y, 3)


def model(dropout=0.3, batch_norm=True):
    """4-8-3 with batch statistics and dropout: buffers and random draws that have to be resumed."""
    layers = [nn.Linear(4, 8), *([nn.BatchNorm1d(8)] if batch_norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(8, 3))


def loaders(batch_size=8):
    """50 samples in batches of 8: the last one has 2. The test set has 20."""
    return (
        DataLoader(dataset(), batch_size, shuffle=True, seed=3),
        DataLoader(dataset(20, 1), 6, prefetch=0),
    )


OPTIMIZERS = {
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.01),
}


def trainer(out=None, optimizer="adam", net=None, **options):
    """A fresh trainer of a fresh model; always the same one."""
    trine.seed(11)
    net = model() if net is None else net
    optimizer = OPTIMIZERS[optimizer](net.parameters())
    schedule = optim.CosineAnnealingLR(optimizer, 28)
    options = {"progress": "none", "seed": 5, "schedule": schedule, **options}
    return Trainer(net, optimizer, out=out, **options)


class Slow(Callback):
    """Says when training starts, and takes its time."""

    def __init__(self, seconds):
        self.seconds = seconds

    def on_train_start(self, trainer):
        print("training", flush=True)

    def on_step_end(self, trainer):
        time.sleep(self.seconds)


if __name__ == "__main__":
    OUT, BACKEND, SECONDS = sys.argv[1], sys.argv[2], float(sys.argv[3])
    trine.use(BACKEND)
    run = trainer(OUT, checkpoint_every=2, callbacks=[Slow(SECONDS)])
    run.fit(*loaders(), epochs=EPOCHS, resume="auto")
