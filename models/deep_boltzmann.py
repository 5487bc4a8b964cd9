"""`dbm`: a deep Boltzmann machine of two hidden layers, by mean field and persistent chains."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn, optim, random
from trine.data import Splits
from trine.models.desk import Desk, half_squared_error, own_targets, values
from trine.models.enumeration import binary_states, log_sum_exp
from trine.models.explanation import Explanation
from trine.models.figures import Curve, Figure, Images
from trine.models.rbm import RBM, bars_and_stripes, fit
from trine.models.registry import system

SOURCE = "source notes 001; Salakhutdinov and Hinton, Deep Boltzmann machines, 2009"
PRETRAIN_EPOCHS = 10


class DBM(nn.Learner):
    """Units v, h1, h2, each layer connected with the next: E = -h1^T W1 v - h2^T W2 h1 - biases.

    Plus phase, mean field: mu1 = s(W1 v + W2^T mu2 + b1), mu2 = s(W2 mu1 + b2), `settle` times.
    Minus phase, chains that persist from step to step: v, h2 given h1, then h1 given both,
    `sweeps` times. Then  dW1 = <mu1 v^T> - <h1 v^T>, dW2 = <mu2 mu1^T> - <h2 h1^T>, and so on: the
    gradient of the variational bound on ln p(v), its second average by sampling.
    """

    chains: trine.Tensor

    def __init__(
        self, visible: int, hidden1: int, hidden2: int, *, chains: int = 100, settle: int = 10,
        sweeps: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.settle, self.sweeps = settle, sweeps
        self.weight1 = nn.Parameter(trine.zeros(hidden1, visible))
        self.weight2 = nn.Parameter(trine.zeros(hidden2, hidden1))
        nn.init.normal_(self.weight1, std=0.01)
        nn.init.normal_(self.weight2, std=0.01)
        self.visible_bias = nn.Parameter(trine.zeros(visible))
        self.bias1 = nn.Parameter(trine.zeros(hidden1))
        self.bias2 = nn.Parameter(trine.zeros(hidden2))
        self.register_buffer("chains", trine.full((chains, hidden1), 0.5))
        """h1 of each chain; v and h2 follow from it."""

    # Conditions

    def given_h1(self, h1: trine.Tensor) -> tuple[trine.Tensor, trine.Tensor]:
        """Return p(v = 1 | h1) and p(h2 = 1 | h1)."""
        p_v = (h1 @ self.weight1 + self.visible_bias).sigmoid()
        return p_v, F.linear(h1, self.weight2, self.bias2, "sigmoid")

    def given_v_h2(self, v: trine.Tensor, h2: trine.Tensor) -> trine.Tensor:
        """Return p(h1 = 1 | v, h2)."""
        return (F.linear(v, self.weight1, self.bias1) + h2 @ self.weight2).sigmoid()

    def mean_field(self, v: trine.Tensor) -> tuple[trine.Tensor, trine.Tensor]:
        """Return mu1 and mu2 for rows v, from a first pass upwards with W1 doubled."""
        up = F.linear(v, self.weight1, self.bias1)
        mu1 = (up * 2.0 - self.bias1).sigmoid()
        mu2 = F.linear(mu1, self.weight2, self.bias2, "sigmoid")
        for _ in range(self.settle):
            mu1 = (up + mu2 @ self.weight2).sigmoid()
            mu2 = F.linear(mu1, self.weight2, self.bias2, "sigmoid")
        return mu1, mu2

    def draw(self, p: trine.Tensor) -> trine.Tensor:
        """Return bits with the probabilities p, by the module's next random draw."""
        return F.bernoulli(p, random.default_generator().key(self.stream("gibbs")))

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """Return images (n, ...) as their mean field makes them anew."""
        mu1, _ = self.mean_field(x.flatten(1))
        return self.given_h1(mu1)[0].reshape(*x.shape)

    def learn(self, input: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
        """Set the directions by the two phases; returns the reconstruction."""
        with trine.no_grad():
            v = input.flatten(1)
            mu1, mu2 = self.mean_field(v)
            h1 = self.chains
            for _ in range(self.sweeps):
                p_v, p_h2 = self.given_h1(h1)
                v_free, h2_free = self.draw(p_v), self.draw(p_h2)
                # The probability in place of h1 itself has the same mean and less noise.
                p_h1 = self.given_v_h2(v_free, h2_free)
                h1 = self.draw(p_h1)
            self.chains.copy_(h1)
            n, m = len(v), len(h1)
            self.descend(self.weight1, p_h1.T @ v_free / m - mu1.T @ v / n)
            self.descend(self.weight2, h2_free.T @ p_h1 / m - mu2.T @ mu1 / n)
            pairs = (
                (self.visible_bias, v, v_free), (self.bias1, mu1, p_h1), (self.bias2, mu2, h2_free),
            )  # fmt: skip
            for bias, plus, minus in pairs:
                self.descend(bias, minus.mean(dim=0) - plus.mean(dim=0))
            return self.given_h1(mu1)[0].reshape(*input.shape)


def stack_pretrain(
    model: DBM,
    x: npt.NDArray[np.float32],
    *,
    epochs: int,
    lr: float,
    batch_size: int = 32,
    k: int = 1,
) -> None:
    """Pre-train both layers as RBMs on rows x (n, V), and put them together.

    A layer of the whole gets input from both sides; the RBM of the first doubles it on the way up,
    that of the second on the way down.
    """
    desk = Desk.of(model)
    hidden1, visible = model.weight1.shape
    first = RBM(visible, hidden1, k=k, up=2.0)
    second = RBM(hidden1, model.weight2.shape[0], k=k, down=2.0)
    desk.place(first)
    desk.place(second)
    fit(first, x, epochs=epochs, lr=lr, batch_size=batch_size)
    with trine.no_grad():
        h1 = first.hidden(desk.tensor(x)).numpy()
    fit(second, h1, epochs=epochs, lr=lr, batch_size=batch_size)
    with trine.no_grad():
        model.weight1.copy_(first.weight)
        model.visible_bias.copy_(first.visible_bias)
        model.bias1.copy_(first.hidden_bias)
        model.weight2.copy_(second.weight)
        model.bias2.copy_(second.hidden_bias)


# Exact numbers of small machines


def _by_h1(model: DBM, h1: trine.Tensor) -> trine.Tensor:
    """Return b1.h1 + ln sum_h2 exp(h2^T (W2 h1 + b2)) for rows h1."""
    return h1 @ model.bias1 + F.linear(h1, model.weight2, model.bias2).softplus().sum(-1)


def log_partition(model: DBM) -> trine.Tensor:
    """Return ln Z by all states of h1, given which v and h2 are sums of independent units."""
    h1 = Desk.of(model).tensor(binary_states(model.weight1.shape[0]))
    return log_sum_exp(
        _by_h1(model, h1) + (h1 @ model.weight1 + model.visible_bias).softplus().sum(-1)
    )


def log_likelihood(model: DBM, v: trine.Tensor) -> trine.Tensor:
    """Return the exact ln p(v) of rows v, by all states of h1."""
    h1 = Desk.of(model).tensor(binary_states(model.weight1.shape[0]))
    scores = F.linear(v, model.weight1) @ h1.T + _by_h1(model, h1)
    return log_sum_exp(scores) + v @ model.visible_bias - log_partition(model)


def variational_bound(model: DBM, v: trine.Tensor) -> trine.Tensor:
    """Return L(v) = -E(v, mu1, mu2) + H(mu1) + H(mu2) - ln Z <= ln p(v) of rows v."""
    mu1, mu2 = model.mean_field(v)
    agreement = (
        (F.linear(v, model.weight1, model.bias1) * mu1).sum(-1)
        + (F.linear(mu1, model.weight2, model.bias2) * mu2).sum(-1)
        + v @ model.visible_bias
    )
    return agreement + _entropy(mu1) + _entropy(mu2) - log_partition(model)


def _entropy(mu: trine.Tensor) -> trine.Tensor:
    """Return the entropy of independent bits, a number a row."""
    p = mu.clamp(1e-7, 1.0 - 1e-7)
    return -(p * p.log() + (1.0 - p) * (1.0 - p).log()).sum(-1)


# What it shows


def bound_study(desk: Desk, epochs: int = 400, points: int = 10) -> npt.NDArray[np.float64]:
    """Pre-train and train 16-8-4 on bars and stripes, everything exact.

    Returns rows (epochs of joint training, mean variational bound, mean ln p(v)); the first row, at
    -1 epochs, is the untrained machine.
    """
    images = bars_and_stripes()
    model = DBM(16, 8, 4)
    desk.place(model)
    v = desk.tensor(images)

    def measured(at: int) -> list[float]:
        with trine.no_grad():
            bound, exact = variational_bound(model, v), log_likelihood(model, v)
            return [at, float(bound.mean()), float(exact.mean())]

    rows = [measured(-1)]
    stack_pretrain(model, images, epochs=250, lr=0.2, batch_size=len(images), k=5)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    for epoch in range(epochs + 1):
        if epoch % (epochs // points) == 0:
            rows.append(measured(epoch))
        optimizer.zero_grad()
        model.learn(v, v)
        optimizer.step()
    return np.array(rows)


def mean_square(model: nn.Module, x: npt.NDArray[np.float32]) -> float:
    """Return the mean square error of images rebuilt from their mean field."""
    with trine.no_grad():
        return float(((values(model(Desk.of(model).tensor(x))) - x) ** 2).mean())


def pretrain(model: nn.Module, splits: Splits) -> None:
    """Pre-train the layers, and let the chains start from the data."""
    x = splits.train.x.reshape(len(splits.train), -1)
    stack_pretrain(model, x, epochs=PRETRAIN_EPOCHS, lr=0.05)
    with trine.no_grad():
        mu1, _ = model.mean_field(Desk.of(model).tensor(x[: len(model.chains)]))
        model.chains.copy_(mu1)


def show(model: nn.Module, splits: Splits) -> Explanation:
    """Rebuild digits before and after joint training; then the exact study of the bound."""
    desk = Desk.of(model)
    note = Explanation(
        "dbm", "A deep Boltzmann machine: mean field and persistent chains", SOURCE,
        desk.backend, desk.dtype,
        [
            "E(v, h1, h2) = -h1^T W1 v - h2^T W2 h1 - a^T v - b1^T h1 - b2^T h2",
            "mu1 = s(W1 v + W2^T mu2 + b1)      mu2 = s(W2 mu1 + b2)",
            "L(v) = -E(v, mu1, mu2) + H(mu1) + H(mu2) - ln Z <= ln p(v)",
        ],
    )  # fmt: skip
    x = np.asarray(splits.test.x)
    start = DBM(*_sizes(model))
    desk.place(start)
    untrained = mean_square(start, x)
    pretrain(start, splits)
    pretrained, trained = mean_square(start, x), mean_square(model, x)
    note.show("error", "mean square of rebuilt test images, untrained", untrained)
    note.show("error", "after pre-training", pretrained)
    note.at_most("error", "after joint training, less than that", trained, pretrained)
    rows = bound_study(desk)
    note.show("L", "16-8-4 on bars and stripes, mean bound, untrained", rows[0, 1])
    note.at_least("L", "after pre-training", rows[1, 1], rows[0, 1])
    note.at_least(
        "L", "after joint training, higher by 1 nat at least", rows[-1, 1], rows[1, 1] + 1.0
    )
    note.at_most(
        "L - ln p(v)", "never above 0, within rounding", (rows[:, 1] - rows[:, 2]).max(), 1e-4
    )
    epochs = rows[1:, 0].tolist()
    note.figure = Figure(
        "16-8-4 on bars and stripes, joint training", "epoch", "nats",
        [Curve("variational bound", epochs, rows[1:, 1].tolist()),
         Curve("exact ln p(v)", epochs, rows[1:, 2].tolist())],
    )  # fmt: skip
    shape = (-1, *x.shape[2:])
    with trine.no_grad():
        rebuilt = values(model(desk.tensor(x[:10])))
        dreams = values(model.given_h1(model.chains[:10])[0])
    note.drawings["digits"] = Images(
        "Digits in a deep Boltzmann machine",
        {
            "test images": x[:10, 0],
            "rebuilt by mean field": rebuilt.reshape(shape),
            "p(v | h1) of ten persistent chains": dreams.reshape(shape),
        },
    )
    return note


def _sizes(model: DBM) -> tuple[int, int, int]:
    return model.weight1.shape[1], model.weight1.shape[0], model.weight2.shape[0]


@system(
    "dbm",
    family="Boltzmann machines",
    year=2009,
    source=SOURCE,
    summary="784-128-64: layers pre-trained, then mean field against persistent chains",
    data="digits",
    task=own_targets,
    loss=half_squared_error,
    metrics=(),
    lr=0.02,
    optimizer_args={"momentum": 0.5},
    schedule="cosine",
    batch_size=50,
    epochs=30,
    pretrain=pretrain,
    shows=show,
)
def build() -> DBM:
    """Return a machine for images of 28x28 with 128 and 64 hidden units."""
    return DBM(28 * 28, 128, 64)
