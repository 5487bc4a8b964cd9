"""`dnn-hmm`: a network's posteriors over priors stand for the emissions of a hidden Markov model.

The hybrid of speech recognition: the HMM holds what may follow what, the network says which state a
frame sounds like, and Viterbi's algorithm finds the best path through both.
"""

from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn
from trine.data import Splits
from trine.models.desk import Desk, draw_normal, made_splits, set_parameters, values
from trine.models.explanation import Explanation
from trine.models.figures import Curve, Figure, Points
from trine.models.registry import system
from trine.random import integers, make_key, stream_id, uniform

SOURCE = "source notes 001; Bourlard and Morgan, 1994; Hinton et al., 2012"
Array = npt.NDArray[np.float64]
States = npt.NDArray[np.int64]

STATES, DIMENSIONS, MODES = 6, 2, 4
LENGTH = 60
STAY = np.array([0.95, 0.6, 0.9, 0.5, 0.85, 0.7])
"""Probability of staying in each state; the states' shares of time differ by the factor 10."""
SPREAD, NOISE = 1.5, 0.4
"""Deviation of the modes' centres, and of a frame about its mode's centre."""


def transitions() -> Array:
    """Return A (S, S), A_ij = P(state j after i): stay, or go on to one of the next two states."""
    a = np.diag(STAY)
    for i in range(STATES):
        a[i, (i + 1) % STATES] = 0.7 * (1.0 - STAY[i])
        a[i, (i + 2) % STATES] = 0.3 * (1.0 - STAY[i])
    return a


def centres() -> Array:
    """Return the centres (S, 4, 2) of each state's four modes."""
    return SPREAD * draw_normal("dnn-hmm centres", (STATES, MODES, DIMENSIONS), seed=1)


def frames(train: int = 300, test: int = 100, length: int = LENGTH) -> Splits:
    """Make sequences x (N, T, 2) of an HMM with six states, and as y (N, T) the states themselves.

    A sequence starts in each state alike and goes on by `transitions`. A frame is normal, with
    deviation 0.4, about one of the four centres of its state, each as likely as the others: what
    a state sounds like is no single Gaussian.
    """
    n = train + test
    key = [make_key(0, stream_id(f"dnn-hmm {length}"), draw) for draw in range(3)]
    steps = uniform(key[0], (length, n), "float64")
    y = np.empty((n, length), dtype=np.int64)
    y[:, 0] = integers(key[1], 0, STATES, (n,))
    upto = transitions().cumsum(1)
    upto[:, -1] = 1.0
    for t in range(1, length):
        y[:, t] = (steps[t][:, None] >= upto[y[:, t - 1]]).sum(1)
    mode = integers(key[2], 0, MODES, (n, length))
    noise = draw_normal(f"dnn-hmm noise {length}", (n, length, DIMENSIONS))
    x = centres()[y, mode] + NOISE * noise
    about = "sequences of an HMM with six states, each of which sounds like four Gaussians"
    return made_splits("hmm-frames", x.astype(np.float32), y, train=train, description=about)


def viterbi(
    log_emission: trine.Tensor, log_transition: trine.Tensor, log_start: trine.Tensor
) -> tuple[trine.Tensor, trine.Tensor]:
    """Return the best paths (N, T), int64, and their log-probabilities (N,).

        d_1(j) = log pi_j + log b_j(x_1)
        d_t(j) = max_i [d_(t-1)(i) + log A_ij] + log b_j(x_t),   best_t(j) the i that gives it
        s_T = argmax_j d_T(j),   s_(t-1) = best_t(s_t)

    log_emission: (N, T, S), log b_j(x_t) up to a constant of each frame; log_transition: (S, S),
    from row to column; log_start: (S,). Raises ValueError for shapes that do not match. The first
    of equally good states is taken. Source: Viterbi, 1967; Rabiner, 1989.
    """
    if (
        log_emission.ndim != 3
        or log_emission.shape[1] == 0
        or log_transition.shape != (log_emission.shape[2],) * 2
        or log_start.shape != log_emission.shape[2:]
    ):
        raise ValueError(
            "[viterbi] expected log_emission (N, T, S) with T >= 1, log_transition (S, S) and "
            f"log_start (S,), got {log_emission.shape}, {log_transition.shape} and "
            f"{log_start.shape}. Give the three the same S."
        )
    score = log_emission[:, 0] + log_start
    best = []
    for t in range(1, log_emission.shape[1]):
        reached, before = (score.unsqueeze(2) + log_transition).max(1)
        score = reached + log_emission[:, t]
        best.append(before)
    end, state = score.max(1)
    rows = trine.arange(state.shape[0], backend=state.backend)
    path = [state]
    for before in reversed(best):
        path.append(before[rows, path[-1]])
    return trine.stack(path[::-1], 1), end


