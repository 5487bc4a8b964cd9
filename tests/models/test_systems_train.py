"""Trained systems reach what their row promises, by their own settings (reduced where slow)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import trine
from trine import models, nn, optim
from trine.data import DataLoader, Splits
from trine.models.registry import System

KINDS = {"sgd": optim.SGD, "adam": optim.Adam}
LENET5: dict[int, float] = {}
"""Accuracy by seed, of the nets that were trained."""


def train(system: System, splits: Splits, *, epochs: int | None = None, seed: int = 0) -> nn.Module:
    """Train by the system's own settings, without the Trainer."""
    assert system.build is not None
    assert system.loss is not None
    trine.seed(seed)
    model = system.build()
    epochs = epochs or system.epochs
    loader = DataLoader(splits.train, system.batch_size, shuffle=True, seed=seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer: Any = KINDS[system.optimizer](parameters, lr=system.lr, **system.optimizer_args)
    schedule = None
    if system.schedule == "cosine":
        schedule = optim.CosineAnnealingLR(optimizer, epochs * len(loader))
    step = 0
    for epoch in range(epochs):
        for x, y, _ in loader.epoch(epoch):
            if schedule is not None:
                schedule.apply(optimizer, step)
            optimizer.zero_grad()
            system.loss(model(trine.tensor(x)), trine.tensor(y)).backward()
            optimizer.step()
            step += 1
    return model


def accuracy(model: nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    model.eval()
    with trine.no_grad():
        out = model(trine.tensor(x)).numpy()
    return float((out.argmax(axis=1) == y).mean())


@pytest.mark.parametrize("name", ["two-digit", "little-demon", "lstm"])
def test_small_systems_learn(name: str, backend_name: str) -> None:
    system = models.get(name)
    splits = system.splits()
    model = train(system, splits)
    assert accuracy(model, splits.test.x, splits.test.y) >= system.expected["test_accuracy"]
    if name == "two-digit":
        assert accuracy(model, splits.train.x, splits.train.y) >= 62 / 64
    if name == "little-demon":
        assert accuracy(model, splits.train.x, splits.train.y) > 0.95


@pytest.mark.parametrize("seed", range(8))
def test_xor_is_learned_from_every_seed(seed: int) -> None:
    with trine.use("numpy"):
        system = models.get("xor")
        splits = system.splits()
        out = train(system, splits, seed=seed)(trine.tensor(splits.test.x)).detach().numpy()
    assert np.abs(out - splits.test.y).max() < 0.1


def test_the_boundary_of_xor_is_drawn_where_the_net_has_it(backend_name: str) -> None:
    system = models.get("xor")
    assert system.shows is not None
    splits = system.splits()
    untrained = system.shows(system.build(), splits)
    assert untrained.failures()
    note = system.shows(train(system, splits), splits)
    assert note.failures() == []
    plane = note.drawings["boundary"]
    low, high = 15, 45  # where an input is 0 and 1 on the 61 points from -0.5 to 1.5
    assert (plane.values[[low, high], [low, high]] < 0.1).all()
    assert (plane.values[[low, high], [high, low]] > 0.9).all()
    assert plane.extent == (-0.5, 1.5, -0.5, 1.5)


@pytest.mark.slow
def test_cnn_003_learns_colour_digits(train_system, backend_name: str) -> None:
    """Four epochs of six, at one and a half times the rate."""
    run = train_system("cnn-003", backend_name, epochs=4, lr=0.015)
    assert accuracy(run.model, run.splits.test.x, run.splits.test.y) >= 0.95


def test_cnn_003_has_the_sources_maps_and_kernels() -> None:
    with trine.use("numpy"):
        model = models.get("cnn-003").build()
        net = model.trace(trine.zeros(2, 3, 28, 28))
    kernels = [np.prod(layer.weight.shape[:2]) for layer in (model.conv1, model.conv2)]
    assert kernels == [18, 72]
    assert {name: tensor.shape[1:] for name, tensor in net.items()} == {
        "z1": (6, 24, 24), "c1": (6, 24, 24), "s1": (6, 12, 12), "z2": (12, 8, 8),
        "c2": (12, 8, 8), "s2": (12, 4, 4), "f": (192,), "z3": (10,), "h": (10,),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend_name", "epochs"), [("numpy", 30), ("numba", 60)], indirect=["backend_name"]
)
def test_mlp_reads_digits(train_system, backend_name: str, epochs: int) -> None:
    """All 60 epochs, by captured steps, as `trine train mlp` takes them; half of them on numpy."""
    run = train_system("mlp", backend_name, epochs=epochs)
    assert accuracy(run.model, run.splits.test.x, run.splits.test.y) >= 0.97


@pytest.fixture
def lenet5_accuracy(train_system, tmp_path) -> Callable[[int], float]:
    """Return what gives a seed's accuracy after all 25 epochs, as `trine train lenet5` takes them."""

    def of(seed: int) -> float:
        if seed not in LENET5:
            run = train_system("lenet5", "numba", seed=seed, out=tmp_path / str(seed))
            with trine.use("numba"):
                LENET5[seed] = accuracy(run.model, run.splits.test.x, run.splits.test.y)
        return LENET5[seed]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lenet5_reads_digits(seed: int, lenet5_accuracy) -> None:
    """Sixteen seeds gave 98.6 to 99.7 %."""
    assert lenet5_accuracy(seed) >= 0.98


@pytest.mark.slow
def test_lenet5_reads_985_digits_of_1000(lenet5_accuracy) -> None:
    """The median, since one digit of the 359 is 0.3 %, and other rounding trains another net."""
    assert np.median([lenet5_accuracy(seed) for seed in range(3)]) >= 0.985


@pytest.mark.parametrize(
    ("name", "epochs"), [("linear-regression", None), ("logistic-regression", 3)]
)
def test_regressions_find_their_coefficients(
    train_system, name: str, epochs: int | None, backend_name: str
) -> None:
    """Least squares to 1e-6; the ellipse's coefficients within 5%, after three epochs of ten."""
    run = train_system(name, backend_name, epochs=epochs)
    note = run.system.shows(run.model, run.splits)
    assert len(note.rows) == {"linear-regression": 4, "logistic-regression": 5}[name]
    assert note.failures() == []
    if name == "linear-regression":
        ones = np.ones((len(run.splits.train), 1))
        inputs = np.concatenate([run.splits.train.x.astype(np.float64), ones], axis=1)
        x, y = inputs, run.splits.train.y.astype(np.float64)
        best = np.linalg.solve(x.T @ x, x.T @ y)[:, 0]  # the normal equations
        found = np.append(run.model.weight.detach().numpy(), run.model.bias.detach().numpy())
        assert found == pytest.approx(best, abs=1e-6)
    else:
        assert run.model.theta() == pytest.approx([1.5, -1.0, -2.0, -1.0, 1.5], rel=0.05)
        border = note.drawings["border"].values
        assert border[40, 40] > 0.5 > border[0, 0]  # the middle lies inside, a corner outside


def test_hand_trains_by_name() -> None:
    with trine.use("numpy"):
        system = models.get("hand")
        splits = system.splits()
        model = train(system, splits, epochs=1)
        out = model(trine.tensor(splits.test.x))
        error = system.loss(out, trine.tensor(splits.test.y)).item()
    assert error == pytest.approx(0.29102777369359933, abs=1e-6)


def test_made_data_is_always_the_same_and_never_shared_between_sets() -> None:
    for name in ("two-digit", "little-demon"):
        first, second = models.get(name).splits(), models.get(name).splits()
        assert np.array_equal(first.train.x, second.train.x)
        train_images = {image.tobytes() for image in first.train.x}
        test_images = {image.tobytes() for image in first.test.x}
        assert len(train_images) == len(first.train)
        assert not train_images & test_images


def test_sizes_of_made_data() -> None:
    two, demon = models.get("two-digit").splits(), models.get("little-demon").splits()
    assert two.train.x.shape == (64, 1, 4, 3)
    assert demon.train.x.shape == (96, 1, 6, 6)
    assert np.bincount(demon.train.y).tolist() == [32, 32, 32]
    assert set(np.unique(two.train.x)) == {0.0, 1.0}


def test_lenet5_layers_have_the_papers_sizes() -> None:
    with trine.use("numpy"):
        model = models.get("lenet5").build()
        explanation = models.explain_model(
            model, trine.tensor(np.zeros((2, 1, 28, 28), dtype=np.float32)), np.array([3, 5])
        )
    shapes = {row.symbol: row.formula for row in explanation.rows}
    assert shapes["|z1|"].startswith("0 (Conv2d): conv2d 2x1x28x28 -> 2x6x28x28: z1[k,i,j] = sum")
    assert shapes["|p2|"].startswith("5 (MaxPool2d): max_pool2d 2x16x10x10 -> 2x16x5x5")
    assert shapes["|z5|"].startswith("11 (Linear): linear 2x84 -> 2x10: z5 = W5 a4 + b5")
    assert any(row.symbol == "|dC/d0.weight|" for row in explanation.rows)
