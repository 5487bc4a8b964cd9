"""McCulloch-Pitts, perceptron, ADALINE and Hebb: what they learn, and that it is what they should."""

from __future__ import annotations

import numpy as np
import pytest

import trine
import trine.functional as F
from trine import models, nn, optim
from trine.models import hebb, threshold_units
from trine.models.desk import Desk, values
from trine.models.explanation import Explanation


def trained(name: str, epochs: int) -> nn.Module:
    """Train a system by its own settings, its batches in order."""
    system = models.get(name)
    assert system.build is not None
    splits = system.splits()
    model = system.build()
    optimizer = optim.SGD(model.parameters(), lr=system.lr)
    x, y = trine.tensor(splits.train.x), trine.tensor(splits.train.y)
    for _ in range(epochs):
        for first in range(0, len(x), system.batch_size):
            batch = slice(first, first + system.batch_size)
            optimizer.zero_grad()
            model.learn(x[batch], y[batch])
            optimizer.step()
    return model


def check(name: str, model: nn.Module) -> Explanation:
    system = models.get(name)
    assert system.shows is not None
    note = system.shows(model, system.splits())
    assert note.failures() == []
    return note


def test_mcculloch_pitts(backend_name: str) -> None:
    note = models.explain("mcculloch-pitts", backend=backend_name)
    assert note.matrices["x1, x2, AND, OR, XOR"].tolist() == [
        [0, 0, 0, 0, 0], [0, 1, 0, 1, 1], [1, 0, 0, 1, 1], [1, 1, 1, 1, 0],
    ]  # fmt: skip
    assert note.matrices["x, NOT x"].tolist() == [[0, 1], [1, 0]]


def test_perceptron_learns_and_and_or(backend_name: str) -> None:
    model = trained("perceptron", epochs=10)
    found = values(model(trine.tensor(threshold_units.ROWS)))
    assert found.T.tolist() == [[0, 0, 0, 1], [0, 1, 1, 1]]
    check("perceptron", model)


@pytest.mark.parametrize("seed", range(5))
def test_perceptron_learns_from_every_start(seed: int) -> None:
    with trine.use("numpy"):
        trine.seed(seed)
        model = threshold_units.Perceptron(2, 2)
        nn.init.normal_(model.linear.weight, std=2.0)
        splits = threshold_units.truth_tables("AND", "OR")
        x, y = trine.tensor(splits.train.x), trine.tensor(splits.train.y)
        optimizer = optim.SGD(model.parameters(), lr=1.0)
        for step in range(200):
            optimizer.zero_grad()
            model.learn(x[step % 4 : step % 4 + 1], y[step % 4 : step % 4 + 1])
            optimizer.step()
        assert np.array_equal(values(model(x)), splits.train.y)


def test_one_unit_never_learns_xor() -> None:
    assert threshold_units.fewest_wrong("XOR", Desk("numpy", "float64"), epochs=50) >= 1
    assert threshold_units.fewest_wrong("OR", Desk("numpy", "float64"), epochs=10) == 0


def test_mistakes_are_counted_as_they_come_up() -> None:
    with trine.use("numpy"):
        model = threshold_units.Perceptron(2, 2)
        # From zero every unit says 1: wrong for AND in three of the rows, for OR in one.
        splits = threshold_units.truth_tables("AND", "OR")
        model.learn(trine.tensor(splits.train.x), trine.tensor(splits.train.y))
        assert model.mistakes.tolist() == [3.0, 1.0]


def test_adaline_reaches_least_squares(backend_name: str) -> None:
    model = trained("adaline", epochs=60)
    train = models.get("adaline").splits().train
    inputs = np.concatenate([train.x, np.ones((len(train), 1))], axis=1).astype(np.float64)
    best = np.linalg.lstsq(inputs, train.y.astype(np.float64), rcond=None)[0][:, 0]
    assert model.theta() == pytest.approx(best, abs=1e-6)
    # The border is drawn where the sign of z changes.
    assert check("adaline", model).drawings["plane"].level == 0.0


def test_hebb_recalls_stored_pairs_exactly(backend_name: str) -> None:
    model = trained("hebb", epochs=1)
    splits = models.get("hebb").splits()
    recalled = values(model(trine.tensor(splits.train.x)))
    assert np.array_equal(recalled, splits.train.y)
    check("hebb", model)


def test_hebbs_rule_in_its_three_forms(backend_name: str) -> None:
    """alpha f(a) g(p), alpha a p and t p^T are added to the weights, one sample at a time."""
    desk = Desk(backend_name, "float64")
    p, t, w = np.array([[1.0, -2.0, 0.5]]), np.array([[1.0, -1.0]]), np.full((2, 3), 0.25)
    a = p @ w.T
    for options, rise in (
        ({"supervised": False, "post": F.tanh, "pre": F.sign}, np.tanh(a).T @ np.sign(p)),
        ({"supervised": False}, a.T @ p),
        ({}, t.T @ p),
    ):
        model = desk.place(hebb.Hebb(3, 2, **options))
        model.load_state_dict({"weight": w})
        hebb.store(model, desk, p, t, lr=0.1)
        assert values(model.weight) == pytest.approx(w + 0.1 * rise, abs=1e-12)


def test_walsh_patterns_are_orthonormal() -> None:
    patterns = hebb.walsh(16)
    assert np.array_equal(patterns @ patterns.T, np.eye(16))