def best_by_trial(
    log_emission: Array, log_transition: Array, log_start: Array
) -> tuple[States, float]:
    """Return the best path of one sequence (T, S) by trying all S^T of them, and its score."""
    steps, states = log_emission.shape
    best, best_score = None, -math.inf
    for path in product(range(states), repeat=steps):
        score = log_start[path[0]] + sum(log_emission[t, s] for t, s in enumerate(path))
        score += sum(log_transition[i, j] for i, j in pairwise(path))
        if score > best_score:
            best, best_score = path, score
    return np.array(best), float(best_score)


class DnnHmm(nn.Module):
    """A network for P(state | frame), and the probabilities of an HMM.

        log p(x_t | j) = log P(j | x_t) - log P(j) + log p(x_t)            (Bayes)

    The last term is the same for all states of a frame, so Viterbi does without it.
    """

    def __init__(self, inputs: int, hidden: int, states: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, states),
        )  # fmt: skip
        even = trine.full((states,), -math.log(states))
        self.register_buffer("log_prior", even)
        self.register_buffer("log_start", even.clone())
        self.register_buffer("log_transition", trine.full((states, states), -math.log(states)))

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """Return the scores (N, S, T) of the states for frames (N, T, D), as cross_entropy takes them."""
        return self.net(x).transpose(1, 2)

    def decode(self, x: trine.Tensor, *, priors: bool = True) -> trine.Tensor:
        """Return the best states (N, T) by posteriors over priors, or by posteriors alone."""
        emission = F.log_softmax(self.net(x), -1)
        if priors:
            emission = emission - self.log_prior
        return viterbi(emission, self.log_transition, self.log_start)[0]


def log_counts(y: States, states: int) -> tuple[Array, Array, Array]:
    """Return the logarithms of priors, start and transition probabilities as counted, each + 1."""
    prior = np.bincount(y.ravel(), minlength=states) + 1.0
    start = np.bincount(y[:, 0], minlength=states) + 1.0
    pairs = states * y[:, :-1] + y[:, 1:]
    transition = np.bincount(pairs.ravel(), minlength=states**2).reshape(states, states) + 1.0
    return (
        np.log(prior / prior.sum()),
        np.log(start / start.sum()),
        np.log(transition / transition.sum(1, keepdims=True)),
    )


def count_states(model: DnnHmm, splits: Splits) -> None:
    """Give the model the HMM's probabilities as the training set has them."""
    prior, start, transition = log_counts(splits.train.y, len(model.log_prior))
    set_parameters(model, log_prior=prior, log_start=start, log_transition=transition)


def gaussian_emissions(x: Array, y: States, frames_: Array) -> Array:
    """Return log p(frame | state) (..., S) by one Gaussian a state, with the full covariance.

    Means and covariances are the maximum-likelihood ones of x (N, T, D) with states y (N, T).
    """
    found = []
    for state in range(STATES):
        own = x[y == state]
        mean, covariance = own.mean(0), np.cov(own.T, bias=True)
        off = frames_ - mean
        distance = (off @ np.linalg.inv(covariance) * off).sum(-1)
        found.append(-0.5 * (distance + np.linalg.slogdet(2.0 * math.pi * covariance)[1]))
    return np.stack(found, axis=-1)


def true_emissions(frames_: Array) -> Array:
    """Return log p(frame | state) (..., S) by the rule that made the frames, up to a constant."""
    distance = ((frames_[..., None, None, :] - centres()) ** 2).sum(-1) / NOISE**2
    return np.asarray(np.log(np.exp(-0.5 * distance).sum(-1) + 1e-300))


