"""`trine profile`: where the time of a training step goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trine
from trine import nn
from trine.cli import setup
from trine.cli.output import console, emit_json, notes, table
from trine.cli.train import Options, load_splits, make_optimizer, trainable_system
from trine.profiler import profile

WARMUP = 2
"""Steps before: kernels are compiled, the pool has its blocks."""


def run(options: Options, *, steps: int, trace: Path | None, json: bool) -> None:
    """Profile some training steps of a system on one batch of its data."""
    setup.load_kernel_files(options.kernel_files)
    setup.prefer_kernels(options.kernels)
    setup.set_threads(options.threads)
    system = trainable_system(options.name)
    trine.seed(options.seed)
    backend, reason = setup.choose_backend(options.backend, options.device, system.parameters)
    notes.print(f"backend: {reason}", highlight=False)
    batch = options.batch_size or system.batch_size
    splits = load_splits(system, options.data, options.data_dir)
    assert system.build is not None  # trainable systems have both
    assert system.loss is not None
    model = system.build().to(backend.name)
    model.to(dtype=options.dtype)
    model.train()
    x, y = splits.train.x[:batch], splits.train.y[:batch]
    inputs, target = (setup.as_model_input(a, options.dtype) for a in (x, y))
    optimizer = make_optimizer(system, options, model)

    def step(found: profile) -> None:
        if isinstance(model, nn.Learner):
            with found.phase("rule"):
                optimizer.zero_grad()
                model.learn(inputs, target)
            with found.phase("update"):
                optimizer.step()
            return
        with found.phase("forward"):
            optimizer.zero_grad()
            loss = system.loss(model(inputs), target)  # type: ignore[misc]
        with found.phase("backward"):
            loss.backward()
        with found.phase("update"):
            optimizer.step()

    for _ in range(WARMUP):
        with profile() as ignored:
            step(ignored)
    with profile() as found:
        for _ in range(steps):
            step(found)
    if trace is not None:
        found.write_trace(trace)
        notes.print(f"written: {trace} (chrome://tracing, ui.perfetto.dev)", highlight=False)
    report: dict[str, Any] = {
        "model": options.name, "backend": backend.name, "dtype": options.dtype,
        "batch_size": len(x), "steps": steps, **found.as_dict(),
    }  # fmt: skip
    if json:
        emit_json(report)
    else:
        show(found, steps, f"{options.name} on {backend.name}, batch {len(x)}")


def show(found: profile, steps: int, title: str) -> None:
    """Print the table, all figures a step."""
    whole = found.seconds or 1.0
    table(
        title,
        ("phase", "op", "kernel", "calls", "ms", "share", "MB out", "copies", "fallbacks"),
        [
            (
                row.phase, row.op, f"{row.backend} {row.kernel}", f"{row.calls / steps:g}",
                f"{1e3 * row.seconds / steps:.3f}", f"{100 * row.seconds / whole:.1f}%",
                f"{row.out_bytes / steps / 1e6:.2f}", f"{row.copies / steps:g}",
                f"{row.fallbacks / steps:g}",
            )
            for row in found.rows()
        ],
    )  # fmt: skip
    console.print(
        f"{1e3 * found.seconds / steps:.3f} ms a step, {1e3 * found.outside / steps:.3f} ms of them "
        f"outside of ops (Python, the tape); at most {found.peak_bytes / 2**20:.1f} MiB in the pool",
        highlight=False,
    )
