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
from trine.cli.output import emit_json, table
from trine.errors import CheckpointError
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
    json: bool,
) -> None:
    """Print class and probability of each input."""
    model, config = load_run(folder, backend, device)
    rows = []
    for text in inputs:
        samples, labels = read_input(text, data_dir)
        with trine.no_grad():
            x = trine.tensor(samples, dtype=config["dtype"])
            out = model(x)
            if not isinstance(out, trine.Tensor):
                raise ValueError(
                    f"[predict] expected a model that gives a row of scores for each input, but "
                    f"{config['model']} gives {type(out).__name__}. Use trine.training.load_weights "
                    "and its own methods."
                )
            scores = F.softmax(out, dim=1).numpy() if out.ndim == 2 else out.numpy()
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
