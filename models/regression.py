"""`linear-regression` and `logistic-regression` by descent, checked against what they must find."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn, optim
from trine.data import ArrayDataset, Splits
from trine.models.desk import (
    Desk,
    draw_normal,
    half_squared_error,
    made_splits,
    over_square,
    values,
)
from trine.models.explanation import Explanation, tolerance_for
from trine.models.registry import system
from trine.random import make_key, stream_id, uniform

SOURCE = "source notes 003"
LINE = (2.0, -1.0, 0.5, 3.0)
"""Slopes and, last, the intercept of the made regression data."""

ELLIPSE = (1.5, -1.0, -2.0, -1.0, 1.5)
"""theta_1 to theta_5 of the made classification data."""


def noisy_plane(train: int = 256, test: int = 128) -> Splits:
    """Make y = 2 x1 - x2 + 0.5 x3 + 3 + noise of deviation 0.1, with normal x."""
    n = train + test
    x = draw_normal("linear-regression x", (n, 3))
    noise = 0.1 * draw_normal("linear-regression noise", (n,))
    y = x @ np.asarray(LINE[:3]) + LINE[3] + noise
    about = "a plane over three normal inputs, with noise"
    features, targets = x.astype(np.float32), y.astype(np.float32)[:, None]
    return made_splits("noisy-plane", features, targets, train=train, description=about)


def ellipse_points(train: int = 80_000, test: int = 20_000) -> Splits:
    """Make points of [-2, 2]^2, labelled 1 with probability h(x) of the known coefficients."""
    n = train + test
    key = [make_key(0, stream_id("logistic-regression"), draw) for draw in range(2)]
    x = 4.0 * uniform(key[0], (n, 2), "float64") - 2.0
    z = _features(x) @ np.asarray(ELLIPSE[:4]) + ELLIPSE[4]
    y = (uniform(key[1], (n,), "float64") < 1.0 / (1.0 + np.exp(-z))).astype(np.float32)[:, None]
    about = "points of a square, labelled by a logistic model whose border is an ellipse"
    return made_splits("ellipse-points", x.astype(np.float32), y, train=train, description=about)


def _features(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.concatenate([x, x**2], axis=1).astype(np.float64)


class Ellipse(nn.Module):
    """z = theta1 x1 + theta2 x2 + theta3 x1^2 + theta4 x2^2 + theta5; h = s(z) is in the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        return self.linear(trine.cat([x, x * x], 1))

    def theta(self) -> npt.NDArray[np.float64]:
        """Return theta1 to theta5."""
        return np.append(values(self.linear.weight)[0], values(self.linear.bias))


def _plane_theta(model: nn.Linear) -> npt.NDArray[np.float64]:
    return np.append(values(model.weight)[0], values(model.bias))


def with_one(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return samples (m, n) with a last feature that is 1, whose coefficient is the intercept."""
    return np.concatenate([x, np.ones((len(x), 1))], axis=1, dtype=np.float64)


def least_squares(data: ArrayDataset) -> npt.NDArray[np.float64]:
    """Return the slopes and, last, the intercept that minimise the squared cost on a data set."""
    targets = np.asarray(data.y, np.float64)
    found: npt.NDArray[np.float64] = np.linalg.lstsq(with_one(data.x), targets, rcond=None)[0]
    return found[:, 0]


def _beside_least_squares(note: Explanation, model: nn.Linear, data: ArrayDataset) -> None:
    for j, (found, best) in enumerate(zip(_plane_theta(model), least_squares(data), strict=True)):
        note.equal(f"theta_{(j + 1) % 4}", "descent = least squares", found, best, 1e-6)


def _beside_the_ellipse(note: Explanation, model: Ellipse) -> None:
    for j, (found, known) in enumerate(zip(model.theta(), ELLIPSE, strict=True)):
        note.equal(f"theta{j + 1}", "recovered within 5%", found, known, 0.05 * abs(known))


def explain_linear(backend: str = "numpy", dtype: str = "float64", steps: int = 300) -> Explanation:
    """Run batch descent and compare the coefficients with the least-squares solution."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "linear-regression",
        "Linear regression: descent finds the least-squares solution",
        SOURCE,
        backend,
        dtype,
        [
            "h = theta_1 x_1 + ... + theta_n x_n + theta_0      C = 1/2m sum (h - y)^2",
            "theta_j <- theta_j - alpha/m sum (h - y) x_j",
        ],
    )
    data = noisy_plane().train
    features, targets = np.asarray(data.x, np.float64), np.asarray(data.y, np.float64)
    model = build_linear()
    desk.place(model)
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    x, y = desk.tensor(features), desk.tensor(targets)
    for step in range(steps):
        optimizer.zero_grad()
        h = model(x)
        half_squared_error(h, y).backward()
        if step == 0:
            by_formula = with_one(features).T @ (values(h) - targets)[:, 0] / len(targets)
            by_autograd = np.append(values(model.weight.grad)[0], values(model.bias.grad))
            note.agree("dC/dtheta", "1/m sum (h - y) x_j - autograd", by_formula, by_autograd)
        optimizer.step()
    _beside_least_squares(note, model, data)
    return note


