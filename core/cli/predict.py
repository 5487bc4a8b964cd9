"""`trine predict`: what a trained model says of inputs."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import data, models, nn
from trine.cli import setup
from trine.cli.output import console, emit_json, table
from trine.errors import CheckpointError
from trine.models.registry import System
from trine.training import load_weights


def load_run(run: Path, backend: str, device: int) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model of a run's folder with its best weights, and the run's configuration.

    Raises CheckpointError if the folder holds no run.
    """
    config_file = run / "config.json"
    if not config_file.is_file():
        raise CheckpointError(
            f"[predict] expected the folder of a training run, found no {config_file}. Train one: "
            "trine train lenet5"
        )
    config: dict[str, Any] = json_module.loads(config_file.read_text())
    system = models.get(config["model"])
    chosen, _ = setup.choose_backend(backend, device, system.parameters)
    assert system.build is not None  # only trainable systems leave runs
    model = system.build().to(chosen.name)
    model.to(dtype=config["dtype"])
    load_weights(model, run)
    model.eval()
    return model, config


def run(
    folder: Path,
    inputs: Sequence[str],
    *,
    data_dir: Path | None,
    backend: str,
    device: int,
    seed: int,
    json: bool,
) -> None:
    """Print class and probability of each input, or what a model of language makes of each text."""
    model, config = load_run(folder, backend, device)
    system = models.get(config["model"])
    if system.reads is not None:
        trine.seed(seed)
        _print_texts(_read_texts(system, model, config, inputs, data_dir), json=json)
        return
    rows = []
    for text in inputs:
        samples, labels = read_input(text, data_dir)
        with trine.no_grad():
            x = trine.tensor(samples, dtype=config["dtype"])
            out = model(x)
            scores = _probabilities(system, out)
        for i, row in enumerate(scores):
            best = int(np.argmax(row))
            rows.append(
                {
                    "input": text if len(scores) == 1 else f"{text}[{i}]",
                    "class": best,
                    "probability": float(row[best]),
                    "label": None if labels is None else int(labels[i]),
                }
            )
    if json:
        emit_json(rows)
        return
    table(
        None,
        ("input", "class", "probability", "label"),
        [
            (
                r["input"],
                r["class"],
                f"{r['probability']:.4f}",
                "" if r["label"] is None else r["label"],
            )
            for r in rows
        ],
    )


def _probabilities(system: System, out: Any) -> npt.NDArray[Any]:
    """Return the probabilities of the classes, (N, K), by a model's output.

    Raises ValueError for one that classifies nothing.
    """
    rows = isinstance(out, trine.Tensor) and out.ndim == 2
    if not rows or "accuracy" not in system.metrics:
        what = (
            f"{tuple(out.shape)} numbers" if isinstance(out, trine.Tensor) else type(out).__name__
        )
        raise ValueError(
            "[predict] expected a model that gives a row of scores of classes for each input, but "
            f"{system.name} gives {what}, no classes. Use trine.training.load_weights and its own "
            "methods."
        )
    if out.shape[1] == 1:  # one number, the probability of class 1
        return np.concatenate([1.0 - out.numpy(), out.numpy()], axis=1)
    return F.softmax(out, dim=1).numpy()


def _read_texts(
    system: System,
    model: nn.Module,
    config: dict[str, Any],
    inputs: Sequence[str],
    data_dir: Path | None,
) -> list[dict[str, Any]]:
    """Return what a model of language makes of texts, by the vocabulary of its run's data."""
    splits = system.splits(str(data_dir) if data_dir else None, config["data"])
    assert system.reads is not None  # the caller has looked
    return [{"input": text, **system.reads(model, splits, text)} for text in inputs]


def _print_texts(rows: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        emit_json(rows)
        return
    for row in rows:
        first = ", ".join(f"{s['symbol']!r} {s['probability']:.3f}" for s in row["likely"])
        console.print(f"likely: {first}\n{row['text']}\n", highlight=False, markup=False)


def read_input(
    text: str, data_dir: Path | None
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Return samples (N, ...) and perhaps labels of an .npy file or of DATA:INDEX.

    Raises FileNotFoundError or ValueError for an input that cannot be read.
    """
    name, colon, index = text.rpartition(":")
    if colon and index.isdigit() and not Path(text).exists():
        test = data.load(name, data_dir=str(data_dir) if data_dir else None).test
        i = int(index)
        if i >= len(test):
            raise ValueError(
                f"[predict] expected an index below {len(test)} for the test set of {name}, got {i}."
            )
        return test.x[i : i + 1], test.y[i : i + 1]
    file = Path(text)
    if not file.is_file():
        raise FileNotFoundError(
            f"[predict] expected an .npy file or DATA:INDEX such as digits:0, got {text!r}, which is no "
            "file. Check the path."
        )
    array = np.load(file, allow_pickle=False)
    if array.dtype.kind not in "buif":
        raise ValueError(f"[predict] expected numbers in {file}, got {array.dtype}. Convert them.")
    return (
        array if array.ndim > 1 and array.shape[0] > 0 and array.ndim != 3 else array[None]
    ), None
