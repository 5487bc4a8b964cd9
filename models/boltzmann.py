"""`boltzmann`: an unrestricted Boltzmann machine of eight units, small enough for exact numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn, random
from trine.data import Splits
from trine.models.desk import Desk, made_splits, values
from trine.models.enumeration import binary_states, cosine, gradients, log_sum_exp
from trine.models.explanation import Explanation
from trine.models.figures import Curve, Figure
from trine.models.registry import system
from trine.random import make_key, stream_id, uniform

Array = npt.NDArray[np.float64]
SOURCE = "source notes 001; Ackley, Hinton and Sejnowski, 1985"
VISIBLE, HIDDEN = 6, 2
UNITS = VISIBLE + HIDDEN
CODES = np.array([[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 0, 1]], dtype=np.float64)
"""The 3-2-3 encoder's patterns: one of three units on, on both sides alike."""
DROP, ADD = 0.15, 0.05
"""The paper's noise, which keeps the weights finite: an on unit is off, an off unit on."""


class Boltzmann(nn.Learner):
    """Binary units s, any two of them connected: E(s) = -1/2 s^T W s - b^T s, p(s) = e^-E / Z.

    dw_ij = <s_i s_j>+ - <s_i s_j>-, db_i = <s_i>+ - <s_i>-: in the plus phase the visible units,
    which come first, hold the data, in the minus phase all run freely. Both averages are taken by
    Gibbs sampling, p(s_i = 1 | others) = s(sum_j w_ij s_j + b_i), one unit after another; the free
    phase goes on where the step before left its chains.
    """

    states: trine.Tensor
    chains: trine.Tensor
    unit: trine.Tensor

    def __init__(
        self, visible: int, hidden: int, *, chains: int = 200, settle: int = 3, sweeps: int = 3
    ) -> None:
        super().__init__()
        units = visible + hidden
        self.visible, self.hidden, self.settle, self.sweeps = visible, hidden, settle, sweeps
        # A start at zero is a saddle: the hidden units would never differ from one another.
        self.weight = nn.Parameter(trine.zeros(units, units))
        nn.init.normal_(self.weight, std=0.1)
        with trine.no_grad():
            self.weight.copy_((self.weight + self.weight.T) * (1.0 - trine.eye(units)) * 0.5)
        self.bias = nn.Parameter(trine.zeros(units))
        self.register_buffer("unit", trine.eye(units), persistent=False)
        self.register_buffer("states", trine.tensor(binary_states(units)), persistent=False)
        self.register_buffer("chains", trine.full((chains, units), 0.5))

    # Sampling

    def draw(self, p: trine.Tensor) -> trine.Tensor:
        """Return bits with the probabilities p, by the module's next random draw."""
        return F.bernoulli(p, random.default_generator().key(self.stream("gibbs")))

    def gibbs(self, s: trine.Tensor, first: int, sweeps: int) -> trine.Tensor:
        """Return states (n, units) after sweeps over the units from number `first` on."""
        for _ in range(sweeps):
            for i in range(first, self.visible + self.hidden):
                p = (s @ self.weight[i] + self.bias[i]).sigmoid()
                s = s + (self.draw(p) - s[:, i]).unsqueeze(1) * self.unit[i]
        return s

    def statistics(self, s: trine.Tensor) -> tuple[trine.Tensor, trine.Tensor]:
        """Return <s_i s_j> without the diagonal, and <s_i>, over rows of states."""
        return (s.T @ s) * (1.0 - self.unit) / len(s), s.mean(dim=0)

    def learn(self, input: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
        """Set the directions by the two phases; returns the exact ln p(v) of the batch."""
        with trine.no_grad():
            undecided = trine.full(
                (len(input), self.hidden), 0.5, dtype=input.dtype, backend=input.backend
            )
            clamped = self.gibbs(trine.cat([input, undecided], 1), self.visible, self.settle)
            free = self.gibbs(self.chains, 0, self.sweeps)
            self.chains.copy_(free)
            (plus_w, plus_b), (minus_w, minus_b) = self.statistics(clamped), self.statistics(free)
            self.descend(self.weight, minus_w - plus_w)
            self.descend(self.bias, minus_b - plus_b)
            return self(input)

    # Exact numbers, by all 2^units states

    def negative_energies(self) -> trine.Tensor:
        """Return -E(s) of every state: (2^units,)."""
        s = self.states
        return ((s @ self.weight) * s).sum(dim=-1) * 0.5 + s @ self.bias

    def log_probabilities(self) -> trine.Tensor:
        """Return ln p(v) of every visible state, in the order of `binary_states`."""
        scores = self.negative_energies()
        # Unit j is bit j of the state's number, so that the hidden units, which come last, are rows.
        by_visible = scores.reshape(1 << self.hidden, 1 << self.visible).T
        return log_sum_exp(by_visible) - log_sum_exp(scores)

    def forward(self, v: trine.Tensor) -> trine.Tensor:
        """Return the exact ln p(v) of visible states (n, visible): (n,)."""
        place = trine.tensor(2.0 ** np.arange(self.visible), dtype=v.dtype, backend=v.backend)
        return self.log_probabilities()[(v @ place).long()]


def negative_log_likelihood(output: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
    """Return -1/n sum ln p(v) of the outputs ln p(v); what the targets are does not matter."""
    return -output.mean()


# Data


def data_distribution() -> Array:
    """Return p(v) of the noisy encoder patterns, for every visible state: (64,)."""
    v = binary_states(VISIBLE)[:, None]
    on = np.where(CODES == 1, 1.0 - DROP, ADD)
    return np.asarray(np.where(v == 1, on, 1.0 - on).prod(axis=2).mean(axis=1))


def noisy_codes(train: int = 4000, test: int = 1000) -> Splits:
    """Draw the three codes of the encoder in turn, with the paper's noise; targets are the samples."""
    clean = CODES[np.arange(train + test) % len(CODES)]
    draws = uniform(make_key(0, stream_id("boltzmann noise")), clean.shape, "float64")
    x = np.where(clean == 1, draws >= DROP, draws < ADD).astype(np.float32)
    about = (
        "the 3-2-3 encoder's codes; an on unit is dropped with 0.15, an off unit added with 0.05"
    )
    return made_splits("noisy-codes", x, x, train=train, description=about)


# What it shows


def divergence(p: Array, model: Boltzmann) -> float:
    """Return KL(p || model) = sum_v p(v) (ln p(v) - ln model(v)), exactly."""
    q = values(model.log_probabilities())
    return float(np.sum(p * (np.log(p) - q)))


def exact_gradient(model: Boltzmann, v: trine.Tensor) -> Array:
    """Return the gradient of -1/n sum ln p(v), through the enumeration of all states."""
    model.zero_grad()
    negative_log_likelihood(model(v), v).backward()
    # w_ij and w_ji are one weight, kept twice: each half of the gradient counts for both.
    half = values(model.weight.grad) * (1.0 - values(model.unit))
    found = np.concatenate([(half + half.T).ravel(), values(model.bias.grad)])
    model.zero_grad()
    return found


def sampled_direction(model: Boltzmann, v: trine.Tensor) -> Array:
    """Return the direction that the rule gives, averaged over 20 calls of `learn`."""
    model.zero_grad()
    for _ in range(20):
        model.learn(v, v)
    found = gradients([model.weight, model.bias]) / 20
    model.zero_grad()
    return found


def show(model: nn.Module, splits: Splits) -> Explanation:
    """Compare the rule's direction with the exact gradient, and p(v) with the data's."""
    desk = Desk.of(model)
    note = Explanation(
        "boltzmann", "The 3-2-3 encoder in a Boltzmann machine of eight units", SOURCE,
        desk.backend, desk.dtype,
        [
            "E(s) = -1/2 s^T W s - b^T s      p(s) = e^-E(s) / Z",
            "dw_ij = <s_i s_j>+ - <s_i s_j>-      (the gradient of ln p(v), averages by sampling)",
            "KL(data || model) = sum_v p(v) ln(p(v) / model(v)), over all 64 visible states",
        ],
    )  # fmt: skip
    p = data_distribution()
    fresh = Boltzmann(VISIBLE, HIDDEN)
    desk.place(fresh)
    before, after = divergence(p, fresh), divergence(p, model)
    note.show("KL", "before learning, in nats", before)
    note.show("KL", "after learning", after)
    note.at_least("KL falls", "by a factor of", before / after, 10.0)
    v = desk.tensor(splits.train.x[:1200])
    for machine, when in ((fresh, "before"), (model, "after")):
        # From their start the free chains first have to find their equilibrium.
        with trine.no_grad():
            machine.chains.copy_(machine.gibbs(machine.chains, 0, 50))
        followed = cosine(sampled_direction(machine, v), exact_gradient(machine, v))
        if when == "before":
            note.at_least(
                "cosine", "of sampled direction and exact gradient, untrained", followed, 0.95
            )
        else:
            note.show("cosine", "the same when trained: the gradient is almost 0 then", followed)
    q = np.exp(values(model.log_probabilities()))
    order = np.argsort(-p)
    note.matrices["the six likeliest v, p(v) of the data and of the model"] = np.column_stack(
        [binary_states(VISIBLE)[order[:6]], p[order[:6]], q[order[:6]]]
    )
    ranks = list(range(1, len(p) + 1))
    note.figure = Figure(
        "Probability of each visible state", "visible state, the likeliest first", "probability",
        [Curve("data", ranks, p[order].tolist()), Curve("model", ranks, q[order].tolist())],
        log_y=True,
    )  # fmt: skip
    return note


@system(
    "boltzmann",
    family="Boltzmann machines",
    year=1985,
    source=SOURCE,
    summary="eight fully connected units learn the 3-2-3 encoder; compared with exact enumeration",
    data=noisy_codes,
    loss=negative_log_likelihood,
    metrics=(),
    lr=0.1,
    schedule="cosine",
    batch_size=200,
    epochs=60,
    shows=show,
)
def build() -> Boltzmann:
    """Return a machine of six visible and two hidden units near zero."""
    return Boltzmann(VISIBLE, HIDDEN)
