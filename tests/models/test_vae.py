"""The variational autoencoder: its bound, its gradient, its samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

import trine
from trine import optim
from trine.data import ArrayDataset, DataLoader, Splits
from trine.models.desk import draw_normal, values
from trine.models.vae import (
    VAE,
    divergence,
    elbo,
    mean_image_likelihood,
    negative_elbo,
    samples,
    show,
)
from trine.training import Trainer


def test_the_bound_rises(scanned: Splits, backend_name: str) -> None:
    model = VAE(64, 64, 6).to(backend_name)
    assert show(model, scanned).failures()
    bounds = [elbo(model, scanned.test.x)[0]]
    trainer = Trainer(
        model, optim.Adam(model.parameters(), lr=5e-3), negative_elbo, metrics=(), progress="none"
    )
    for _ in range(3):
        trainer.fit(DataLoader(scanned.train, 64, shuffle=True), epochs=6)
        bounds.append(elbo(model, scanned.test.x)[0])
    assert bounds == sorted(bounds)
    assert bounds[-1] > mean_image_likelihood(scanned) + 2
    assert show(model, scanned).failures() == []


def test_the_reparametrised_gradient_is_right(backend_name: str) -> None:
    model = VAE(6, 5, 2).to(backend_name).double()
    x = trine.tensor(np.linspace(0.0, 1.0, 18).reshape(3, 6), "float64")
    epsilon = trine.tensor(draw_normal("vae gradcheck", (3, 2)), "float64")
    assert trine.gradcheck(
        lambda *_: negative_elbo(model.reconstruct(x, epsilon), x), list(model.parameters())
    )


def test_the_gradient_through_samples_is_that_of_the_expectation() -> None:
    """d/dmu E[z^2] = 2 mu and d/d ln sigma^2 E[z^2] = sigma^2 for z = mu + sigma epsilon."""
    with trine.use("numpy"):
        model = VAE(2, 4, 1).double()
        model.decode = lambda z: z  # type: ignore[method-assign]
        x = trine.tensor(np.repeat([[0.3, 0.8]], 20_000, axis=0), "float64")
        epsilon = trine.tensor(draw_normal("vae expectation", (20_000, 1)), "float64")
        z, mu, log_variance = model.reconstruct(x, epsilon)
        mu_slope, variance_slope = trine.grad((z * z).mean(), [mu, log_variance])
        assert values(mu_slope).sum() == pytest.approx(2 * values(mu)[0, 0], abs=0.03)
        sigma2 = math.exp(values(log_variance)[0, 0])
        assert values(variance_slope).sum() == pytest.approx(sigma2, abs=0.03 * sigma2)


def test_divergence_by_numbers(backend_name: str) -> None:
    mu, log_variance = trine.tensor([[0.0, 2.0]]), trine.tensor([[0.0, math.log(4.0)]])
    expected = 0.5 * (4 + 4 - 1 - math.log(4.0))
    assert values(divergence(mu, log_variance)) == pytest.approx([expected], rel=1e-6)


def test_the_elbo_lies_below_the_likelihood_by_the_codes_divergence() -> None:
    """ln p(x) - ELBO = KL(q(z|x) || p(z|x)): a code of one number can be summed over on a fine grid."""
    with trine.use("numpy"):
        model = VAE(4, 8, 1)
        with trine.no_grad():
            model.mu.bias.copy_(trine.tensor([1.0]))
            model.log_variance.bias.copy_(trine.tensor([-1.0]))
        x = np.array([[0.0, 1.0, 1.0, 0.0]], np.float32).reshape(1, 1, 2, 2)
        grid = np.linspace(-8.0, 8.0, 4001)[:, None]
        logits = values(model.decode(trine.tensor(grid.astype(np.float32))))
        signs = np.where(x.reshape(1, 4) > 0.5, 1.0, -1.0)
        likelihood = np.exp(-np.logaddexp(0.0, -signs * logits).sum(axis=1))
        prior = np.exp(-0.5 * grid[:, 0] ** 2) / math.sqrt(2 * math.pi)
        width = grid[1, 0] - grid[0, 0]
        evidence = np.sum(likelihood * prior) * width
        mu, log_variance = (values(part)[0, 0] for part in model.encode(trine.tensor(x)))
        q = np.exp(-0.5 * (grid[:, 0] - mu) ** 2 / math.exp(log_variance) - 0.5 * log_variance)
        q /= math.sqrt(2 * math.pi)
        posterior = likelihood * prior / evidence
        gap = np.sum(q * (np.log(q + 1e-300) - np.log(posterior))) * width
        bound, kl = elbo(model, np.repeat(x, 4000, axis=0), draws=1)
        assert kl > 0.3
        assert gap > 0.3
        assert bound == pytest.approx(math.log(evidence) - gap, abs=0.03)


def test_training_draws_codes_and_evaluation_does_not(backend_name: str) -> None:
    model, x = VAE(4, 8, 2).to(backend_name), trine.tensor(np.ones((3, 4), np.float32))
    first, second = (values(model(x)[0]) for _ in range(2))
    assert not np.array_equal(first, second)
    model.eval()
    first, second = (values(model(x)[0]) for _ in range(2))
    assert np.array_equal(first, second)
    drawn = samples(model, 5)
    assert drawn.shape == (5, 4)
    assert np.array_equal(drawn, samples(model, 5))
    assert np.all((drawn > 0) & (drawn < 1))


def test_pixels_as_coins() -> None:
    x = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]], np.float32).reshape(3, 1, 1, 2)
    data = ArrayDataset(x, x)
    found = mean_image_likelihood(Splits("-", data, data))
    p, q = 3.5 / 4, 1.5 / 4
    assert found == pytest.approx(math.log(p) + (math.log(q) + 2 * math.log(1 - q)) / 3)
