"""`dbn`: a network whose layers learn one after another without labels, then together with a few."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn, optim
from trine.data import ArrayDataset, Splits
from trine.models.desk import Desk, draw_order, values
from trine.models.desk import fit as train
from trine.models.explanation import Explanation
from trine.models.figures import Images
from trine.models.rbm import RBM, fit
from trine.models.registry import system
from trine.training import accuracy

SOURCE = "source notes 001; Hinton, Osindero and Teh, A fast learning algorithm, 2006"
SIZES = (14 * 14, 128, 128, 128)
LABELS = 100
PRETRAIN_EPOCHS = 20
EPOCHS = 60
BATCH = 20
LR = 2e-3
SEEDS = 5


@dataclass(frozen=True)
class FewLabels(Splits):
    """A data set of which only a few training images have labels; `unlabelled` has all of them."""

    unlabelled: npt.NDArray[np.float32] | None = None


def few_labels(splits: Splits, count: int = LABELS) -> FewLabels:
    """Keep the labels of `count` training images, as many of each class, drawn by Philox.

    Raises ValueError for a data set without classes.
    """
    if not splits.num_classes:
        raise ValueError(
            f"[dbn] expected a data set with classes, got {splits.name!r}. Use one with labels."
        )
    x, y = splits.train.x, splits.train.y
    chosen = []
    for label in range(splits.num_classes):
        members = np.flatnonzero(y == label)
        order = draw_order(f"dbn labels {label}", len(members))
        chosen.append(members[order[: count // splits.num_classes]])
    kept = np.concatenate(chosen)
    labelled = ArrayDataset(x[kept], y[kept], splits.num_classes, splits.train.name)
    return FewLabels(
        splits.name, labelled, splits.test, splits.num_classes, splits.description,
        splits.licence, unlabelled=x,
    )  # fmt: skip


class DBN(nn.Module):
    """Layers h^l = s(W^l h^(l-1) + b^l), each the upper half of an RBM, and a softmax on the last.

    Each RBM is trained on what the ones below it make of the data (`pretrain`), without labels; then
    W and b of all layers follow the gradient of the labels' cross-entropy. Images (N, 1, H, W) are
    averaged over windows of `window` x `window` first.
    """

    def __init__(
        self, sizes: tuple[int, ...] = SIZES, classes: int = 10, *, window: int = 2
    ) -> None:
        super().__init__()
        self.average = nn.AvgPool2d(window)
        self.layers = nn.ModuleList([RBM(a, b) for a, b in pairwise(sizes)])
        self.head = nn.Linear(sizes[-1], classes)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        h = self.average(x).flatten(1)
        for layer in self.layers:
            h = layer.hidden(h)
        return self.head(h)


def pretrain(model: nn.Module, splits: Splits, epochs: int = PRETRAIN_EPOCHS) -> None:
    """Train the layers one after another, each on the one below, without labels."""
    assert isinstance(splits, FewLabels)  # as the system's task makes them
    desk = Desk.of(model)
    with trine.no_grad():
        h = model.average(desk.tensor(splits.unlabelled)).flatten(1)
        for layer in model.layers:
            fit(layer, h.numpy(), epochs=epochs, lr=0.1, momentum=0.9)
            h = layer.hidden(h)


def random_start(model: nn.Module) -> None:
    """Give the layers the usual random weights of a network that is not pre-trained."""
    for layer in model.layers:
        nn.init.xavier_uniform_(layer.weight)


def fine_tune(model: nn.Module, splits: Splits, seed: int, epochs: int = EPOCHS) -> float:
    """Train by the labels, as `trine train dbn` does; return the accuracy on the test set."""
    desk = Desk.of(model)
    train(
        model, splits.train, F.cross_entropy,
        epochs=epochs, optimizer=optim.Adam(model.parameters(), lr=LR), batch_size=BATCH, seed=seed,
    )  # fmt: skip
    with trine.no_grad():
        right, count = accuracy(model(desk.tensor(splits.test.x)), desk.integers(splits.test.y))
    return float(right) / count


def compare_starts(
    desk: Desk,
    splits: Splits,
    seeds: Iterable[int],
    pretrain_epochs: int,
    epochs: int,
    build: Callable[[], DBN] = DBN,
) -> npt.NDArray[np.float64]:
    """Return the test accuracies of (random, pre-trained) starts for each seed: (seeds, 2)."""
    found = []
    for seed in seeds:
        row = []
        for start in ("random", "pre-trained"):
            trine.seed(seed)
            model = build()
            desk.place(model)
            if start == "random":
                random_start(model)
            else:
                pretrain(model, splits, pretrain_epochs)
            row.append(fine_tune(model, splits, seed, epochs))
        found.append(row)
    return np.array(found)


def show(model: nn.Module, splits: Splits) -> Explanation:
    """Compare pre-trained with random starts over five seeds."""
    desk = Desk.of(model)
    note = Explanation(
        "dbn", f"A deep belief network and {LABELS} labels", SOURCE, desk.backend, desk.dtype,
        [
            "h^l = s(W^l h^(l-1) + b^l)      p(class) = softmax(V h^L + c)",
            "first each W^l by CD-1 on h^(l-1), without labels; then all by the labels' gradient",
        ],
    )  # fmt: skip
    found = compare_starts(desk, splits, range(SEEDS), PRETRAIN_EPOCHS, EPOCHS)
    for k, start in enumerate(("random start", "pre-trained")):
        note.show("accuracy", f"{start}, mean of {SEEDS} seeds", found[:, k].mean())
        note.show("spread", f"{start}, standard deviation", found[:, k].std(ddof=1))
    gain = found[:, 1] - found[:, 0]
    error = gain.std(ddof=1) / np.sqrt(SEEDS)
    note.at_least("gain", "pre-trained - random, mean, above twice its standard error",
                  gain.mean(), 2.0 * error)  # fmt: skip
    note.matrices["test accuracy from a random start and pre-trained, a row a seed"] = found
    weight = values(model.layers[0].weight)
    strongest = np.argsort(-np.linalg.norm(weight, axis=1))[:20]
    first, second = weight[strongest].reshape(2, 10, 14, 14)
    note.drawings["features"] = Images(
        "First-layer weights of twenty hidden units", {"1 to 10": first, "11 to 20": second}
    )
    return note


@system(
    "dbn",
    family="Boltzmann machines",
    year=2006,
    source=SOURCE,
    summary="three layers pre-trained without labels, then 100 labels: better than a random start",
    data="digits",
    task=few_labels,
    loss=F.cross_entropy,
    optimizer="adam",
    lr=LR,
    batch_size=BATCH,
    epochs=EPOCHS,
    expected={"test_accuracy": 0.86},
    pretrain=pretrain,
    shows=show,
)
def build() -> DBN:
    """Return 196-128-128-128 units and ten classes, before pre-training."""
    return DBN()
