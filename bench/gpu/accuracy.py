"""Table T4: how long LeNet-5 takes to 90 % of Fashion-MNIST, where its files are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import trine
from trine import data, models, optim
from trine.bench.gpu.session import Session
from trine.data import DataLoader
from trine.data.sources import FASHION_MNIST, find_files
from trine.training import StopAt, Trainer

T4 = "T4: time to an accuracy"
ABOUT = (
    "LeNet-5 on Fashion-MNIST, batches of 256, Adam, the data set on the device, steps captured; "
    "seconds from the first step to the end of the epoch that reaches the accuracy, evaluations "
    "included, compiling not. One row a seed."
)
TARGET = 0.90
SEEDS = 5
EPOCHS = 15
BATCH = 256


def run(session: Session, data_dir: Path | None) -> None:
    """Fill table T4, if there are files."""
    session.table(T4, ABOUT)
    if session.dry_run:
        session.note("T4 is left out of dry runs.")
        return
    if find_files(FASHION_MNIST, data_dir) is None:
        session.note("T4: the files of Fashion-MNIST are not at hand (see `trine data`).")
        return
    splits = data.load("fashion-mnist", data_dir, download=False)
    test = DataLoader(splits.test, 1000)
    warm = _trainer(0)  # kernels compile
    warm.fit(DataLoader(splits.train, BATCH), epochs=1, max_steps=6)
    warm.evaluate(test)
    seconds = []
    for seed in range(SEEDS):
        if session.over(0.9):
            session.note(f"T4: no time beyond seed {seed - 1}.")
            break
        train = DataLoader(splits.train, BATCH, shuffle=True, seed=seed)
        summary = _trainer(seed).fit(train, test, epochs=EPOCHS)
        reached = (summary.test_accuracy or 0.0) >= TARGET
        session.add(
            T4, seed=seed, reached=reached, accuracy=summary.test_accuracy, epochs=summary.epochs,
            seconds=summary.seconds, samples_per_second=summary.samples_per_second,
        )  # fmt: skip
        seconds += [summary.seconds] if reached else []
    if len(seconds) > 1:
        session.note(
            f"T4: {np.mean(seconds):.2f} s, standard deviation {np.std(seconds, ddof=1):.2f} s, "
            f"{len(seconds)} seeds."
        )


def _trainer(seed: int) -> Trainer:
    trine.seed(seed)
    with trine.use("cupy"):
        model = models.get("lenet5").build()  # type: ignore[misc]
    return Trainer(
        model, optim.Adam(model.parameters(), lr=2e-3), seed=seed, progress="none", capture="on",
        callbacks=[StopAt("test_accuracy", TARGET)], data_on_device="on",
    )  # fmt: skip
