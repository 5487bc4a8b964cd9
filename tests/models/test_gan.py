"""The adversarial pair: whose gradient goes where, and digits out of noise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import trine
from trine import models, optim
from trine.data import ArrayDataset, DataLoader, Splits
from trine.models.desk import values
from trine.models.gan import (
    GAN,
    discriminator_cost,
    generator_cost,
    judge,
    measured,
    probabilities,
    samples,
    show,
)
from trine.training import Trainer


def gradients(model: GAN, part: str) -> dict[str, np.ndarray]:
    return {name: values(p.grad) for name, p in model.named_parameters() if name.startswith(part)}


@pytest.mark.parametrize("part", ["discriminator", "generator"])
def test_each_part_gets_the_gradient_of_its_own_cost(part: str, backend_name: str) -> None:
    model = GAN(noise=4, maps=4).to(backend_name)
    x = trine.tensor(models.get("gan").splits().test.x[:6])
    trine.seed(1)
    model.learn(x, x)
    learned = gradients(model, part)
    model.zero_grad()
    trine.seed(1)  # the same noise, the same masks
    made = model.make(x)
    if part == "discriminator":
        discriminator_cost((model.discriminator(x), model.discriminator(made.detach()))).backward()
    else:
        model.discriminator(x)
        model.discriminator(made.detach())
        generator_cost(model.discriminator(made)).backward()
    expected = gradients(model, part)
    assert len(expected) == (6 if part == "discriminator" else 8)
    for name, gradient in expected.items():
        assert np.abs(gradient).max() > 0
        assert np.array_equal(learned[name], gradient), name


def test_costs_by_numbers(backend_name: str) -> None:
    zero, two = trine.zeros(3, 1), trine.full((3, 1), 2.0)
    assert generator_cost(two).item() == pytest.approx(math.log1p(math.exp(-2.0)), rel=1e-6)
    assert discriminator_cost((zero, zero)).item() == pytest.approx(2 * math.log(2.0), rel=1e-6)
    # Sure of real images, a = 0.9, and mistaken about made ones.
    sure = 0.9 * math.log1p(math.exp(-2.0)) + 0.1 * math.log1p(math.exp(2.0))
    assert measured((two, two), zero).item() == pytest.approx(
        sure + math.log1p(math.exp(2.0)), rel=1e-6
    )


def test_noise_is_new_in_every_step_and_the_same_for_a_seed(backend_name: str) -> None:
    model, like = GAN(noise=4, maps=4).to(backend_name), trine.zeros(3, 1)
    trine.seed(2)
    first, second = values(model.make(like)), values(model.make(like))
    trine.seed(2)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, values(model.make(like)))
    assert first.shape == (3, 1, 28, 28)
    assert np.all((first >= 0) & (first <= 1))
    assert np.array_equal(samples(model, 4), samples(model, 4))
