"""`trine explain`: the numbers behind a worked example, or behind a run's prediction."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np

from trine import atomic, models
from trine.cli import setup
from trine.cli.output import console, emit_json, notes, table
from trine.cli.predict import load_run


def run(
    target: str | None,
    *,
    sample: int,
    step: int | None,
    html: Path | None,
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
    if Path(target).is_dir():
        _explain_run(
            Path(target), sample=sample, html=html, backend=backend, device=device, json=json
        )
        return
    _explain_example(
        target, step=step, html=html, backend=backend, device=device, dtype=dtype, json=json
    )


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
    step: int | None,
    html: Path | None,
    backend: str,
    device: int,
    dtype: str,
    json: bool,
) -> None:
    system = models.get(name)
    if system.explain is None:
        raise ValueError(
            f"[explain] expected a worked example or the folder of a run, got {name!r}, which is only "
            f"trained. Run: trine train {name}, then trine explain runs/{name}. Examples: trine "
            "explain --list"
        )
    chosen, _ = setup.choose_backend(backend, device, 0)
    options = {}
    if step is not None:
        if "step" not in inspect.signature(system.explain).parameters:
            raise ValueError(
                f"[explain] expected an example that has steps, got {name!r}. Leave out --step."
            )
        options["step"] = step
    explanation = system.explain(backend=chosen.name, dtype=dtype, **options)
    if html is not None:
        atomic.write_text(html, explanation.html())
        notes.print(f"page: {html}", highlight=False)
    if json:
        emit_json(explanation.json())
    else:
        console.print(explanation.text(), highlight=False, markup=False)
    if not explanation.ok:
        raise SystemExit(1)


def _explain_run(
    folder: Path, *, sample: int, html: Path | None, backend: str, device: int, json: bool
) -> None:
    model, config = load_run(folder, backend, device)
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
        name=f"{config['model']}, test sample {sample}",
    )  # fmt: skip
    if html is not None:
        atomic.write_text(html, explanation.html())
        notes.print(f"page: {html}", highlight=False)
    if json:
        emit_json(explanation.json())
    else:
        console.print(explanation.text(), highlight=False, markup=False)
