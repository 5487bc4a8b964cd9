"""Models with a rule of their own, and how the Trainer and the command line treat them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import trine
import trine.functional as F
from trine import nn, optim
from trine.data import ArrayDataset, DataLoader
from trine.training import Trainer


class Average(nn.Learner):
    """Moves its one weight to the mean of the samples: the direction is weight - mean."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(trine.zeros(3))

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        return x - self.weight

    def learn(self, input: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
        with trine.no_grad():
            self.descend(self.weight, self.weight - input.mean(dim=0))
            return self(input)


def loss(output: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
    return F.squared_error(output, target)


def data(n: int = 12) -> tuple[np.ndarray, DataLoader]:
    x = np.arange(3.0 * n, dtype=np.float32).reshape(n, 3) / n
    return x, DataLoader(ArrayDataset(x, np.zeros_like(x)), 4)


def run(tmp_path: Path | None = None, epochs: int = 3, **options: object) -> tuple[Average, object]:
    _, loader = data()
    model = Average()
    trainer = Trainer(
        model, optim.SGD(model.parameters(), lr=0.5), loss, metrics=(), out=tmp_path,
        progress="none", **options,
    )  # fmt: skip
    return model, trainer.fit(loader, loader, epochs=epochs, resume="auto" if tmp_path else None)


@pytest.mark.parametrize("capture", ["off", "on"])
def test_the_rule_is_what_moves_the_weights(backend_name: str, capture: str) -> None:
    x, _ = data()
    expected = np.zeros(3)
    for _ in range(3):
        for batch in x.reshape(3, 4, 3):
            expected += 0.5 * (batch.mean(axis=0) - expected)
    model, summary = run(capture=capture)
    assert model.weight.detach().numpy() == pytest.approx(expected, rel=1e-5)
    assert summary.train_loss > 0
    assert (summary.replayed_steps > 0) == (capture == "on")


def test_a_run_by_a_rule_resumes(tmp_path: Path) -> None:
    whole, _ = run(epochs=4)
    run(tmp_path, epochs=2)
    continued, _ = run(tmp_path, epochs=4)
    assert np.array_equal(whole.weight.detach().numpy(), continued.weight.detach().numpy())


def test_directions_add_up_like_gradients() -> None:
    model = Average()
    model.descend(model.weight, trine.ones(3))
    model.descend(model.weight, trine.ones(3))
    assert model.weight.grad.numpy().tolist() == [2.0, 2.0, 2.0]


def test_wrong_directions_are_refused() -> None:
    model = Average()
    with pytest.raises(ValueError, match=r"\[Average\] expected a direction \(3,\).*got \(4,\)"):
        model.descend(model.weight, trine.ones(4))
    with pytest.raises(NotImplementedError, match=r"\[Learner\] expected a method learn"):
        nn.Learner().learn(trine.ones(1), trine.ones(1))


def test_accumulating_batches_is_refused() -> None:
    with pytest.raises(ValueError, match="expected accumulate=1 for Average"):
        run(accumulate=2)


def test_nan_in_a_rule_is_named(tmp_path: Path) -> None:
    class Broken(Average):
        def learn(self, input: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
            with trine.no_grad():
                self.descend(self.weight, trine.full((3,), float("nan")))
                return self(input)

    model = Broken()
    trainer = Trainer(
        model, optim.SGD(model.parameters(), lr=1.0), loss, metrics=(), progress="none"
    )
    with pytest.raises(trine.DivergenceError, match="the gradient of weight"):
        trainer.fit(data()[1], epochs=1)


def test_pretraining_comes_once_before_a_new_run(tmp_path: Path) -> None:
    calls: list[int] = []
    run(tmp_path, epochs=1, pretrain=lambda: calls.append(1))
    run(tmp_path, epochs=2, pretrain=lambda: calls.append(2))
    assert calls == [1]
