"""PCA and what finds it: Sanger's rule, and a linear autoencoder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import trine
from trine import models, nn, optim
from trine.data import DataLoader, Splits
from trine.models.desk import draw_normal, half_squared_error, made_splits, values
from trine.models.principal_components import (
    Components,
    LinearAutoencoder,
    centred,
    flat,
    principal_angles,
    principal_axes,
    show_linear,
    show_pca,
)
from trine.training import Trainer

INPUTS, CODE = 6, 3


def small_splits() -> Splits:
    """Return centred samples (N, 1, 2, 3) of known, well separated variances."""
    x = draw_normal("small pca", (240, INPUTS)) * [2.0, 1.5, 1.0, 0.4, 0.3, 0.2] + 3.0
    x = (x @ np.linalg.qr(draw_normal("small frame", (INPUTS, INPUTS)))[0]).astype(np.float32)
    images = x.reshape(-1, 1, 2, 3)
    return centred(made_splits("small", images, images, train=200, description="-"))


def train(model: nn.Module, splits: Splits, lr: float, epochs: int, **options: float) -> None:
    trainer = Trainer(
        model, optim.SGD(model.parameters(), lr=lr, **options), half_squared_error,
        metrics=(), progress="none", strict=True, capture="on",
    )  # fmt: skip
    trainer.fit(DataLoader(splits.train, len(splits.train)), epochs=epochs)


def test_sangers_rule_finds_the_axes_in_order(backend_name: str) -> None:
    splits = small_splits()
    model = Components(INPUTS, CODE).to(backend_name)
    assert show_pca(model, splits).failures()
    train(model, splits, lr=1.0, epochs=300)
    variances, axes = principal_axes(flat(splits.train.x))
    w = values(model.weight)
    assert np.abs(np.sum(w * axes[:CODE], axis=1)) == pytest.approx(np.ones(CODE), abs=1e-5)
    assert np.sum(variances) == pytest.approx(1.0)
    assert show_pca(model, splits).failures() == []


def test_one_component_learns_by_ojas_rule(backend_name: str) -> None:
    model = Components(INPUTS, 1).to(backend_name)
    x, w = small_splits().train.x[:16], values(model.weight)[0]
    samples = flat(x)
    y = samples @ w
    oja = np.mean(y[:, None] * (samples - y[:, None] * w), axis=0)  # y (x - y w)
    model.learn(trine.tensor(x), trine.tensor(x))
    assert values(model.weight.grad)[0] == pytest.approx(-oja, abs=1e-6)


def test_learning_returns_the_reconstruction(backend_name: str) -> None:
    model, x = Components(INPUTS, CODE).to(backend_name), trine.tensor(small_splits().train.x[:9])
    assert np.array_equal(values(model.learn(x, x)), values(model(x)))


def test_the_linear_autoencoder_spans_pcas_subspace(backend_name: str) -> None:
    splits = small_splits()
    model = LinearAutoencoder(INPUTS, CODE).to(backend_name)
    assert show_linear(model, splits).failures()
    train(model, splits, lr=0.5, epochs=300, momentum=0.9)
    axes = principal_axes(flat(splits.train.x))[1]
    assert principal_angles(values(model.decoder.weight), axes[:CODE].T).max() < 1e-2
    assert show_linear(model, splits).failures() == []


def test_principal_angles_are_those_by_which_a_plane_was_turned() -> None:
    turned = np.zeros((4, 2))
    turned[0, 0] = 1.0
    turned[1, 1], turned[2, 1] = 3 * np.cos(1e-6), 3 * np.sin(1e-6)
    angles = principal_angles(turned @ [[1.0, 2.0], [0.0, 1.0]], np.eye(4)[:, :2])
    assert sorted(angles) == pytest.approx([0.0, 1e-6], abs=1e-12)
    assert principal_angles(np.eye(4)[:, 2:], np.eye(4)[:, :2]) == pytest.approx([np.pi / 2] * 2)


def test_data_are_centred_by_the_training_mean_alone() -> None:
    train_x = np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2)
    splits = made_splits("x", np.concatenate([train_x, train_x + 5]), np.zeros(6), train=3,
                         description="-")  # fmt: skip
    done = centred(splits)
    assert done.train.x.mean(axis=0) == pytest.approx(np.zeros((1, 2, 2)), abs=1e-6)
    assert np.sum(flat(done.train.x) ** 2) / 3 == pytest.approx(1.0)
    shift = flat(done.test.x - done.train.x)
    assert shift == pytest.approx(np.full((3, 4), shift[0, 0]))
    assert shift[0, 0] > 0
    assert np.array_equal(done.test.x, done.test.y)


@pytest.mark.parametrize("name", ["pca", "autoencoder-linear"])
def test_digits_as_they_were_scanned(
    name: str, backend_name: str, scans: Callable[[Splits], Splits]
) -> None:
    system = models.get(name)
    splits = scans(system.splits())
    trine.seed(0)
    inputs = splits.train.x[0].size
    kind = Components if name == "pca" else LinearAutoencoder
    model = kind(inputs, 4).to(backend_name)
    # A ninth of the pixels have about a ninth of the variance.
    train(model, splits, 9 * system.lr, system.epochs, **system.optimizer_args)
    assert system.shows(model, splits).failures() == []
