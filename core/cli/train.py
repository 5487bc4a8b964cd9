"""`trine train` and `trine warmup`: from a system's name to a finished run."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trine
from trine import models, nn, optim
from trine.cli import setup
from trine.cli.output import console, emit_json, notes
from trine.data import DataLoader, Splits
from trine.errors import suggest
from trine.models.explanation import Explanation
from trine.models.registry import System
from trine.training import StopAt, Summary, Trainer
from trine.training.batches import learn

OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": optim.SGD,
    "unit": optim.UnitDescent,
    "rmsprop": optim.RMSprop,
    "adagrad": optim.Adagrad,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
}


@dataclass(frozen=True)
class Options:
    """What the command line says of a run; None stands for the system's own choice."""

    name: str
    data: str | None = None
    data_dir: Path | None = None
    backend: str = "auto"
    device: int = 0
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    optimizer: str | None = None
    seed: int = 0
    dtype: str = "float32"
    precision: str = "fp32"
    threads: int | None = None
    kernels: tuple[str, ...] = ()
    kernel_files: tuple[Path, ...] = ()
    out: Path | None = None
    resume: str | None = None
    plot: bool = False
    progress: str = "auto"
    capture: str = "auto"


@dataclass(frozen=True)
class Run:
    """Everything of a run, ready to be trained."""

    system: System
    model: nn.Module
    splits: Splits
    train_loader: DataLoader
    test_loader: DataLoader
    trainer: Trainer
    epochs: int
    out: Path


def trainable_system(name: str) -> System:
    """Return a system that can be trained; raises ValueError for one that is only explained."""
    system = models.get(name)
    if not system.trainable:
        raise ValueError(
            f"[train] expected a system that trains, got {name!r}, which is a worked example. Run: "
            f"trine explain {name}"
        )
    return system


def load_splits(system: System, name: str | None, data_dir: Path | None) -> Splits:
    """Return the named data set, or the system's own."""
    folder = str(data_dir) if data_dir is not None else None
    return system.splits(folder, name)


def make_optimizer(system: System, options: Options, model: nn.Module) -> optim.Optimizer:
    """Return the optimiser that the options or the system name."""
    name = options.optimizer or system.optimizer
    if name not in OPTIMIZERS:
        raise suggest("train", "optimizer", name, OPTIMIZERS)
    extra = dict(system.optimizer_args) if name == system.optimizer else {}
    lr = options.lr if options.lr is not None else system.lr
    return OPTIMIZERS[name](model.parameters(), lr=lr, **extra)


def make_schedule(system: System, optimizer: optim.Optimizer, steps: int) -> optim.Schedule | None:
    """Return the system's schedule over a run of so many steps."""
    arguments = dict(system.schedule_args)
    if system.schedule is None:
        return None
    if system.schedule == "cosine":
        return optim.CosineAnnealingLR(optimizer, max(steps, 1), **arguments)
    if system.schedule == "step":
        return optim.StepLR(optimizer, **arguments)
    if system.schedule == "warmup-cosine":
        return optim.WarmupCosine(optimizer, total_steps=max(steps, 1), **arguments)
    raise suggest("train", "schedule", system.schedule, ("cosine", "step", "warmup-cosine"))


def prepare(options: Options) -> Run:
    """Choose the backend, build the model and everything around it."""
    setup.load_kernel_files(options.kernel_files)
    setup.prefer_kernels(options.kernels)
    setup.set_threads(options.threads)
    system = trainable_system(options.name)
    trine.seed(options.seed)
    backend, reason = setup.choose_backend(options.backend, options.device, system.parameters)
    notes.print(f"backend: {reason}", highlight=False)
    setup.set_precision(backend, options.precision, options.dtype)
    splits = load_splits(system, options.data, options.data_dir)
    assert system.build is not None  # trainable_system has made sure
    trine.seed(options.seed)
    model = system.build()
    model.to(backend.name)
    model.to(dtype=options.dtype)
    batch_size = options.batch_size or system.batch_size
    epochs = options.epochs or system.epochs
    train_loader = DataLoader(splits.train, batch_size, shuffle=True, seed=options.seed)
    test_loader = DataLoader(splits.test, max(batch_size, 256))
    optimizer = make_optimizer(system, options, model)
    schedule = make_schedule(system, optimizer, epochs * len(train_loader))
    out = options.out if options.out is not None else Path("runs") / options.name
    config = {
        "model": options.name,
        "data": options.data or system.data_name,
        "seed": options.seed,
        "dtype": options.dtype,
        "batch_size": batch_size,
        "epochs": epochs,
        "optimizer": options.optimizer or system.optimizer,
        "lr": options.lr if options.lr is not None else system.lr,
        "backend": backend.name,
        "device": backend.device,
    }
    trainer = Trainer(
        model,
        optimizer,
        system.loss,
        callbacks=[StopAt(*system.stop)] if system.stop is not None else [],
        metrics=system.metrics,
        schedule=schedule,
        clip_norm=system.clip_norm,
        out=out,
        config=config,
        seed=options.seed,
        progress=options.progress,
        capture=options.capture,
        pretrain=None if system.pretrain is None else partial(system.pretrain, model, splits),
    )
    return Run(system, model, splits, train_loader, test_loader, trainer, epochs, out)


