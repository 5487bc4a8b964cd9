"""Does training tolerate Winograd's F(4x4, 3x3)? Loss curves of three seeds against float64.

    python -m trine.bench.winograd_study --out bench/results/winograd-study.md

Two nets whose convolutions are 3x3 with stride 1, so that Winograd serves all but the first, train on
the digits in four arithmetics from the same weights, in the same order of data: float64 by the direct
kernel, float32 by the direct kernel, by F(2x2) and by F(4x4), forward and for the gradient of the
input. Rounding makes every float32 curve part from float64's in time; F(4x4) is harmless if its
curve parts no further than the direct kernel's does and ends at the same accuracy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import trine
import trine.functional as F
from trine import data, nn, optim
from trine.atomic import make_folder, write_text
from trine.kernels import registry

OPS = ("conv2d", "conv2d_input_grad")
TRUTH = ("float64", "tiles")
ARITHMETICS = (TRUTH, ("float32", "tiles"), ("float32", "winograd2"), ("float32", "winograd4"))
"""(dtype, kernel)."""
SEEDS = (0, 1, 2)
BATCH = 32


def lenet_like() -> nn.Sequential:
    """Two blocks of two 3x3 convolutions with maxima, two full layers; images 28x28."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * 49, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def alexnet_like() -> nn.Sequential:
    """AlexNet's five convolutions at half its small width, three full layers; images 28x28."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 96, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(96, 128, 3, padding=1), nn.ReLU(),
        nn.Conv2d(128, 96, 3, padding=1), nn.ReLU(),
        nn.Conv2d(96, 96, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(96 * 9, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


NETS: dict[str, Callable[[], nn.Sequential]] = {
    "LeNet-like": lenet_like,
    "AlexNet-like": alexnet_like,
}


def train(
    build: Callable[[], nn.Sequential], seed: int, dtype: str, kernel: str, epochs: int
) -> tuple[Any, float]:
    """Return the loss of every training step, float64 (steps,), and the test accuracy."""
    for op in OPS:
        registry.prefer(op, kernel)
    try:
        trine.seed(seed)
        model = build()
        model.to(dtype=dtype)
        splits = data.load("digits")
        loader = data.DataLoader(splits.train, BATCH, shuffle=True, seed=seed)
        optimizer = optim.Adam(model.parameters(), lr=1e-3)
        losses = []
        for epoch in range(epochs):
            for x, y, _ in loader.epoch(epoch):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(trine.tensor(x, dtype=dtype)), trine.tensor(y))
                loss.backward()
                optimizer.step()
                losses.append(float(loss.item()))
        with trine.no_grad():
            scores = model(trine.tensor(splits.test.x, dtype=dtype)).numpy()
        right = scores.argmax(1) == splits.test.y
        return np.array(losses), float(right.mean())
    finally:
        for op in OPS:
            registry.prefer(op, None)


def study(epochs: int, seeds: tuple[int, ...] = SEEDS) -> list[str]:
    """Train every net in every arithmetic and return the lines of a table."""
    lines = [
        "| net | seed | arithmetic | distance, first epoch | distance, all epochs "
        "| last epoch's loss | test accuracy |",
        "|---|---|---|---|---|---|---|",
    ]
    found: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for net, build in NETS.items():
        for seed in seeds:
            truth: Any = None
            for dtype, kernel in ARITHMETICS:
                losses, accuracy = train(build, seed, dtype, kernel, epochs)
                truth = losses if truth is None else truth
                steps = len(losses) // epochs
                apart = np.abs(losses - truth)
                lines.append(
                    f"| {net} | {seed} | {dtype} {kernel} | {apart[:steps].mean():.1e} "
                    f"| {apart.mean():.1e} | {losses[-steps:].mean():.4f} | {accuracy:.2%} |"
                )
                typer.echo(lines[-1])
                found[net, f"{dtype} {kernel}"].append((float(apart.mean()), accuracy))
    lines += ["", "## Means over the seeds", ""]
    lines += ["| net | arithmetic | distance, all epochs | test accuracy |", "|---|---|---|---|"]
    for (net, arithmetic), values in found.items():
        distance, accuracy = np.mean(values, axis=0)
        lines.append(f"| {net} | {arithmetic} | {distance:.1e} | {accuracy:.2%} |")
    return lines


def main(
    out: Annotated[Path, typer.Option(help="Write the table here (Markdown).")],
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each run.")] = 6,
) -> None:
    """Train two nets by direct and Winograd convolution and compare their losses with float64's."""
    make_folder(out.parent)
    trine.use("numba")
    lines = study(epochs)
    head = [
        "# Training by Winograd convolution",
        "",
        f"`python -m trine.bench.winograd_study --epochs {epochs} --out {out}`, digits, batch {BATCH}, "
        "Adam. Distance: the mean of |loss - loss in float64| over the steps.",
        "",
    ]
    write_text(out, "\n".join([*head, *lines, ""]))


if __name__ == "__main__":
    typer.run(main)
