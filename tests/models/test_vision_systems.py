"""The image systems learn what their rows promise, by their own settings but fewer epochs."""

from __future__ import annotations

import pytest

from trine.cli.train import Options, Run, prepare
from trine.training import Summary


def trained(name: str, epochs: int, **options: object) -> tuple[Run, Summary]:
    """Train a system as `trine train` does, on numba, for so many epochs."""
    run = prepare(Options(name, backend="numba", epochs=epochs, progress="none", **options))  # type: ignore[arg-type]
    run.trainer.folder = None  # nothing to save
    summary = run.trainer.fit(run.train_loader, run.test_loader, epochs=epochs)
    run.model.eval()
    return run, summary


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "epochs", "least"),
    [("alexnet-small", 4, 0.95), ("googlenet-small", 3, 0.95)],
)
def test_small_nets_read_digits(name: str, epochs: int, least: float) -> None:
    _, summary = trained(name, epochs)
    assert summary.test_accuracy is not None
    assert summary.test_accuracy >= least


@pytest.mark.slow
def test_lenet_of_1998_reads_digits_within_a_point_of_todays() -> None:
    _, today = trained("lenet5", 5)
    _, paper = trained("lenet5-1998", 5)
    assert today.test_accuracy is not None
    assert paper.test_accuracy is not None
    assert paper.test_accuracy >= max(0.96, today.test_accuracy - 0.01)


@pytest.mark.slow
def test_segmentation_finds_regions() -> None:
    run, _ = trained("segmentation", 4)
    assert run.system.shows is not None
    assert run.system.shows(run.model, run.splits).failures() == []


@pytest.mark.slow
def test_the_detector_finds_shapes() -> None:
    run, _ = trained("faster-rcnn-small", 3)
    assert run.system.shows is not None
    assert run.system.shows(run.model, run.splits).failures() == []
