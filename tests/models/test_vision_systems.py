"""The image systems learn what their rows promise, by their own settings on less data."""

from __future__ import annotations

import pytest

import trine
from trine import models
from trine.cli.train import Options, make_optimizer, make_schedule
from trine.data import ArrayDataset, DataLoader, Splits
from trine.models import alexnet, googlenet
from trine.models.explanation import Explanation
from trine.models.shapes import shape_boxes, shape_masks
from trine.nn import Module
from trine.training import Summary, Trainer


def trained(
    name: str, splits: Splits, epochs: int, batch_size: int, capture: str = "auto",
    lr: float | None = None,
) -> tuple[Module, Summary]:  # fmt: skip
    """Train a system on numba by its own loss, optimiser and schedule, on other data."""
    system = models.get(name)
    assert system.build is not None
    assert system.loss is not None
    model = system.build()
    optimizer = make_optimizer(system, Options(name, lr=lr), model)
    train = DataLoader(splits.train, batch_size, shuffle=True, seed=0)
    schedule = make_schedule(system, optimizer, epochs * len(train))
    trainer = Trainer(
        model, optimizer, system.loss, metrics=system.metrics, schedule=schedule,
        progress="none", capture=capture,
    )  # fmt: skip
    summary = trainer.fit(train, DataLoader(splits.test, 256), epochs=epochs)
    model.eval()
    return model, summary


def first_classes(splits: Splits, count: int) -> Splits:
    """Return the samples of the classes below `count`."""

    def part(data: ArrayDataset) -> ArrayDataset:
        chosen = data.y < count
        return ArrayDataset(data.x[chosen], data.y[chosen], count, data.name)

    return Splits(splits.name, part(splits.train), part(splits.test))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "classes", "epochs", "batch_size", "least"),
    [
        ("alexnet-small", 10, 3, 16, 0.85),  # seeds 0 and 1 reach 0.92
        ("googlenet-small", 5, 3, 16, 0.85),  # 0.97 and 0.93
        ("lenet5-1998", 10, 5, 32, 0.9),
    ],
)
def test_nets_read_digits_after_a_few_epochs(
    name: str, classes: int, epochs: int, batch_size: int, least: float
) -> None:
    with trine.use("numba"):
        splits = first_classes(models.get(name).splits(), classes)
        _, summary = trained(name, splits, epochs, batch_size)
    assert summary.test_accuracy is not None
    assert summary.test_accuracy >= least


@pytest.mark.parametrize("build", [alexnet.small, googlenet.small])
def test_small_nets_take_what_digits_and_fashion_mnist_have(build) -> None:  # type: ignore[no-untyped-def]
    with trine.use("numpy"), trine.no_grad():
        scores = build().eval()(trine.zeros(2, 1, 28, 28))
    assert scores.shape == (2, 10)


def shown(
    name: str, splits: Splits, epochs: int, batch_size: int, capture: str, lr: float | None = None
) -> Explanation:
    """Return what a system shows, trained."""
    system = models.get(name)
    assert system.shows is not None
    with trine.use("numba"):
        model, _ = trained(name, splits, epochs, batch_size, capture, lr)
        return system.shows(model, splits)


@pytest.mark.slow
def test_segmentation_finds_regions() -> None:
    """Mean IoU of 0.9, the row's own, on pictures of 24x24."""
    note = shown("segmentation", shape_masks(400, 60, 24), 5, 5, "on")
    assert note.failures() == []
    assert {row.symbol: row.reference for row in note.rows}["mean IoU"] == 0.9


@pytest.mark.slow
def test_the_detector_finds_shapes() -> None:
    """mAP@0.5 of 0.8, the row's own, on 32x32 at twice the rate (seeds 0 to 4: 0.82 to 0.89).

    Not captured, since proposals are chosen on the host.
    """
    note = shown("faster-rcnn-small", shape_boxes(400, 50, 32, (16, 28)), 2, 2, "off", lr=2e-3)
    assert note.failures() == []
    assert {row.symbol: row.reference for row in note.rows}["mAP@0.5"] == 0.8
