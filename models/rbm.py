"""`rbm`: a restricted Boltzmann machine by contrastive divergence, and its exact likelihood."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn, optim, random
from trine.data import ArrayDataset, Splits
from trine.models.desk import Desk, half_squared_error, own_targets, values
from trine.models.desk import fit as train
from trine.models.enumeration import binary_states, cosine, gradients, log_sum_exp
from trine.models.explanation import Explanation
from trine.models.figures import Curve, Figure, Images
from trine.models.registry import system

Array = npt.NDArray[np.float64]
SOURCE = "source notes 001; Hinton, Training products of experts, 2002"


class RBM(nn.Learner):
    """Visible units v and hidden units h, connected only across: E = -h^T W v - a^T v - b^T h.

    p(h = 1 | v) = s(W v + b), p(v = 1 | h) = s(W^T h + a). CD-k: the chain starts at the data,
    goes k times there and back, and  dW = <h v^T>_0 - <h v^T>_k, da = <v>_0 - <v>_k,
    db = <h>_0 - <h>_k.

    `up` and `down` multiply W on the way up and down, in the conditions and in the chain; a layer
    of a deep Boltzmann machine is pre-trained with one of them at 2, for the neighbour it lacks.
    """

    def __init__(
        self, visible: int, hidden: int, *, k: int = 1, up: float = 1.0, down: float = 1.0
    ) -> None:
        super().__init__()
        self.k, self.up, self.down = k, up, down
        self.weight = nn.Parameter(trine.zeros(hidden, visible))
        nn.init.normal_(self.weight, std=0.01)
        self.visible_bias = nn.Parameter(trine.zeros(visible))
        self.hidden_bias = nn.Parameter(trine.zeros(hidden))

    def hidden(self, v: trine.Tensor) -> trine.Tensor:
        """Return p(h = 1 | v) for (n, V): (n, H)."""
        return F.linear(
            v * self.up if self.up != 1.0 else v, self.weight, self.hidden_bias, "sigmoid"
        )

    def visible(self, h: trine.Tensor) -> trine.Tensor:
        """Return p(v = 1 | h) for (n, H): (n, V)."""
        return (
            (h * self.down if self.down != 1.0 else h) @ self.weight + self.visible_bias
        ).sigmoid()

    def draw(self, p: trine.Tensor) -> trine.Tensor:
        """Return bits with the probabilities p, by the module's next random draw."""
        return F.bernoulli(p, random.default_generator().key(self.stream("gibbs")))

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """Return images (n, ...) as p(h | v) and back make of them."""
        return self.visible(self.hidden(x.flatten(1))).reshape(*x.shape)

    def learn(self, input: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
        """Set the directions by CD-k; returns the reconstruction."""
        with trine.no_grad():
            v0 = input.flatten(1)
            h0 = self.hidden(v0)
            vk, hk = v0, h0
            for _ in range(self.k):
                vk = self.draw(self.visible(self.draw(hk)))
                hk = self.hidden(vk)
            n = len(input)
            self.descend(self.weight, (hk.T @ vk - h0.T @ v0) / n)
            self.descend(self.visible_bias, (vk - v0).mean(dim=0))
            self.descend(self.hidden_bias, (hk - h0).mean(dim=0))
            return self.visible(h0).reshape(*input.shape)


def exact_log_likelihood(rbm: RBM, v: trine.Tensor) -> trine.Tensor:
    """Return ln p(v) of rows (n, V), Z by all states of the hidden units; differentiable.

    ln p(v) = a.v + sum_j softplus(W v + b)_j - ln Z,
    Z = sum_h exp(b.h + sum_i softplus(W^T h + a)_i).
    """
    h = Desk.of(rbm).tensor(binary_states(rbm.weight.shape[0]))
    log_z = log_sum_exp(
        h @ rbm.hidden_bias + (h @ rbm.weight + rbm.visible_bias).softplus().sum(-1)
    )
    free = F.linear(v, rbm.weight, rbm.hidden_bias).softplus().sum(-1) + v @ rbm.visible_bias
    return free - log_z


def fit(
    rbm: RBM,
    x: npt.NDArray[np.float32],
    *,
    epochs: int,
    lr: float,
    momentum: float = 0.5,
    batch_size: int = 32,
    seed: int = 0,
) -> None:
    """Train an RBM on rows x (n, V) by descent along its rule's directions.

    It trains a copy and loads the weights back, so that an optimiser that owns them keeps them.
    """
    twin = copy.deepcopy(rbm)
    optimizer = optim.SGD(twin.parameters(), lr=lr, momentum=momentum)
    train(
        twin, ArrayDataset(x, x), half_squared_error,
        epochs=epochs, optimizer=optimizer, batch_size=batch_size, seed=seed,
    )  # fmt: skip
    rbm.load_state_dict(twin.state_dict())


# The exact study: 16 visible and 8 hidden units


def bars_and_stripes(side: int = 4) -> npt.NDArray[np.float32]:
    """Return every image in which whole columns, or whole rows, are on: 30 of 4x4, flattened."""
    columns = np.repeat(binary_states(side)[:, None], side, axis=1)
    rows = columns.transpose(0, 2, 1)[1:-1]  # all on and all off are both
    return np.concatenate([columns, rows]).reshape(-1, side * side)


def exact_gradient(rbm: RBM, v: trine.Tensor) -> Array:
    """Return the gradient of -1/n sum ln p(v) through the exact partition function."""
    rbm.zero_grad()
    (-exact_log_likelihood(rbm, v).mean()).backward()
    found = gradients(rbm.parameters())
    rbm.zero_grad()
    return found


def cd_direction(rbm: RBM, v: trine.Tensor, k: int, copies: int = 200) -> Array:
    """Return the direction of CD-k for rows v, averaged over many chains from each."""
    rbm.zero_grad()
    kept, rbm.k = rbm.k, k
    many = trine.cat([v] * copies)
    rbm.learn(many, many)
    rbm.k = kept
    found = gradients(rbm.parameters())
    rbm.zero_grad()
    return found


def exact_study(desk: Desk, epochs: int = 500, points: int = 10) -> tuple[RBM, Array, Array]:
    """Train 16-8 by CD-5 on bars and stripes, everything exact.

    Returns the machine; rows (epochs, mean ln p(v) of the 30 images); and the cosines of CD-1 and
    CD-10 with the exact gradient, after a third of the training, when the likelihood rises fastest.
    """
    rbm = RBM(16, 8, k=5)
    desk.place(rbm)
    v = desk.tensor(bars_and_stripes())
    optimizer = optim.SGD(rbm.parameters(), lr=0.4, momentum=0.5)
    rows, cosines = [], np.zeros(2)
    for epoch in range(epochs + 1):
        if epoch % (epochs // points) == 0:
            with trine.no_grad():
                rows.append((epoch, float(exact_log_likelihood(rbm, v).mean())))
        if epoch == epochs // 3:
            exact = exact_gradient(rbm, v)
            cosines = np.array([cosine(cd_direction(rbm, v, k), exact) for k in (1, 10)])
        optimizer.zero_grad()
        rbm.learn(v, v)
        optimizer.step()
    return rbm, np.array(rows), cosines


def gibbs_samples(rbm: RBM, start: trine.Tensor, sweeps: int) -> trine.Tensor:
    """Return p(v | h) at the end of chains of so many sweeps from visible states (n, V)."""
    with trine.no_grad():
        v = start
        for _ in range(sweeps):
            p = rbm.visible(rbm.draw(rbm.hidden(v)))
            v = rbm.draw(p)
        return p


def show(model: nn.Module, splits: Splits) -> Explanation:
    """Reconstruct and dream digits; then the exact study on bars and stripes."""
    desk = Desk.of(model)
    note = Explanation(
        "rbm", "A restricted Boltzmann machine by contrastive divergence", SOURCE,
        desk.backend, desk.dtype,
        [
            "E(v, h) = -h^T W v - a^T v - b^T h",
            "CD-k: dW = <h v^T>_0 - <h v^T>_k, the chain starting at the data",
            "exact, 16-8: Z = sum over 256 states h of exp(b.h) prod_i (1 + exp(W^T h + a)_i)",
        ],
    )  # fmt: skip
    x = np.asarray(splits.test.x)
    seen = desk.tensor(x)
    with trine.no_grad():
        rebuilt = values(model(seen))
    spread = ((x - np.asarray(splits.train.x).mean(axis=0)) ** 2).mean()
    error = ((rebuilt - x) ** 2).mean()
    note.show("error", "mean square of test images, rebuilt from the hidden units", error)
    note.at_most("error", "as a share of the images' variance", error / spread, 0.25)
    _, rows, cosines = exact_study(desk)
    note.show("ln p(v)", "16-8 on bars and stripes, exact mean, untrained", rows[0, 1])
    note.at_least("ln p(v)", "after CD-5: higher by 5 (best possible -ln 30 = -3.40)", rows[-1, 1],
                  rows[0, 1] + 5.0)  # fmt: skip
    note.at_least("cosine", "CD-1 with the exact gradient, a third on the way", cosines[0], 0.5)
    note.at_least("cosine", "CD-10 with the exact gradient", cosines[1], 0.9)
    note.figure = Figure(
        "16-8 on bars and stripes, CD-5", "epoch", "mean ln p(v), exact",
        [Curve("ln p(v)", rows[:, 0].tolist(), rows[:, 1].tolist()),
         Curve("best possible, -ln 30", [0, rows[-1, 0]], [-np.log(30)] * 2)],
    )  # fmt: skip
    shape = x.shape[2:]
    dreams = gibbs_samples(model, seen[:10].flatten(1), 200)
    strongest = np.argsort(-np.abs(values(model.weight)).sum(axis=1))[:10]
    note.drawings["digits"] = Images(
        "Digits in a restricted Boltzmann machine",
        {
            "test images": x[:10, 0],
            "rebuilt": rebuilt[:10, 0],
            "200 sweeps later": values(dreams).reshape(-1, *shape),
            "weights of ten hidden units": values(model.weight)[strongest].reshape(-1, *shape),
        },
    )
    return note


@system(
    "rbm",
    family="Boltzmann machines",
    year=2002,
    source=SOURCE,
    summary="digits rebuilt by 128 hidden units, CD-1; exact likelihood of 16-8 on bars and stripes",
    data="digits",
    task=own_targets,
    loss=half_squared_error,
    metrics=(),
    lr=0.05,
    optimizer_args={"momentum": 0.5},
    batch_size=32,
    epochs=30,
    shows=show,
)
def build() -> RBM:
    """Return a machine for images of 28x28 with 128 hidden units."""
    return RBM(28 * 28, 128)
