"""ICA unmixes what PCA cannot."""

from __future__ import annotations

import numpy as np
import pytest

import trine
from trine import models, optim
from trine.data import DataLoader
from trine.models.desk import values
from trine.models.independent_components import (
    MIXING,
    Unmixing,
    amari_error,
    mixtures,
    show,
    signals,
    unexplained,
)
from trine.training import Trainer


def test_three_signals_are_unmixed(backend_name: str) -> None:
    system = models.get("ica")
    splits = mixtures()
    model = Unmixing(3).to(backend_name)
    assert show(model, splits).failures()
    loader = DataLoader(splits.train, system.batch_size, shuffle=True)
    optimizer = optim.SGD(model.parameters(), lr=system.lr)
    schedule = optim.CosineAnnealingLR(optimizer, system.epochs * len(loader))
    trainer = Trainer(
        model, optimizer, unexplained, metrics=(), schedule=schedule, progress="none", capture="on"
    )
    summary = trainer.fit(loader, DataLoader(splits.test, 512), epochs=system.epochs)
    assert summary.test_loss < 0.02
    assert show(model, splits).failures() == []


def test_the_rule_is_the_natural_gradient_of_the_likelihood() -> None:
    """Descent is along dC/dW W^T W with C = -ln|det W| - E[ln p(u)]."""
    with trine.use("numpy"):
        x = trine.tensor(signals(400)[:, 1:] @ [[1.0, 0.0], [0.3, 1.0]], "float64")
        model = Unmixing(2).double()
        with trine.no_grad():
            model.weight.copy_(trine.tensor([[0.9, 0.1], [-0.2, 1.1]], "float64"))
        model.learn(x, x)
        w = trine.tensor(values(model.weight), "float64", requires_grad=True)
        u = x @ w.T
        tanh = u.detach().tanh()
        k = ((1 - tanh**2).mean(dim=0) * (u.detach() ** 2).mean(dim=0)
             - (u.detach() * tanh).mean(dim=0)).sign()  # fmt: skip
        assert values(k).tolist() == [-1.0, 1.0]
        # d/du of k ln cosh u + u^2 / 2 is k tanh u + u.
        log_cosh = u.abs() + ((u.abs() * -2).exp() + 1).log()
        determinant = w[0, 0] * w[1, 1] - w[0, 1] * w[1, 0]
        cost = (k * log_cosh + u * u / 2).mean(dim=0).sum() - determinant.abs().log()
        gradient = values(trine.grad(cost, w)[0])
    natural = gradient @ values(w).T @ values(w)
    assert values(model.weight.grad) == pytest.approx(natural, abs=1e-12)


def test_amari_error_knows_order_scale_and_mixture() -> None:
    order = np.array([[0.0, -3.0, 0.0], [0.0, 0.0, 0.5], [2.0, 0.0, 0.0]])
    assert amari_error(order, np.eye(3)) == 0.0
    assert amari_error(order @ np.linalg.inv(MIXING), MIXING) == pytest.approx(0.0, abs=1e-12)
    assert amari_error(np.ones((3, 3)), np.eye(3)) == 1.0
    assert amari_error(np.array([[1.0, 0.5], [0.5, 1.0]]), np.eye(2)) == pytest.approx(0.5)


def test_signals_are_independent_and_of_variance_one() -> None:
    s = signals(20_000)
    assert s.mean(axis=0) == pytest.approx(np.zeros(3), abs=0.03)
    assert np.cov(s.T) == pytest.approx(np.eye(3), abs=0.05)
    kurtosis = np.mean(s**4, axis=0) - 3
    assert kurtosis == pytest.approx([-1.5, -1.2, 3.0], abs=0.3)


def test_the_measure_ignores_order_sign_and_scale(backend_name: str) -> None:
    s = signals(200).astype(np.float32)
    y = trine.tensor(s[:, [2, 0, 1]] * np.float32([-3.0, 0.1, 7.0]) + 2)
    assert unexplained(y, trine.tensor(s)).item() == pytest.approx(0.0, abs=1e-5)
    mixed = trine.tensor((s @ MIXING.T).astype(np.float32))
    assert unexplained(mixed, trine.tensor(s)).item() > 0.2
