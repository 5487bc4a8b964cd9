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
    [("alexnet-small", 4, 0.9), ("googlenet-small", 3, 0.85), ("lenet5-1998", 5, 0.9)],
)
def test_nets_read_digits_after_a_few_epochs(name: str, epochs: int, least: float) -> None:
    _, summary = trained(name, epochs)
    assert summary.test_accuracy is not None
    assert summary.test_accuracy >= least


@pytest.mark.slow
def test_segmentation_finds_regions() -> None:
    run, _ = trained("segmentation", 4)
    assert run.system.shows is not None
    assert run.system.shows(run.model, run.splits).failures() == []


@pytest.mark.slow
def test_the_detector_finds_shapes() -> None:
    run, _ = trained("faster-rcnn-small", 3, capture="off")  # proposals are chosen on the host
    assert run.system.shows is not None
    assert run.system.shows(run.model, run.splits).failures() == []
