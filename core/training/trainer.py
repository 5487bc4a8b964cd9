"""The training loop: epochs, steps, evaluation, checkpoints, and every way in which a run may end."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import trine
import trine.functional as F
from trine import nn, optim, random
from trine.backends import Backend
from trine.data import DataLoader
from trine.errors import BackendError, CheckpointError, DivergenceError, suggest
from trine.nn.serialization import write_atomically
from trine.tensor import Tensor
from trine.training import checkpoint
from trine.training.callbacks import Callback
from trine.training.diagnose import first_nonfinite
from trine.training.metrics import Metric, Sums, accuracy, resolve
from trine.training.progress import Silent, make_progress
from trine.training.signals import StopRequest
from trine.training.summary import Summary

log = logging.getLogger("trine")


class Trainer:
    """Trains a model so that the run can be trusted, stopped and continued.

    loss(output, target) -> scalar, the mean over the batch (`loss_reduction="mean"`) or the sum.
    metrics: names, or name -> function(output, target) -> (sum, count). schedule: a
    `trine.optim.Schedule`. clip_norm: largest gradient norm. accumulate: batches a step. out:
    folder for config.json, metrics.jsonl, timing.jsonl and checkpoints, or None for none of these.
    checkpoint_every: steps between checkpoints (besides one an epoch). patience: evaluations
    without a better `monitor` before training stops; with `restore_best` the best weights are in
    the model at the end. strict: a fallback from a kernel on the reference is an error.

    NaN or Inf stops before the update: DivergenceError names the layer, and snapshot.safetensors
    holds batch and weights. SIGINT and SIGTERM save and stop.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: optim.Optimizer,
        loss: Callable[..., Tensor] | None = None,
        *,
        metrics: Mapping[str, Metric] | Iterable[str] | None = None,
        schedule: optim.Schedule | None = None,
        clip_norm: float | None = None,
        accumulate: int = 1,
        callbacks: Sequence[Callback] = (),
        out: str | Path | None = None,
        config: Mapping[str, Any] | None = None,
        seed: int = 0,
        progress: str = "auto",
        checkpoint_every: int | None = None,
        log_every: int = 20,
        patience: int | None = None,
        monitor: str = "test_loss",
        mode: str | None = None,
        min_delta: float = 0.0,
        restore_best: bool = False,
        loss_reduction: str = "mean",
        strict: bool = False,
    ) -> None:
        for name, value in (("accumulate", accumulate), ("log_every", log_every)):
            if value < 1:
                raise ValueError(f"[Trainer] expected {name} >= 1, got {value}. Correct it.")
        if loss_reduction not in ("mean", "sum"):
            raise suggest("Trainer", "loss_reduction", loss_reduction, ("mean", "sum"))
        if mode not in (None, "min", "max"):
            raise suggest("Trainer", "mode", str(mode), ("min", "max"))
        self.model = model
        self.optimizer = optimizer
        self.loss = loss if loss is not None else F.cross_entropy
        self.metrics = resolve({"accuracy": accuracy} if metrics is None else metrics)
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.accumulate = accumulate
        self.callbacks = list(callbacks)
        self.out = Path(out) if out is not None else None
        self.config = dict(config or {})
        self.seed = seed
        self.progress_kind = progress
        self.checkpoint_every = checkpoint_every
        self.log_every = log_every
        self.patience = patience
        self.monitor = monitor
        self.mode = mode or ("min" if monitor.endswith("loss") else "max")
        self.min_delta = min_delta
        self.restore_best = restore_best
        self.loss_reduction = loss_reduction
        self.strict = strict
        self.stop_reason: str | None = None
        self.epoch = self.batch = self.step = 0
        self.best: float | None = None
        self.best_epoch: int | None = None
        self._waited = 0
        self._best_weights: dict[str, Any] = {}
        self._sums: Sums | None = None
        self._resumed_sums: Mapping[str, Any] | None = None
        self._progress: Silent = Silent()
        self._compiling_told = False

    @property
    def backend(self) -> Backend:
        """The backend on which the model lives."""
        return next(iter(self.model.parameters())).backend

    # The run

    def fit(
        self,
        train_loader: DataLoader,
        test_loader: DataLoader | None = None,
        *,
        epochs: int,
        resume: str | Path | None = None,
        max_steps: int | None = None,
    ) -> Summary:
        """Train for so many epochs in all, or `max_steps` steps, and return what came of it.

        resume: None starts anew; "auto" continues the run in `out` if there is one; a folder
        continues the run there. Raises DivergenceError for NaN or Inf, CheckpointError for a
        checkpoint that does not fit, BackendError when memory runs out.
        """
        if epochs < 1:
            raise ValueError(f"[fit] expected epochs >= 1, got {epochs}. Correct it.")
        self.stop_reason = None
        strict_before = self.backend.strict
        self.backend.strict = self.strict or strict_before
        self._begin(resume)
        self._progress = make_progress(self.progress_kind)
        started, compiled = time.perf_counter(), self._compile_seconds()
        samples_before = self.step
        seen = 0
        train_means: dict[str, float] = {}
        test_means: dict[str, float] = {}
        with StopRequest() as request:
            try:
                self._progress.start(epochs, len(train_loader), self.epoch, self.batch)
                for callback in self.callbacks:
                    callback.on_train_start(self)
                while self.epoch < epochs and self.stop_reason is None:
                    epoch_started = time.perf_counter()
                    seen += self._train_epoch(train_loader, request, max_steps)
                    if self.batch < len(train_loader):  # stopped inside the epoch
                        break
                    train_means = self._train_means()
                    if test_loader is not None:
                        measured = self._evaluate(test_loader, request)
                        if measured is None:  # stopped inside the evaluation
                            break
                        test_means = {f"test_{k}": v for k, v in measured.items()}
                    self._end_epoch(train_means, test_means, time.perf_counter() - epoch_started)
                if request.name is not None:
                    self.stop_reason = request.name
                    self._save()
                    self._progress.note(
                        f"stopped by {request.name} after step {self.step}"
                        + (
                            f"; saved in {self.out}, continue with --resume auto"
                            if self.out
                            else ""
                        )
                    )
                for callback in self.callbacks:
                    callback.on_train_end(self)
            finally:
                self._progress.stop()
                self.backend.strict = strict_before
                if self.restore_best and self._best_weights:
                    self.model.load_state_dict(self._best_weights)
        if not train_means and self._sums is not None:
            train_means = self._train_means()
        compile_seconds = self._compile_seconds() - compiled
        seconds = max(time.perf_counter() - started - compile_seconds, 1e-9)
        log.debug("steps %d to %d", samples_before, self.step)
        return self._summary(train_means, test_means, seconds, compile_seconds, seen)

    def evaluate(self, loader: DataLoader) -> dict[str, float]:
        """Return the mean loss and metrics over a loader, the model in evaluation mode."""
        with StopRequest() as request:
            measured = self._evaluate(loader, request)
        if measured is None:
            raise KeyboardInterrupt
        return measured

    # Parts of the run

    def _train_epoch(self, loader: DataLoader, request: StopRequest, max_steps: int | None) -> int:
        self.model.train()
        self._sums = Sums(self.backend, ["loss", *self.metrics])
        if self._resumed_sums is not None:
            self._sums.load_state(self._resumed_sums)
            self._resumed_sums = None
        sizes = _batch_sizes(loader)
        seen = 0
        group: list[tuple[Any, Any]] = []
        for x, y, _ in loader.epoch(self.epoch, self.batch):
            group.append((x, y))
            seen += len(x)
            last = self.batch + len(group) == len(sizes)
            if len(group) < self.accumulate and not last:
                continue
            self._step(group)
            self.batch += len(group)
            group = []
            loss = None
            if self.step % self.log_every == 0:
                loss = self._sums.means()["loss"]
            self._progress.advance(self.epoch, self.batch, loss)
            for callback in self.callbacks:
                callback.on_step_end(self)
            if max_steps is not None and self.step >= max_steps:
                self.stop_reason = self.stop_reason or f"max_steps={max_steps}"
            if request.name is not None or self.stop_reason is not None:
                break
            due = self.checkpoint_every and self.step % self.checkpoint_every == 0
            if due and self.batch < len(sizes):
                self._save()
        if self.stop_reason is not None and self.batch < len(sizes):
            self._save()
        return seen

    def _step(self, group: list[tuple[Any, Any]]) -> None:
        """One optimiser step over a group of batches, as if they were one."""
        assert self._sums is not None  # made at the start of the epoch
        total = sum(len(x) for x, _ in group)
        backend = self.backend
        before = self._compile_seconds()
        try:
            self.optimizer.zero_grad()
            pending = []
            for x, y in group:
                samples, target = self._upload(x, y)
                output = self.model(samples)
                loss = self.loss(output, target)
                self._check_scalar(loss)
                mean = self.loss_reduction == "mean"
                scaled = loss * (len(x) / total) if mean and len(group) > 1 else loss
                scaled.backward()
                pending.append((samples, target, output, loss, len(x)))
            if self.schedule is not None:
                when = self.epoch if self.schedule.interval == "epoch" else self.step
                self.schedule.apply(self.optimizer, when)
            limit = self.clip_norm if self.clip_norm is not None else math.inf
            norm = optim.clip_grad_norm_(self.optimizer, limit)
            # Reading the norm waits for the device, so there it is done now and then; the update
            # is suppressed on the device itself in any case.
            look = backend.device == "cpu" or (self.step + 1) % self.log_every == 0
            if look and not math.isfinite(float(norm)):
                self._diverged(pending[-1][0], pending[-1][1], group)
            self.optimizer.step()
        except MemoryError as error:
            raise BackendError(
                f"[train] expected memory for a batch of {total} samples, but there is no more. Use a "
                f"smaller --batch-size. {backend.memory_report()}"
            ) from error
        self.step += 1
        with trine.no_grad():
            for _, target, output, loss, count in pending:
                weighted = loss.detach() * count if self.loss_reduction == "mean" else loss.detach()
                self._sums.add("loss", weighted, count)
                for name, metric in self.metrics.items():
                    value, number = metric(output.detach(), target)
                    self._sums.add(name, value, number)
        if not self._compiling_told and self._compile_seconds() - before > 1.0:
            self._compiling_told = True
            self._progress.note(
                f"compiled CPU kernels, once: {self._compile_seconds() - before:.1f} s"
            )

    def _evaluate(self, loader: DataLoader, request: StopRequest) -> dict[str, float] | None:
        self.model.eval()
        sums = Sums(self.backend, ["loss", *self.metrics])
        with trine.no_grad():
            for x, y, _ in loader.epoch(0):
                if request.name is not None:
                    return None
                samples, target = self._upload(x, y)
                output = self.model(samples)
                loss = self.loss(output, target)
                mean = self.loss_reduction == "mean"
                sums.add("loss", loss * len(x) if mean else loss, len(x))
                for name, metric in self.metrics.items():
                    value, number = metric(output, target)
                    sums.add(name, value, number)
        measured = sums.means()
        for callback in self.callbacks:
            callback.on_evaluate(self, measured)
        return measured

    def _end_epoch(
        self, train_means: dict[str, float], test_means: dict[str, float], seconds: float
    ) -> None:
        metrics = {**train_means, **test_means}
        self._note_best(metrics)
        self._progress.epoch_end(self.epoch, metrics)
        for callback in self.callbacks:
            callback.on_epoch_end(self, metrics)
        row = {"epoch": self.epoch + 1, "step": self.step, **metrics}
        self._append("metrics.jsonl", row)
        self._append("timing.jsonl", {"epoch": self.epoch + 1, "seconds": round(seconds, 4)})
        self.epoch += 1
        self.batch = 0
        self._sums = None
        self._save()
        if self.patience is not None and self._waited > self.patience:
            self.stop_reason = (
                f"no better {self.monitor} than {self.best} for {self._waited} epochs"
            )

    def _note_best(self, metrics: Mapping[str, float]) -> None:
        value = metrics.get(self.monitor)
        if value is None:
            if self.patience is not None or self.restore_best:
                raise ValueError(
                    f"[Trainer] expected monitor among {', '.join(metrics)}, got {self.monitor!r}. Name "
                    "one of them, or pass a test loader."
                )
            return
        sign = 1 if self.mode == "min" else -1
        better = not math.isnan(value) and (
            self.best is None or sign * (self.best - value) > self.min_delta
        )
        if not better:
            self._waited += 1
            return
        self.best, self.best_epoch, self._waited = value, self.epoch + 1, 0
        self._best_weights = self._weights()
        if self.out is not None:
            arrays = {f"model.{name}": a for name, a in self._best_weights.items()}
            meta = {"kind": "best", "epoch": self.best_epoch, self.monitor: value}
            checkpoint.save(self.out / checkpoint.BEST, arrays, meta)

    def _diverged(self, x: Tensor, target: Tensor, group: list[tuple[Any, Any]]) -> None:
        place = first_nonfinite(self.model, x, target, self.loss)
        saved = ""
        if self.out is not None:
            arrays = {f"model.{name}": a for name, a in self._weights().items()}
            for i, (samples, labels) in enumerate(group):
                arrays[f"batch.{i}.x"], arrays[f"batch.{i}.y"] = np.array(samples), np.array(labels)
            path = self.out / checkpoint.SNAPSHOT
            checkpoint.save(path, arrays, {"kind": "snapshot", "step": self.step})
            saved = f" Batch and weights are in {path}."
        raise DivergenceError(
            f"[train] expected finite numbers in step {self.step + 1}, got NaN or Inf in {place}; the "
            f"update was not applied.{saved} Try a smaller --lr, or clip_norm, and look at the data."
        )

    # Saving and resuming

    def _begin(self, resume: str | Path | None) -> None:
        self.epoch = self.batch = self.step = self._waited = 0
        self.best = self.best_epoch = None
        self._best_weights, self._sums, self._resumed_sums = {}, None, None
        folder = self.out if resume == "auto" else Path(resume) if resume is not None else None
        found = checkpoint.load_latest(folder) if folder is not None else None
        if resume is not None and resume != "auto" and found is None:
            raise CheckpointError(
                f"[resume] expected a checkpoint in {folder}, found none. Start without --resume."
            )
        if found is not None:
            self._restore(*found)
        if self.out is not None:
            self._prepare_folder(self.out, keep=found is not None)

    def _prepare_folder(self, out: Path, keep: bool) -> None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            if not keep:
                for name in ("metrics.jsonl", "timing.jsonl", checkpoint.LAST, checkpoint.PREVIOUS,
                             checkpoint.BEST, checkpoint.SNAPSHOT):  # fmt: skip
                    (out / name).unlink(missing_ok=True)
            text = json.dumps(self.config, indent=2, sort_keys=True) + "\n"
            write_atomically(out / "config.json", text.encode())
        except OSError as error:
            raise OSError(
                f"[train] expected a folder that can be written, but {out}: {error.strerror or error}. "
                "Choose another with --out."
            ) from error

    def _weights(self) -> dict[str, Any]:
        return {
            name: np.array(tensor.backend.to_numpy(tensor.data))
            for name, tensor in self.model.state_dict().items()
        }

    def _save(self) -> None:
        if self.out is None:
            return
        state = self.optimizer.state_dict()
        arrays = {f"model.{name}": a for name, a in self._weights().items()}
        arrays |= {f"optimizer.{name}": a for name, a in state["arrays"].items()}
        arrays |= {f"best.{name}": a for name, a in self._best_weights.items()}
        metrics = self.out / "metrics.jsonl"
        meta = {
            "kind": "run",
            "config": self.config,
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "best": None if self.best is None else self.best.hex(),
            "best_epoch": self.best_epoch,
            "waited": self._waited,
            "random": random.default_generator().state(),
            "sums": self._sums.state() if self._sums is not None and self.batch else None,
            "metrics_bytes": metrics.stat().st_size if metrics.exists() else 0,
            "optimizer": state["meta"],
        }
        checkpoint.save(
            self.out / checkpoint.LAST, arrays, meta, keep_as=self.out / checkpoint.PREVIOUS
        )

    def _restore(self, arrays: checkpoint.Arrays, meta: dict[str, Any]) -> None:
        _check_config(meta.get("config", {}), self.config)
        self.model.load_state_dict(checkpoint.part(arrays, "model."))
        self.optimizer.load_state_dict(
            {"arrays": checkpoint.part(arrays, "optimizer."), "meta": meta["optimizer"]}
        )
        self._best_weights = checkpoint.part(arrays, "best.")
        self.epoch, self.batch, self.step = meta["epoch"], meta["batch"], meta["step"]
        self.best = None if meta["best"] is None else float.fromhex(meta["best"])
        self.best_epoch, self._waited = meta["best_epoch"], meta["waited"]
        self._resumed_sums = meta["sums"]
        random.default_generator().load_state(meta["random"])
        if self.out is not None:
            metrics = self.out / "metrics.jsonl"
            if metrics.exists():  # lines of steps that are about to be run again
                with metrics.open("r+b") as file:
                    file.truncate(meta["metrics_bytes"])

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        if self.out is None:
            return
        clean = {
            k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()
        }
        with (self.out / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(clean) + "\n")

    # Small things

    def _upload(self, x: Any, y: Any) -> tuple[Tensor, Tensor]:
        """Bring a batch to the model's backend, in the model's float type: the declared upload."""
        parameter = next(iter(self.model.parameters()))
        backend = parameter.backend
        samples, target = np.asarray(x), np.asarray(y)
        dtype = parameter.dtype if samples.dtype.kind == "f" else None
        target_dtype = parameter.dtype if target.dtype.kind == "f" else None
        return (
            Tensor(backend.asarray(samples, dtype), backend),
            Tensor(backend.asarray(target, target_dtype), backend),
        )

    def _check_scalar(self, loss: Tensor) -> None:
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = loss.shape if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(
                f"[Trainer] expected the loss as a scalar tensor, got {shape}. Reduce it with mean() or "
                "sum()."
            )

    def _train_means(self) -> dict[str, float]:
        assert self._sums is not None  # an epoch has been run
        return {f"train_{name}": value for name, value in self._sums.means().items()}

    def _compile_seconds(self) -> float:
        count = getattr(self.backend, "compile_seconds", None)
        return float(count()) if count is not None else 0.0

    def _summary(
        self,
        train: dict[str, float],
        test: dict[str, float],
        seconds: float,
        compile_seconds: float,
        seen: int,
    ) -> Summary:
        fallbacks = {
            f"{op}: {reason}": count
            for (op, reason), count in self.backend.counters.fallbacks.items()
        }
        return Summary(
            epochs=self.epoch,
            steps=self.step,
            train_loss=train.get("train_loss"),
            test_loss=test.get("test_loss"),
            test_accuracy=test.get("test_accuracy"),
            seconds=seconds,
            samples_per_second=seen / seconds,
            compile_seconds=compile_seconds,
            stopped=self.stop_reason,
            best=self.best,
            best_epoch=self.best_epoch,
            fallbacks=fallbacks,
            metrics={**train, **test},
        )


def _batch_sizes(loader: DataLoader) -> list[int]:
    count, size = len(loader.dataset), loader.batch_size
    return [min(size, count - i * size) for i in range(len(loader))]


FREE_TO_CHANGE = ("epochs", "backend", "device")
"""What may differ between a run and its continuation."""


def _check_config(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key in sorted(set(saved) | set(now)):
        if key not in FREE_TO_CHANGE and saved.get(key) != now.get(key):
            raise CheckpointError(
                f"[resume] expected the run's {key} {saved.get(key)!r}, got {now.get(key)!r}. Use the "
                "same options, or start anew with another --out."
            )
