"""Peers: weights written by PyTorch, and its values. Skipped where torch is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trine
from trine import Tensor, nn, optim

torch: Any = pytest.importorskip("torch")


def lenet(library: Any) -> Any:
    return library.Sequential(
        library.Conv2d(1, 6, 5, padding=2),
        library.ReLU(),
        library.MaxPool2d(2),
        library.Conv2d(6, 16, 5),
        library.ReLU(),
        library.MaxPool2d(2),
        library.Flatten(),
        library.Linear(400, 120),
        library.ReLU(),
        library.Linear(120, 84),
        library.ReLU(),
        library.Linear(84, 10),
    )


def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 1, 28, 28)).astype(np.float32)


def test_lenet_weights_of_pytorch_give_its_logits(backend_name: str, tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    torch.manual_seed(0)
    theirs, ours = lenet(torch.nn), lenet(nn)
    save_file(theirs.state_dict(), tmp_path / "lenet.safetensors")
    ours.load_state_dict(nn.load_file(tmp_path / "lenet.safetensors"))
    x = images()
    wanted = theirs(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(ours(trine.tensor(x)).detach().numpy(), wanted, atol=1e-5)
    assert repr(ours) == repr(theirs)


def test_lstm_weights_of_pytorch_give_its_outputs(backend_name: str) -> None:
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    theirs, ours = torch.nn.LSTM(3, 5, **options), nn.LSTM(3, 5, **options)
    ours.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
    wanted, (h, c) = theirs(torch.from_numpy(x))
    got, (h_n, c_n) = ours(trine.tensor(x))
    for a, b in ((got, wanted), (h_n, h), (c_n, c)):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        ("Adam", {"weight_decay": 0.01}),
        ("AdamW", {}),
        ("RMSprop", {"momentum": 0.9, "centered": True}),
        ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.5}),
    ],
)
def test_optimisers_step_like_pytorchs(backend_name: str, name: str, options: Any) -> None:
    start = np.random.default_rng(0).normal(size=(5, 3))
    ours = nn.Parameter(trine.tensor(start))
    theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    opt = getattr(optim, name)([ours], **options)
    peer = getattr(torch.optim, name)([theirs], **options)
    for _ in range(6):
        for parameter, optimizer in ((ours, opt), (theirs, peer)):
            optimizer.zero_grad()
            (parameter**4).sum().backward()
            optimizer.step()
    assert isinstance(ours, Tensor)
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-10)


def test_schedules_have_pytorchs_values() -> None:
    def peer(make: Any) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
        schedule, rates = make(optimizer), []
        for _ in range(12):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return rates

    rates = torch.optim.lr_scheduler

    def chain(optimizer: Any) -> Any:
        parts = [
            rates.LinearLR(optimizer, total_iters=4),
            rates.CosineAnnealingLR(optimizer, 8, 0.1),
        ]
        return rates.SequentialLR(optimizer, parts, [4])

    for ours, theirs in (
        (optim.StepLR(0.5, 3, 0.2), lambda o: rates.StepLR(o, 3, 0.2)),
        (optim.CosineAnnealingLR(0.5, 8, 0.1), lambda o: rates.CosineAnnealingLR(o, 8, 0.1)),
        (optim.LinearWarmup(0.5, 4), lambda o: rates.LinearLR(o, total_iters=4)),
        (optim.WarmupCosine(0.5, 4, 12, 0.1), chain),
    ):
        np.testing.assert_allclose([ours.lr_at(t) for t in range(12)], peer(theirs), rtol=1e-12)
