"""What a run must remember: taken out of a trainer into a checkpoint, and put back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trine import nn, optim, random
from trine.errors import CheckpointError
from trine.training import checkpoint, records
from trine.training.checkpoint import Arrays

if TYPE_CHECKING:
    from trine.data import DataLoader
    from trine.training.trainer import Trainer


def weights(model: nn.Module) -> Arrays:
    """Return copies of a model's weights and buffers on the host."""
    return {
        name: np.array(tensor.backend.to_numpy(tensor.data))
        for name, tensor in model.state_dict().items()
    }


def under(prefix: str, arrays: Arrays) -> Arrays:
    """Return arrays with a prefix to their names; `checkpoint.part` takes it away."""
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def describe(trainer: Trainer, loader: DataLoader) -> dict[str, Any]:
    """Return the configuration of a run: the user's, and what a trainer itself can see."""
    schedule = trainer.schedule
    return {
        **trainer.config,
        "precision": trainer.backend.precision,
        "trainer": {
            "accumulate": trainer.accumulate,
            "clip_norm": trainer.clip_norm,
            "loss_reduction": trainer.loss_reduction,
            "metrics": list(trainer.metrics),
            "monitor": trainer.monitor.name,
            "mode": trainer.monitor.mode,
            "seed": trainer.seed,
            "schedule": None if schedule is None else type(schedule).__name__,
            "optimizer": type(trainer.optimizer).__name__,
            "groups": [_options(g, schedule) for g in trainer.optimizer.param_groups],
            "samples": len(loader.dataset),
            "batch_size": loader.batch_size,
            "shuffle": loader.shuffle,
            "loader_seed": loader.seed,
            "drop_last": loader.drop_last,
        },
    }


def _options(group: dict[str, Any], schedule: optim.Schedule | None) -> dict[str, Any]:
    options = {k: v for k, v in group.items() if k not in ("params", "initial_lr")}
    if schedule is not None:  # which changes the rate as the run goes on
        options.pop("lr", None)
    return options


def capture(trainer: Trainer) -> tuple[Arrays, dict[str, Any]]:
    """Return a run's state between two steps as arrays and facts."""
    optimizer = trainer.optimizer.state_dict()
    arrays = under("model", weights(trainer.model))
    arrays |= under("optimizer", optimizer["arrays"])
    arrays |= under("best", trainer.best_weights)
    return arrays, {
        "kind": "run",
        "config": records.fixed(trainer.described),
        "epoch": trainer.epoch,
        "batch": trainer.batch,
        "step": trainer.step,
        "monitor": trainer.monitor.state(),
        "random": random.default_generator().state(),
        "sums": trainer.sums.state(),
        "train": trainer.train_means,
        "test": trainer.test_means,
        "ended": trainer.ended,
        "metrics_bytes": trainer.folder.length if trainer.folder is not None else 0,
        "optimizer": optimizer["meta"],
    }


def restore(trainer: Trainer, source: Path, arrays: Arrays, meta: dict[str, Any]) -> None:
    """Put a run's state back; raises CheckpointError, the model untouched, if it does not fit."""
    if meta.get("kind") != "run":
        raise CheckpointError(
            f"[resume] expected the state of a run, got a checkpoint of kind {meta.get('kind')!r} in "
            f"{source}. Continue from {checkpoint.LAST}."
        )
    records.check_same(meta["config"], records.fixed(trainer.described))
    own = {k: v.shape for k, v in trainer.model.state_dict().items()}
    saved = {k: v.shape for k, v in checkpoint.part(arrays, "model.").items()}
    if own != saved:
        names = sorted(k for k in own.keys() | saved.keys() if own.get(k) != saved.get(k))
        raise CheckpointError(
            f"[resume] expected the model of the run in {source}, but {names[0]} was "
            f"{saved.get(names[0], 'absent')} and is {own.get(names[0], 'absent')} "
            f"({len(names)} difference(s)). Build the same model."
        )
    if trainer.folder is not None:
        trainer.folder.go_on(source, meta["metrics_bytes"], trainer.described)
    trainer.optimizer.load_state_dict(
        {"arrays": checkpoint.part(arrays, "optimizer."), "meta": meta["optimizer"]}
    )
    trainer.model.load_state_dict(checkpoint.part(arrays, "model."))
    trainer.best_weights = checkpoint.part(arrays, "best.")
    trainer.epoch, trainer.batch, trainer.step = meta["epoch"], meta["batch"], meta["step"]
    trainer.monitor.load_state(meta["monitor"])
    trainer.train_means, trainer.test_means = meta["train"], meta["test"]
    trainer.ended = meta["ended"]
    trainer.sums.load_state(meta["sums"])
    random.default_generator().load_state(meta["random"])