def errors(model: DnnHmm, splits: Splits) -> dict[str, float]:
    """Return the share of wrong states on the test set for each kind of emissions."""
    desk = Desk.of(model)
    x, y = (np.asarray(a) for a in (splits.test.x.astype(np.float64), splits.test.y))
    start, transition = model.log_start, model.log_transition

    def by_hmm(emission: Array) -> States:
        return values(viterbi(desk.tensor(emission), transition, start)[0]).astype(np.int64)

    with trine.no_grad():
        inputs = desk.tensor(x)
        found = {
            "Gaussian, Viterbi": by_hmm(
                gaussian_emissions(splits.train.x.astype(np.float64), splits.train.y, x)
            ),
            "network, each frame alone": values(model(inputs).argmax(1)),
            "network, posteriors alone, Viterbi": values(model.decode(inputs, priors=False)),
            "network, posteriors over priors, Viterbi": values(model.decode(inputs)),
            "the true emissions, Viterbi": by_hmm(true_emissions(x)),
        }
    return {name: float((guess != y).mean()) for name, guess in found.items()}


def viterbi_and_trial(model: DnnHmm, splits: Splits, *, steps: int = 5, sequences: int = 3) -> bool:
    """Return whether Viterbi's paths are the best of all S^T ones on short sequences."""
    desk = Desk.of(model)
    x = np.asarray(splits.test.x[:sequences, :steps], np.float64)
    emission = desk.tensor(true_emissions(x))
    paths, _ = viterbi(emission, model.log_transition, model.log_start)
    tables = values(model.log_transition), values(model.log_start)
    return all(
        np.array_equal(values(paths)[i], best_by_trial(values(emission)[i], *tables)[0])
        for i in range(sequences)
    )


def shows(model: DnnHmm, splits: Splits) -> Explanation:
    """Compare the hybrid's errors with those of Gaussian and of the true emissions."""
    desk = Desk.of(model)
    note = Explanation(
        "dnn-hmm",
        "States of an HMM, found by a network and Viterbi's algorithm",
        SOURCE,
        desk.backend,
        desk.dtype,
        [
            "log p(x_t | j) = log P(j | x_t) - log P(j) + log p(x_t)",
            "d_t(j) = max_i [d_(t-1)(i) + log A_ij] + log p(x_t | j)",
        ],
    )
    wrong = errors(model, splits)
    for name, share in wrong.items():
        note.show("wrong", f"states of the test set: {name}", share)
    hybrid = wrong["network, posteriors over priors, Viterbi"]
    for name, factor in (("Gaussian, Viterbi", 0.8), ("network, each frame alone", 0.8)):
        note.at_most(
            "hybrid", f"at most {factor:g} of the errors of: {name}", hybrid, factor * wrong[name]
        )
    note.truth("Viterbi", "best of all 6^5 paths, by trial", viterbi_and_trial(model, splits))
    x, y = splits.test.x[0], splits.test.y[0]
    path = values(model.decode(desk.tensor(x[None])))[0]
    frame = np.repeat(np.arange(len(y) + 1), 2)[1:-1]  # a stair: each state from frame t to t + 1
    note.figure = Figure(
        "The first test sequence", "frame", "state",
        [Curve("true", frame, np.repeat(y, 2)), Curve("dnn-hmm", frame, np.repeat(path, 2))],
    )  # fmt: skip
    flat, states = splits.test.x[:20].reshape(-1, DIMENSIONS), splits.test.y[:20].ravel()
    note.drawings["frames"] = Points(
        "Frames, and the states they come from", "x_1", "x_2",
        {f"state {k}": flat[states == k] for k in range(STATES)},
    )  # fmt: skip
    return note


@system(
    "dnn-hmm",
    family="recurrent",
    year=1994,
    source=SOURCE,
    summary="hybrid of speech recognition: a network's posteriors over priors, and Viterbi",
    data=frames,
    loss=F.cross_entropy,
    optimizer="adam",
    lr=3e-3,
    schedule="cosine",
    batch_size=10,
    epochs=12,
    pretrain=count_states,
    shows=shows,
)
def build() -> DnnHmm:
    """Return a network 2-64-64-6 and an HMM of six states, at first one in which all is alike."""
    return DnnHmm(DIMENSIONS, 64, STATES)