def shows_plane(model: nn.Linear, splits: Splits) -> Explanation:
    """Compare the trained coefficients with the least-squares solution."""
    desk = Desk.of(model)
    note = Explanation("linear-regression", "The plane found", SOURCE, desk.backend, desk.dtype)
    _beside_least_squares(note, model, splits.train)
    return note


def explain_logistic(
    backend: str = "numpy", dtype: str = "float64", steps: int = 200
) -> Explanation:
    """Check the gradient, then recover the ellipse's coefficients by batch descent."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "logistic-regression",
        "Logistic regression: an elliptical border",
        f"{SOURCE}, equation 2-6",
        backend,
        dtype,
        [
            "h = g(theta1 x1 + theta2 x2 + theta3 x1^2 + theta4 x2^2 + theta5)",
            "C = -1/m sum y log h + (1 - y) log(1 - h)",
            "dC/dtheta_j = 1/m sum (h - y) x_j                    (2-6)",
        ],
    )
    data = ellipse_points().train
    model = Ellipse()
    desk.place(model)
    x, y = desk.tensor(data.x), desk.tensor(data.y)
    optimizer = optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    checks = (0, steps // 2)
    for step in range(steps):
        optimizer.zero_grad()
        z = model(x)
        F.binary_cross_entropy_with_logits(z, y).backward()
        if step in checks:
            error = (1.0 / (1.0 + np.exp(-values(z))) - np.asarray(data.y))[:, 0]
            inputs = np.concatenate([_features(data.x), np.ones((len(error), 1))], axis=1)
            linear = model.linear
            by_autograd = np.append(values(linear.weight.grad)[0], values(linear.bias.grad))
            # A sum of errors times inputs: rounding of the errors is multiplied by the inputs.
            allowed = tolerance_for(float(np.abs(inputs).max()), note.dtype)
            note.agree(
                "dC/dtheta", f"(2-6) - autograd, step {step}", inputs.T @ error / len(error),
                by_autograd, allowed,
            )  # fmt: skip
        optimizer.step()
    _beside_the_ellipse(note, model)
    return note


def shows_ellipse(model: Ellipse, splits: Splits) -> Explanation:
    """Compare the trained coefficients with the known ones, and draw h over the square."""
    desk = Desk.of(model)
    note = Explanation("logistic-regression", "The border found", SOURCE, desk.backend, desk.dtype)
    _beside_the_ellipse(note, model)
    few, label = splits.test.x[:200], splits.test.y[:200, 0]
    note.drawings["border"] = over_square(
        lambda x: model(x).sigmoid(), desk, "Probability of y = 1", (-2.0, 2.0), 81,
        {f"y = {y}": few[label == y] for y in (0, 1)},
    )  # fmt: skip
    return note


@system(
    "linear-regression",
    family="regression",
    year=1805,
    source=SOURCE,
    summary="batch descent to the least-squares plane",
    data=noisy_plane,
    loss=half_squared_error,
    metrics=(),
    optimizer="sgd",
    lr=0.5,
    batch_size=256,
    epochs=300,
    explain=explain_linear,
    shows=shows_plane,
)
def build_linear() -> nn.Linear:
    """Return one linear unit over three inputs, starting from zero."""
    model = nn.Linear(3, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


@system(
    "logistic-regression",
    family="regression",
    year=1958,
    source=f"{SOURCE}, equation 2-6",
    summary="logistic regression on squares of the inputs: an ellipse as the border",
    data=ellipse_points,
    loss=F.binary_cross_entropy_with_logits,
    metrics=(),
    optimizer="sgd",
    lr=0.5,
    optimizer_args={"momentum": 0.9},
    schedule="cosine",
    batch_size=1000,
    epochs=10,
    explain=explain_logistic,
    shows=shows_ellipse,
)
def build_logistic() -> Ellipse:
    """Return the model, starting from zero."""
    return Ellipse()
