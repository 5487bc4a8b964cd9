"""How the tests of systems train one: as the command does, with its pre-training and schedule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trine.cli.train import Options, Run, prepare

TrainSystem = Callable[..., Run]


@pytest.fixture
def train_system(tmp_path: Path) -> TrainSystem:
    """Return train_system(name, backend, epochs=None, **options): a finished run of `trine train`.

    The run's model is in evaluation mode; without `epochs` it has the system's own.
    """

    def train(name: str, backend: str, *, epochs: int | None = None, **options: object) -> Run:
        run = prepare(
            Options(name, backend=backend, epochs=epochs, out=tmp_path / name, progress="none",
                    **options)  # type: ignore[arg-type]
        )  # fmt: skip
        run.trainer.fit(run.train_loader, run.test_loader, epochs=run.epochs)
        run.model.eval()
        return run

    return train
