"""Learning-rate schedules: values written down from PyTorch's formulas."""

from __future__ import annotations

import math

import pytest

import trine
from trine import nn, optim


def optimizer(*rates: float) -> optim.SGD:
    return optim.SGD([{"params": [nn.Parameter(trine.ones(1))], "lr": lr} for lr in rates])


def test_step() -> None:
    schedule = optim.StepLR(1.0, step_size=3, gamma=0.5)
    assert [schedule.lr_at(t) for t in range(8)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_cosine() -> None:
    schedule = optim.CosineAnnealingLR(1.0, T_max=4, eta_min=0.2)
    half = 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2
    wanted = [1.0, half, 0.6, 1.2 - half, 0.2, 1.2 - half]
    assert [schedule.lr_at(t) for t in range(6)] == pytest.approx(wanted, rel=1e-12)


def test_warm_up() -> None:
    schedule = optim.LinearWarmup(0.6, warmup_steps=4)
    assert [schedule.lr_at(t) for t in range(6)] == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6, 0.6])
    from_zero = optim.LinearWarmup(1.0, 2, start_factor=0.0)
    assert [from_zero.lr_at(t) for t in range(3)] == [0, 0.5, 1]


def test_warm_up_then_cosine() -> None:
    schedule = optim.WarmupCosine(0.6, warmup_steps=2, total_steps=6, eta_min=0.1)
    wanted = [0.2, 0.4, 0.6, 0.35 + 0.25 * math.sqrt(0.5), 0.35, 0.35 - 0.25 * math.sqrt(0.5), 0.1]
    assert [schedule.lr_at(t) for t in range(7)] == pytest.approx(wanted, rel=1e-12)
    assert schedule.lr_at(60) == pytest.approx(0.1)


def test_a_function_of_the_step() -> None:
    assert optim.LambdaLR(0.5, lambda t: 1 / (t + 1)).lr_at(3) == 0.125


def test_each_group_starts_from_its_own_rate() -> None:
    sgd = optimizer(1.0, 0.1)
    schedule = optim.StepLR(sgd, 2, interval="epoch")
    assert schedule.interval == "epoch"
    schedule.apply(sgd, 2)
    assert [group["lr"] for group in sgd.param_groups] == pytest.approx([0.1, 0.01])
    assert schedule.lr_at(0, group=1) == 0.1
    again = optim.StepLR(sgd, 2)  # made after a change, as when a run is resumed
    assert again.base_lrs == [1.0, 0.1]
    optim.StepLR(0.5, 2).apply(sgd, 0)
    assert [group["lr"] for group in sgd.param_groups] == [0.5, 0.5]
    with pytest.raises(ValueError, match="expected 2 parameter groups, got 3"):
        optim.StepLR([1.0, 2.0], 2).apply(optimizer(1, 1, 1), 0)


def test_the_next_step_uses_what_was_applied(backend_name: str) -> None:
    weight = nn.Parameter(trine.ones(1))
    sgd = optim.SGD([weight], lr=1.0)
    schedule = optim.LambdaLR(sgd, lambda t: 0.5**t)
    weight.sum().backward()
    seen = []
    for t in range(3):
        schedule.apply(sgd, t)
        sgd.step()
        seen.append(weight.item())
    assert seen == [0, -0.5, -0.75]


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="expected step_size >= 1, got 0"):
        optim.StepLR(1.0, 0)
    with pytest.raises(ValueError, match="expected total_steps > warmup_steps"):
        optim.WarmupCosine(1.0, 5, 5)
    with pytest.raises(ValueError, match="expected a learning rate >= 0"):
        optim.StepLR(-1.0, 1)
    with pytest.raises(ValueError, match="expected a step >= 0, got -1"):
        optim.StepLR(1.0, 1).lr_at(-1)
    with pytest.raises(ValueError, match="Did you mean 'epoch'"):
        optim.StepLR(1.0, 1, interval="epochs")  # type: ignore[arg-type]
