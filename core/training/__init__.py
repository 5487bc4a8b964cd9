"""Training: the Trainer, its checkpoints, metrics, callbacks and progress."""

from __future__ import annotations

from pathlib import Path

from trine import nn
from trine.errors import CheckpointError
from trine.training import checkpoint
from trine.training.callbacks import Callback, StopAt
from trine.training.metrics import METRICS, accuracy
from trine.training.summary import Summary
from trine.training.trainer import Trainer

__all__ = ["METRICS", "Callback", "StopAt", "Summary", "Trainer", "accuracy", "load_weights"]


def load_weights(model: nn.Module, run: str | Path) -> None:
    """Load a run's best weights, else its last, into a model.

    Raises CheckpointError if the folder has no checkpoint, or the weights are corrupt or don't fit.
    """
    folder = Path(run)
    for name in (checkpoint.BEST, checkpoint.LAST, checkpoint.PREVIOUS):
        if (folder / name).is_file():
            arrays, _ = checkpoint.load(folder / name)
            try:
                model.load_state_dict(checkpoint.part(arrays, "model."))
            except ValueError as error:
                raise CheckpointError(f"[load_weights] {folder / name}: {error}") from error
            return
    raise CheckpointError(
        f"[run] expected a checkpoint in {folder}, found none. Train first: trine train NAME"
    )
