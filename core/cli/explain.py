"""`trine explain`: the numbers behind a worked example, or behind a run's prediction."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np

from trine import atomic, models
from trine.cli import setup
from trine.cli.anatomy_view import show_anatomy
from trine.cli.inspect import require_gradients
from trine.cli.output import console, emit_json, notes, table
from trine.cli.predict import load_run
from trine.models.explanation import Explanation
from trine.models.lesson import lesson_of

PAGE_STEPS = 20
"""Training steps of an example's page, unless others are asked for."""


def run(
    target: str | None,
    *,
    sample: int,
    step: int | None,
    html: Path | None,
    csv: Path | None,
    list_examples: bool,
    backend: str,
    device: int,
    dtype: str,
    json: bool,
) -> None:
    """Explain an example or a run, or list the examples."""
    if list_examples or target is None:
        _list(json=json)
        return
    if Path(target).is_dir() and (
        (Path(target) / "config.json").exists() or target not in models.names()
    ):
        if step is not None:
            raise ValueError(
                "[explain] expected an example for --step, got the folder of a run, which holds the net "
                "after its last step. Leave out --step."
            )
        _explain_run(
            Path(target), sample=sample, html=html, csv=csv, backend=backend, device=device,
            json=json,
        )  # fmt: skip
        return
    _explain_example(
        target, sample=sample, step=step, html=html, csv=csv, backend=backend, device=device,
        dtype=dtype, json=json,
    )  # fmt: skip


def _list(*, json: bool) -> None:
    systems = [models.get(name) for name in models.names()]
    rows = [
        {"name": s.name, "source": s.source, "summary": s.summary} for s in systems if s.explain
    ]
    if json:
        emit_json(rows)
        return
    table(None, ("name", "source", "summary"), [tuple(r.values()) for r in rows])


def _explain_example(
    name: str,
    *,
    sample: int,
    step: int | None,
    html: Path | None,
    csv: Path | None,
    backend: str,
    device: int,
    dtype: str,
    json: bool,
) -> None:
    system = models.get(name)
    chosen, _ = setup.choose_backend(backend, device, 0)
    options = {}
    worked = system.explain
    if step is not None and worked is not None and "step" in inspect.signature(worked).parameters:
        options["step"] = step
    explanation = models.explain(name, backend=chosen.name, dtype=dtype, **options)
    files = html is not None or csv is not None  # a terminal shows one step only: the first
    steps = step if step is not None else PAGE_STEPS if files else 0
    if steps or not explanation.anatomies:
        explanation.anatomies = lesson_of(system, chosen.name, dtype, steps)
    if step is not None and not explanation.anatomies:
        raise ValueError(
            f"[explain] expected an example that is trained in steps, got {name!r}. Leave out --step."
        )
    samples = len(explanation.anatomies[0][1].input) if explanation.anatomies else 1
    if sample >= samples:
        raise ValueError(
            f"[explain] expected a sample of the lesson, below {samples}, got {sample}. Try --sample 0."
        )
    explanation.sample = sample
    _present(explanation, html, csv, json=json)
    if not explanation.ok:
        raise SystemExit(1)


def _explain_run(
    folder: Path, *, sample: int, html: Path | None, csv: Path | None, backend: str, device: int,
    json: bool,
) -> None:  # fmt: skip
    if backend == "auto":
        backend = "numpy"  # one sample, once: less than it takes to start another
    model, config = load_run(folder, backend, device)
    require_gradients("explain", config["model"], model)
    system = models.get(config["model"])
    named = isinstance(config["data"], str) and config["data"] != "made"
    splits = system.splits(None, config["data"] if named else None)
    if sample >= len(splits.test):
        raise ValueError(
            f"[explain] expected a sample below {len(splits.test)}, got {sample}. Choose another."
        )
    x, label = splits.test.x[sample : sample + 1], splits.test.y[sample : sample + 1]
    explanation = models.explain_model(
        model, setup.as_model_input(x, config["dtype"]), np.asarray(label), loss=system.loss,
        name=f"{config['model']}, test sample {sample}", rate=config.get("lr"),
    )  # fmt: skip
    _present(explanation, html, csv, json=json)


def _present(explanation: Explanation, html: Path | None, csv: Path | None, *, json: bool) -> None:
    """Write the files that are asked for and print the rest."""
    if html is not None:
        atomic.write_text(html, explanation.html())
        notes.print(f"page: {html}", highlight=False)
    if csv is not None:
        atomic.write_text(csv, explanation.csv())
        notes.print(f"table: {csv}", highlight=False)
    if json:
        emit_json(explanation.json())
        return
    console.print(explanation.text(console.width), highlight=False, markup=False, soft_wrap=True)
    if explanation.anatomies:
        step, anatomy = explanation.anatomies[-1]
        show_anatomy(console, step, anatomy, explanation.sample)
