"""The adversarial pair: whose gradient goes where, and digits out of noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import trine
import trine.functional as F
from trine import models, nn, optim
from trine.data import ArrayDataset, DataLoader, Splits
from trine.models.desk import Desk, fit, values
from trine.models.gan import (
    CONFIDENT,
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
    model = GAN(noise=4, units=8).to(backend_name)
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
    model, like = GAN(noise=4, units=8).to(backend_name), trine.zeros(3, 1)
    trine.seed(2)
    first, second = values(model.make(like)), values(model.make(like))
    trine.seed(2)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, values(model.make(like)))
    assert first.shape == (3, 1, 28, 28)
    assert np.all((first >= 0) & (first <= 1))
    assert np.array_equal(samples(model, 4), samples(model, 4))


@pytest.mark.slow
def test_digits_come_out_of_noise(scans: Callable[[Splits], Splits]) -> None:
    """The row's own figures at 8x8 pixels, by captured steps, read by a small network."""
    with trine.use("numba"):
        splits = scans(models.get("gan").splits())
        reader = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        fit(reader, splits.train, F.cross_entropy, lr=5e-3, epochs=25)
        right = probabilities(reader, splits.test.x).argmax(axis=1) == splits.test.y
        assert right.mean() >= 0.95  # as `show` asks of its judge
        model = GAN(side=8)
        assert seen(model, reader)[0] <= 2
        optimizer = optim.Adam(model.parameters(), lr=1e-3, betas=(0.5, 0.999))
        trainer = Trainer(model, optimizer, measured, metrics=(), progress="none", capture="on")
        trainer.fit(DataLoader(splits.train, 64, shuffle=True), epochs=25)
        classes, confidence = seen(model, reader)
    assert classes >= 9
    assert confidence >= CONFIDENT == 0.8


def seen(model: GAN, reader: nn.Module) -> tuple[int, float]:
    """Return how many digits a reader is sure to see in 500 samples, and its median confidence."""
    p = probabilities(reader, samples(model, 500))
    sure = p.max(axis=1) >= CONFIDENT
    return len(np.unique(p.argmax(axis=1)[sure])), float(np.median(p.max(axis=1)))


def test_showing_reads_samples_by_the_classifier(scans: Callable[[Splits], Splits]) -> None:
    splits = scans(models.get("gan").splits())
    with trine.use("numpy"):
        certain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        with trine.no_grad():
            certain[1].bias.copy_(trine.tensor([30.0] + [0.0] * 9))
        note = show(GAN(side=8), splits, certain)
    found = {row.symbol: row for row in note.rows}
    assert found["classes"].value == 1  # it takes everything for a 0
    assert not found["classes"].ok
    assert found["confidence"].ok
    assert not found["accuracy"].ok
    assert list(note.drawings["samples"].rows) == ["read as 0"]


def test_the_judge_reads_real_digits_surely() -> None:
    splits = models.get("gan").splits()
    few = ArrayDataset(splits.train.x[:400], splits.train.y[:400], 10)
    with trine.use("numba"):
        classifier = judge(Desk("numba", "float32"), replace(splits, train=few), epochs=10)
    p = probabilities(classifier, splits.test.x[:100])
    assert p.sum(axis=1) == pytest.approx(np.ones(100), abs=1e-5)
    assert (p.argmax(axis=1) == splits.test.y[:100]).mean() > 0.75
