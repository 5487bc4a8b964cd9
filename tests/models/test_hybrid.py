"""Hidden Markov models: Viterbi's algorithm, and a network in place of Gaussian emissions."""

from __future__ import annotations

import math

import numpy as np
import pytest

import trine
from trine import models, nn
from trine.models.hybrid import (
    STATES,
    best_by_trial,
    count_states,
    errors,
    frames,
    gaussian_emissions,
    log_counts,
    transitions,
    true_emissions,
    viterbi,
)

rng = np.random.default_rng(5)


@pytest.mark.parametrize(("steps", "states"), [(1, 3), (2, 2), (5, 4), (7, 3), (4, 1)])
def test_viterbi_is_the_best_of_all_paths(steps: int, states: int, backend_name: str) -> None:
    emission = rng.normal(size=(4, steps, states))
    transition = np.log(rng.dirichlet(np.ones(states), size=states))
    start = np.log(rng.dirichlet(np.ones(states)))
    paths, scores = viterbi(*(trine.tensor(a) for a in (emission, transition, start)))
    assert paths.shape == (4, steps)
    for i in range(4):
        path, score = best_by_trial(emission[i], transition, start)
        assert paths.numpy()[i].tolist() == path.tolist()
        assert scores.numpy()[i] == pytest.approx(score, abs=1e-12)


def test_viterbi_takes_the_way_that_is_worse_at_first() -> None:
    """Two states: state 1 sounds better at first, but nothing leads from it to what comes then."""
    emission = np.log([[[0.4, 0.6], [0.9, 0.1], [0.9, 0.1]]])
    transition = np.log([[0.99, 0.01], [0.01, 0.99]])
    paths, _ = viterbi(*(trine.tensor(a) for a in (emission, transition, np.log([0.5, 0.5]))))
    assert paths.tolist() == [[0, 0, 0]]
    assert emission[0].argmax(1).tolist() == [1, 0, 0]


def test_viterbi_says_which_shapes_it_wants() -> None:
    good = [trine.zeros(2, 3, 4), trine.zeros(4, 4), trine.zeros(4)]
    for place, shape in ((0, (3, 4)), (0, (2, 0, 4)), (1, (4, 3)), (2, (3,))):
        wrong = [*good]
        wrong[place] = trine.zeros(*shape)
        with pytest.raises(ValueError, match=r"\[viterbi\] expected log_emission \(N, T, S\)"):
            viterbi(*wrong)


def test_made_states_follow_the_stated_chain() -> None:
    splits = frames(train=2000, test=1)
    counted = np.exp(log_counts(splits.train.y, STATES)[2])
    assert counted == pytest.approx(transitions(), abs=0.02)
    assert transitions().sum(1) == pytest.approx(np.ones(STATES))
    prior = np.exp(log_counts(splits.train.y, STATES)[0])
    assert prior.max() / prior.min() > 5


def test_counted_probabilities_are_probabilities() -> None:
    prior, start, transition = (np.exp(a) for a in log_counts(np.array([[0, 1, 1], [0, 0, 1]]), 3))
    assert prior == pytest.approx(np.array([4, 4, 1]) / 9)
    assert start == pytest.approx(np.array([3, 1, 1]) / 5)
    assert transition == pytest.approx(
        np.array([[2, 3, 1], [1, 2, 1], [1, 1, 1]]) / [[6], [4], [3]]
    )


def test_gaussian_emissions_are_the_normal_density() -> None:
    splits = frames(train=20, test=1)
    x, y = splits.train.x.astype(np.float64), splits.train.y
    found = gaussian_emissions(x, y, x[:1])
    own = x[y == 2]
    off, covariance = x[0, 0] - own.mean(0), np.cov(own.T, bias=True)
    density = math.exp(-0.5 * off @ np.linalg.solve(covariance, off)) / math.sqrt(
        np.linalg.det(2 * math.pi * covariance)
    )
    assert found[0, 0, 2] == pytest.approx(math.log(density))


def test_the_hybrid_beats_gaussian_emissions(train_system, backend_name: str) -> None:
    run = train_system("dnn-hmm", backend_name, epochs=5)
    note = run.system.shows(run.model, run.splits)
    assert note.failures() == []
    wrong = errors(run.model, run.splits)
    hybrid = wrong["network, posteriors over priors, Viterbi"]
    assert hybrid < 0.8 * wrong["Gaussian, Viterbi"]
    assert hybrid < 0.8 * wrong["network, each frame alone"]
    assert hybrid < wrong["network, posteriors alone, Viterbi"]
    assert hybrid > wrong["the true emissions, Viterbi"] - 0.01


def test_decoding_divides_posteriors_by_priors() -> None:
    """With the true posteriors in place of the network, decoding is that of the true emissions."""
    splits = frames(train=200, test=20)
    model = models.get("dnn-hmm").build()
    count_states(model, splits)
    model.double()
    model.net = nn.Identity()
    emission = true_emissions(splits.test.x.astype(np.float64))
    joint = trine.tensor(emission + model.log_prior.numpy())  # its log_softmax is the posterior
    expected, _ = viterbi(trine.tensor(emission), model.log_transition, model.log_start)
    assert np.array_equal(model.decode(joint).numpy(), expected.numpy())
    assert not np.array_equal(model.decode(joint, priors=False).numpy(), expected.numpy())