def _shown(prepared: Run, backend: str, dtype: str) -> Explanation | None:
    """Return what a trained system shows, or the example that it reports instead."""
    system = prepared.system
    if system.shows is not None:
        prepared.model.eval()
        return system.shows(prepared.model, prepared.splits)
    if system.report and system.explain is not None:
        return system.explain(backend=backend, dtype=dtype)
    return None


def run(options: Options, *, json: bool) -> None:
    """Train and report."""
    prepared = prepare(options)
    resume = None if options.resume in (None, "auto") else Path(options.resume or "")
    summary = prepared.trainer.fit(
        prepared.train_loader,
        prepared.test_loader,
        epochs=prepared.epochs,
        resume="auto" if options.resume == "auto" else resume,
    )
    report = _report(prepared, options, summary)
    shown = None if summary.interrupted else _shown(prepared, report["backend"], options.dtype)
    if shown is not None:
        report["shown"] = shown.json()["rows"]
    _print_report(prepared.system, report)
    if shown is not None:
        console.print(shown.text(), highlight=False, markup=False)
    if options.plot:
        from trine.cli.plots import plot_run

        for file in plot_run(prepared, shown):
            notes.print(f"plot: {file}", highlight=False)
    if json:
        emit_json(report)
    if summary.interrupted:
        raise SystemExit(130 if summary.stopped == "SIGINT" else 143)  # as the shell expects


def _report(prepared: Run, options: Options, summary: Summary) -> dict[str, Any]:
    backend = next(iter(prepared.model.parameters())).backend
    return {
        "model": options.name,
        "data": options.data or prepared.system.data_name,
        "backend": backend.name,
        "device": backend.device,
        "dtype": options.dtype,
        "seed": options.seed,
        "parameters": prepared.system.parameters,
        **dataclasses.asdict(summary),
        "out": str(prepared.out),
    }


def _print_report(system: System, report: dict[str, Any]) -> None:
    accuracy = report.get("test_accuracy")
    parts = [f"test loss {report['test_loss']:.4f}"] if _is_number(report.get("test_loss")) else []
    if _is_number(accuracy):
        parts.append(f"test accuracy {accuracy:.2%}")
    console.print(
        f"{report['model']} on {report['data']}, {report['backend']}: "
        f"train loss {report['train_loss']:.4f}, {', '.join(parts)}\n"
        f"{report['epochs']} epochs, {report['steps']} steps in {report['seconds']:.1f} s "
        f"({report['samples_per_second']:,.0f} samples/s; compiling took "
        f"{report['compile_seconds']:.1f} s)\n"
        f"saved in {report['out']}; next: trine explain {report['out']} --sample 0",
        highlight=False,
    )
    for line in system.check(report):
        notes.print(f"note: {line}", highlight=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def warmup(name: str, threads: int | None) -> float:
    """Run two steps of a system on the numba backend; return how long that took in seconds."""
    setup.set_threads(threads)
    system = trainable_system(name)
    backend, _ = setup.choose_backend("numba", 0)
    started = time.perf_counter()
    splits = system.splits(None)
    assert system.build is not None and system.loss is not None  # noqa: PT018
    model = system.build().to(backend.name)
    optimizer = make_optimizer(system, Options(name), model)
    loader = DataLoader(splits.train, system.batch_size)
    for batch, (x, y, _index) in enumerate(loader.epoch(0)):
        if batch == 2:
            break
        optimizer.zero_grad()
        learn(model, system.loss, trine.as_tensor(x), trine.as_tensor(y))
        optim.clip_grad_norm_(optimizer, math.inf)
        optimizer.step()
    return time.perf_counter() - started
