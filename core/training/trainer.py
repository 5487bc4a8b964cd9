"""The training loop: epochs, steps, evaluation, checkpoints, and every way in which a run may end."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

import trine
import trine.functional as F
from trine import nn, optim, random
from trine.backends import Backend
from trine.data import DataLoader
from trine.dtypes import float64
from trine.errors import BackendError, CheckpointError, suggest
from trine.tensor import Tensor
from trine.training import checkpoint, state
from trine.training.batches import Batch, check_scalar, closable, detached, groups, learn
from trine.training.callbacks import Callback
from trine.training.diagnose import Guard, Window, diverged, first_nonfinite
from trine.training.metrics import Metric, Sums, accuracy, resolve
from trine.training.monitor import Mode, Monitor
from trine.training.progress import CompileNote, Progress, Silent, make_progress
from trine.training.records import RunFolder
from trine.training.signals import StopRequest
from trine.training.summary import Clock, Summary

log = logging.getLogger("trine")

CAPTURE = ("auto", "on", "off")


class Trainer:
    """Trains a model so that the run can be trusted, stopped and continued.

    loss(output, target) -> scalar, the mean over the batch (`loss_reduction="mean"`) or the sum.
    metrics: names, or name -> function(output, target) -> (sum, count). schedule: a
    `trine.optim.Schedule`. clip_norm: largest gradient norm. accumulate: batches a step, which then
    equals a step on one big batch. out: folder for config.json, metrics.jsonl, timing.jsonl and
    checkpoints, or None for none of these. seed: that of the default generator at the start of a
    new run; None leaves the generator alone. checkpoint_every: steps between checkpoints, besides
    one an epoch. log_every: steps after which a device is read. monitor, mode, min_delta: which
    result counts as better; patience: epochs without a better one before training stops; with
    `restore_best` the best weights are in the model at the end, whatever ended training. strict: a
    fallback from a kernel on the reference is an error.

    capture: "on" records the step and replays it (`trine.capture`; a CaptureError says why that
    cannot be), "auto" does so where it can, for models without hooks. Only for models
    and losses in which Python does the same in every step.

    pretrain: called once at the start of a new run, before its first step; not when a run is
    continued. A model that is an `nn.Learner` learns by its own rule; the loss is only measured.

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
        seed: int | None = None,
        progress: str = "auto",
        checkpoint_every: int | None = None,
        log_every: int = 20,
        patience: int | None = None,
        monitor: str = "test_loss",
        mode: Mode | None = None,
        min_delta: float = 0.0,
        restore_best: bool = False,
        loss_reduction: str = "mean",
        strict: bool = False,
        capture: str = "off",
        pretrain: Callable[[], None] | None = None,
    ) -> None:
        counts = (("accumulate", accumulate), ("log_every", log_every))
        for name, value in (*counts, ("checkpoint_every", checkpoint_every or 1)):
            if value < 1:
                raise ValueError(f"[Trainer] expected {name} >= 1, got {value}. Correct it.")
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(
                f"[Trainer] expected clip_norm > 0, got {clip_norm}. Or None for none."
            )
        if loss_reduction not in ("mean", "sum"):
            raise suggest("Trainer", "loss_reduction", loss_reduction, ("mean", "sum"))
        if capture not in CAPTURE:
            raise suggest("Trainer", "capture", capture, CAPTURE)
        if accumulate > 1 and isinstance(model, nn.Learner):
            raise ValueError(
                f"[Trainer] expected accumulate=1 for {type(model).__name__}, which learns by its own "
                f"rule, got {accumulate}. Make the batches larger."
            )
        self.model = model
        self.optimizer = optimizer
        self.loss = loss if loss is not None else F.cross_entropy
        self.metrics = resolve({"accuracy": accuracy} if metrics is None else metrics)
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.accumulate = accumulate
        self.callbacks = list(callbacks)
        self.folder = RunFolder(Path(out)) if out is not None else None
        self.config = dict(config or {})
        self.described: dict[str, Any] = {}
        self.seed = seed
        self.progress_kind = progress
        self.checkpoint_every = checkpoint_every
        self.log_every = log_every
        self.restore_best = restore_best
        self.loss_reduction = loss_reduction
        self.strict = strict
        self.capture = capture
        self.pretrain = pretrain
        self._run_update: Callable[..., Tensor] = self._update
        self._numbers: dict[Any, dict[str, int]] = {}
        """Over how many samples a step's sums go, by the shapes of its batches."""
        self._monitor = (monitor, mode, patience, min_delta)
        self._progress: Progress = Silent()
        self._note: AbstractContextManager[None] = nullcontext()
        self._reset()

    def _reset(self) -> None:
        """Stand at the start of a run."""
        self.epoch = self.batch = self.step = 0
        """Epochs finished, batches done of the current one, steps done in all."""
        self.monitor = Monitor(*self._monitor)
        self.best_weights: checkpoint.Arrays = {}
        self.train_means: dict[str, float] = {}
        self.test_means: dict[str, float] = {}
        self.ended: tuple[str, int] | None = None
        """Why a callback ended the run after an epoch, and out of how many it was to have."""
        self.stop_reason: str | None = None
        self.sums = Sums(self.backend, ["loss", "norm", *self.metrics])

    @property
    def backend(self) -> Backend:
        """The backend on which the model lives."""
        return next(iter(self.model.parameters())).backend

    @property
    def out(self) -> Path | None:
        """The run's folder."""
        return self.folder.path if self.folder is not None else None

    @property
    def _interrupted(self) -> bool:
        return self.stop_reason is not None and self.stop_reason == self._request.name

    @property
    def best(self) -> float | None:
        """The best value of the monitored result."""
        return self.monitor.best

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
        checkpoint that does not fit, BackendError when memory runs out, OSError for a full disk.
        """
        if epochs < 1:
            raise ValueError(f"[fit] expected epochs >= 1, got {epochs}. Correct it.")
        self._check_monitor(test_loader)
        backend = self.backend
        clock = Clock(backend)
        strict_before, backend.strict = backend.strict, self.strict or backend.strict
        try:
            self._begin(train_loader, resume, epochs)
            self._guard = Guard(self.optimizer, self.clip_norm, self.log_every)
            self._run_update = self._captured() if self.capture != "off" else self._update
            self._clock, self._progress = clock, make_progress(self.progress_kind)
            self._note = CompileNote(self._progress) if clock.compiles else nullcontext()
            with StopRequest() as self._request, closing(self._progress):
                self._progress.start(epochs, len(train_loader))
                for callback in self.callbacks:
                    callback.on_train_start(self)
                while self.epoch < epochs and self.stop_reason is None:
                    self._one_epoch(train_loader, test_loader, epochs, max_steps)
                self._say_how_it_ended()
            summary = self._summary(clock)
            for callback in self.callbacks:
                callback.on_train_end(self)
            return summary
        except MemoryError as error:
            raise self._out_of_memory(train_loader) from error
        except BackendError as error:
            if isinstance(error.__cause__, MemoryError):  # the allocator has named the arrays
                raise self._out_of_memory(train_loader, str(error)) from error
            raise
        finally:
            backend.strict = strict_before
            if self.restore_best and self.best_weights:
                self.model.load_state_dict(self.best_weights)

    def evaluate(self, loader: DataLoader) -> dict[str, float]:
        """Return the mean loss and metrics over a loader, the model in evaluation mode."""
        with StopRequest() as self._request:
            measured = self._evaluate(loader)
        if measured is None:
            raise KeyboardInterrupt
        return measured

    def _one_epoch(
        self, loader: DataLoader, test_loader: DataLoader | None, epochs: int, limit: int | None
    ) -> None:
        """Train what is left of an epoch, evaluate, take stock, save; or stop on the way and save."""
        started = time.perf_counter()
        self._train(loader, limit)
        if self.stop_reason is not None and self.batch < len(loader):
            self._save()
            return
        self.train_means = {f"train_{k}": v for k, v in self.sums.means().items() if k != "norm"}
        if test_loader is not None:
            measured = self._evaluate(test_loader)
            if measured is None:  # the training of this epoch is done, its evaluation is not
                self.stop_reason = self._request.name
                self._save()
                return
            for callback in self.callbacks:
                callback.on_evaluate(self, measured)
            self.test_means = {f"test_{k}": v for k, v in measured.items()}
        self._take_stock(time.perf_counter() - started, epochs)

    def _train(self, loader: DataLoader, limit: int | None) -> None:
        self.model.train()
        with closing(closable(loader.epoch(self.epoch, self.batch))) as batches:
            for group in groups(batches, self.accumulate):
                if self.stop_reason is None and self._request.name is not None:
                    self.stop_reason = self._request.name
                elif limit is not None and self.step >= limit:
                    self.stop_reason = self.stop_reason or f"max_steps={limit}"
                if self.stop_reason is not None:
                    break
                with self._clock.training(sum(len(x) for x, _, _ in group)), self._note:
                    self._step(group)
                self._note = nullcontext()
                self.batch += len(group)
                if self._progress.due() and self._readable():
                    shown = {"train_loss": self.sums.means()["loss"]}
                    rate = self._clock.samples_per_second()
                    self._progress.step(self.epoch + 1, self.batch, shown, rate)
                for callback in self.callbacks:
                    callback.on_step_end(self)
                due = self.checkpoint_every and self.step % self.checkpoint_every == 0
                if due and self.batch < len(loader):
                    self._save()
        self._look(self._guard.look())

    def _readable(self) -> bool:
        return self.backend.device == "cpu" or self.step % self.log_every == 0

    def _step(self, group: list[Batch]) -> None:
        """One optimiser step over a group of batches, as if they were one."""
        window = Window(group, self.epoch, self.step, random.default_generator().state())
        if self.schedule is not None:
            when = self.epoch if self.schedule.interval == "epoch" else self.step
            self.schedule.apply(self.optimizer, when)
        batches = [tensor for x, y, _ in group for tensor in self._upload(x, y)]
        probe = self._run_update(*batches)
        self.sums.count(self._numbers[_shapes(batches)])
        self._look(self._guard.see(window, probe.data))
        self.step += 1

    def _update(self, *batches: Tensor) -> Tensor:
        """What a step does on the device, with batches x, y, x, y, ...; returns the guard's probe.

        Where NaN or Inf turns up the optimiser's step changes nothing.
        """
        pairs = list(zip(batches[::2], batches[1::2], strict=True))
        samples = sum(x.shape[0] for x, _ in pairs)
        numbers: Counter[str] = Counter()
        self.optimizer.zero_grad()
        total: Any = None
        for x, y in pairs:
            weighted = self.loss_reduction == "mean" and len(pairs) > 1
            share = x.shape[0] / samples if weighted else 1.0
            output, loss = learn(self.model, self.loss, x, y, share)
            part = loss.detach() * share if weighted else loss.detach()
            total = part if total is None else total + part
            numbers.update(self._count(self.sums, loss, output, y, x.shape[0]))
        norm, probe = self._guard.protect(total.data)
        self.optimizer.step()
        self.sums.add("norm", Tensor(norm, self.backend))
        self._numbers[_shapes(batches)] = {**numbers, "norm": 1}
        return Tensor(probe, self.backend)

    def _count(
        self, sums: Sums, loss: Tensor, output: Any, target: Tensor, samples: int
    ) -> dict[str, int]:
        """Add a batch to running sums, on the device; return over how many samples each goes."""
        numbers = {"loss": samples}
        with trine.no_grad():
            value = loss.detach().astype(float64)
            sums.add("loss", value * samples if self.loss_reduction == "mean" else value)
            for name, metric in self.metrics.items():
                found, numbers[name] = metric(detached(output), target)
                sums.add(name, found)
        return numbers

    def _evaluate(self, loader: DataLoader) -> dict[str, float] | None:
        """Return the means over a loader, or None if a signal came; randomness is as before then."""
        sums = Sums(self.backend, ["loss", *self.metrics])
        training, generator = self.model.training, random.default_generator()
        drawn = generator.state()
        self.model.eval()
        try:
            with trine.no_grad(), closing(closable(loader.epoch(0))) as batches:
                for x, y, _ in batches:
                    if self._request.name is not None:
                        return None
                    samples, target = self._upload(x, y)
                    output = self.model(samples)
                    loss = self.loss(output, target)
                    check_scalar(loss)
                    sums.count(self._count(sums, loss, output, target, len(x)))
        finally:
            generator.load_state(drawn)
            self.model.train(training)
        return sums.means()

    def _take_stock(self, seconds: float, epochs: int) -> None:
        """The end of an epoch: is it the best, is it enough, and write everything down."""
        results = {**self.train_means, **self.test_means}
        norm = self.sums.means()["norm"]
        self.epoch += 1
        if self.monitor.see(results, self.epoch):
            self.best_weights = state.weights(self.model)
            if self.out is not None:
                arrays = state.under("model", self.best_weights)
                facts = {"kind": "best", "epoch": self.epoch, self.monitor.name: self.best}
                checkpoint.save(self.out / checkpoint.BEST, arrays, facts)
        for callback in self.callbacks:
            callback.on_epoch_end(self, results)
        self.ended = None if self.stop_reason is None else (self.stop_reason, epochs)
        if self.epoch < epochs:
            self.stop_reason = self.stop_reason or self.monitor.exhausted()
        if self.folder is not None:
            row = {"epoch": self.epoch, "step": self.step, **results, "gradient_norm": norm}
            times = {"epoch": self.epoch, "seconds": round(seconds, 4), **self._clock.report()}
            self.folder.epoch(row, times)
        self.batch = 0
        self.sums.clear()
        self._save()
        self._progress.epoch(self.epoch, results, seconds)

    # Trouble

    def _look(self, bad: Window | None) -> None:
        """Raise DivergenceError for a step that met NaN or Inf; its update did not happen."""
        if bad is None:
            return
        self.step = bad.step
        random.default_generator().load_state(bad.random)
        place = first_nonfinite(
            self.model, [self._upload(x, y) for x, y, _ in bad.batches], self.loss
        )
        file = self.out / checkpoint.SNAPSHOT if self.out is not None else None
        raise diverged(bad, place, state.weights(self.model), file)

    def _out_of_memory(self, loader: DataLoader, detail: str | None = None) -> BackendError:
        size = loader.batch_size
        report = detail if detail is not None else self.backend.memory_report()
        return BackendError(
            f"[train] expected memory for batches of {size} samples on {self.backend.name}, but there "
            f"is no more. Use a batch size below {size}, with accumulate to make up for it. {report}"
        )

    def _say_how_it_ended(self) -> None:
        if self.stop_reason is None:
            return
        text = f"stopped ({self.stop_reason}) after step {self.step}"
        if self._interrupted and self.out is not None:
            text += f"; saved in {self.out}, continue with --resume auto (fit(..., resume='auto'))"
        elif self._interrupted:
            text += "; nothing was saved, since the run has no folder (out)"
        self._progress.note(text)

    def _check_monitor(self, test_loader: DataLoader | None) -> None:
        name, _, patience, _ = self._monitor
        known = [f"train_{k}" for k in ("loss", *self.metrics)]
        known += [f"test_{k}" for k in ("loss", *self.metrics)] if test_loader is not None else []
        if name not in known and (patience is not None or self.restore_best or test_loader):
            raise ValueError(
                f"[Trainer] expected monitor among {', '.join(known)}, got {name!r}. Name one of them, "
                "or pass a test loader."
            )

    # Saving and resuming

    def _begin(self, loader: DataLoader, resume: str | Path | None, epochs: int) -> None:
        self._reset()
        self.described = {**state.describe(self, loader), "epochs": epochs}
        folder = self.out if resume == "auto" else Path(resume) if resume is not None else None
        found = checkpoint.load_latest(folder) if folder is not None else None
        if found is not None and folder is not None:
            state.restore(self, folder, *found)
            if self.ended is not None and epochs <= self.ended[1]:
                self.stop_reason = self.ended[0]
            if self.epoch < epochs:
                self.stop_reason = self.stop_reason or self.monitor.exhausted()
            return
        if resume is not None and resume != "auto":
            raise CheckpointError(
                f"[resume] expected a checkpoint in {folder}, found none. Start without --resume."
            )
        if self.seed is not None:
            random.seed(self.seed)
        if self.folder is not None:
            self.folder.begin(self.described)
        if self.pretrain is not None:
            self.pretrain()

    def _save(self) -> None:
        """Write the state between two steps; nothing without a folder."""
        self._look(self._guard.look())  # never over a bad step that was not looked at yet
        if self.out is not None:
            last, previous = self.out / checkpoint.LAST, self.out / checkpoint.PREVIOUS
            checkpoint.save(last, *state.capture(self), keep_as=previous)

    # Small things

    def _captured(self) -> Callable[..., Tensor]:
        """Return the update as a captured step, or as it stands where "auto" cannot capture it."""
        if self.capture == "auto" and any(module.has_hooks for module in self.model.modules()):
            return self._update
        step: Callable[..., Tensor] = trine.capture(self._update, fallback=self.capture == "auto")
        return step

    def _upload(self, x: Any, y: Any) -> tuple[Tensor, Tensor]:
        """Bring a batch to the model's backend, in the model's float type: the declared upload."""
        parameter = next(iter(self.model.parameters()))
        backend = parameter.backend
        tensors = []
        for array in (np.asarray(x), np.asarray(y)):
            dtype = parameter.dtype if array.dtype.kind == "f" else None
            tensors.append(Tensor(backend.asarray(array, dtype), backend))
        return tensors[0], tensors[1]

    def _summary(self, clock: Clock) -> Summary:
        train, test = self.train_means, self.test_means
        if self.batch or not train:  # an epoch that was stopped on the way
            train = {f"train_{k}": v for k, v in self.sums.means().items() if k != "norm"}
        if self.restore_best and self.best_weights:
            results = self.monitor.best_results
            test = {k: v for k, v in results.items() if k.startswith("test_")}
        replayed = getattr(self._run_update, "replays", 0)
        return Summary(
            replayed_steps=replayed,
            epochs=self.epoch,
            steps=self.step,
            train_loss=train.get("train_loss"),
            test_loss=test.get("test_loss"),
            test_accuracy=test.get("test_accuracy"),
            stopped=self.stop_reason,
            interrupted=self._interrupted,
            best=self.best,
            best_epoch=self.monitor.best_epoch or None,
            metrics={**train, **test},
            **clock.summary(),
        )


def _shapes(tensors: Sequence[Tensor]) -> tuple[tuple[int, ...], ...]:
    return tuple(tensor.shape for tensor in tensors)
