"""Boltzmann machines: their rules against exact enumeration, and what pre-training is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest

import trine
from trine import models, nn, optim
from trine.data import Splits
from trine.models import boltzmann, deep_belief, deep_boltzmann, rbm
from trine.models.desk import Desk, values
from trine.models.enumeration import MOST_UNITS, binary_states, cosine, log_sum_exp

DESK = Desk("numpy", "float64")


def at_random(model: nn.Module, std: float = 0.7, desk: Desk = DESK) -> nn.Module:
    """Give a machine weights that matter, symmetric where they are one weight kept twice."""
    desk.place(model)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    if isinstance(model, boltzmann.Boltzmann):
        w = values(model.weight)
        model.load_state_dict({"weight": np.triu(w, 1) + np.triu(w, 1).T}, strict=False)
    return model


def log_sum(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.logaddexp.reduce(x, axis=axis)


@pytest.fixture(autouse=True)
def _numpy() -> object:
    with trine.use("numpy"):
        yield


def test_states_and_their_sums() -> None:
    assert binary_states(2).tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert len(np.unique(binary_states(5), axis=0)) == 32
    x = np.array([[1000.0, 1000.0], [-1000.0, -999.0]])
    assert values(log_sum_exp(DESK.tensor(x))) == pytest.approx(log_sum(x))
    with pytest.raises(ValueError, match=r"\[enumeration\] expected at most 16 units, got 17"):
        binary_states(MOST_UNITS + 1)


# The unrestricted machine


def brute_force(model: boltzmann.Boltzmann) -> tuple[np.ndarray, np.ndarray]:
    """Return all states and their probabilities, by the definition of the energy."""
    s = binary_states(8).astype(np.float64)
    w, b = values(model.weight), values(model.bias)
    energy = np.array([-sum(w[i, j] * x[i] * x[j] for i in range(8) for j in range(i)) - b @ x
                       for x in s])  # fmt: skip
    p = np.exp(-energy)
    return s, p / p.sum()


def test_boltzmann_probabilities_are_exact() -> None:
    model = at_random(boltzmann.Boltzmann(6, 2))
    s, p = brute_force(model)
    visible = binary_states(6)
    expected = [p[(s[:, :6] == v).all(axis=1)].sum() for v in visible]
    assert np.exp(values(model.log_probabilities())) == pytest.approx(expected, rel=1e-12)
    assert np.exp(values(model(DESK.tensor(visible[5:9])))) == pytest.approx(expected[5:9])


def test_boltzmann_gradient_is_the_difference_of_correlations() -> None:
    model = at_random(boltzmann.Boltzmann(6, 2))
    s, p = brute_force(model)
    data = boltzmann.noisy_codes(40, 1).train.x
    plus = np.zeros(256)
    for v in data:
        fits = (s[:, :6] == v).all(axis=1)
        plus[fits] += p[fits] / p[fits].sum() / len(data)
    minus_plus = (s * (p - plus)[:, None]).T @ s
    np.fill_diagonal(minus_plus, 0.0)
    expected = np.concatenate([minus_plus.ravel(), (p - plus) @ s])
    assert boltzmann.exact_gradient(model, DESK.tensor(data)) == pytest.approx(expected, abs=1e-12)


def test_boltzmann_rule_follows_the_exact_gradient(backend_name: str) -> None:
    desk = Desk(backend_name, "float64")
    model = at_random(boltzmann.Boltzmann(6, 2, chains=1000), std=0.3, desk=desk)
    v = desk.tensor(boltzmann.noisy_codes(1000, 1).train.x)
    with trine.no_grad():
        model.chains.copy_(model.gibbs(model.chains, 0, 20))
    sampled, exact = boltzmann.sampled_direction(model, v), boltzmann.exact_gradient(model, v)
    assert cosine(sampled, exact) > 0.99
    assert np.linalg.norm(sampled) == pytest.approx(np.linalg.norm(exact), rel=0.05)


def test_boltzmann_data_is_what_it_is_said_to_be() -> None:
    p = boltzmann.data_distribution()
    assert p.sum() == pytest.approx(1.0)
    x = boltzmann.noisy_codes(9000, 1).train.x
    counts = np.bincount((x @ 2 ** np.arange(6)).astype(int), minlength=64) / len(x)
    assert counts == pytest.approx(p, abs=0.02)


def test_boltzmann_divergence_falls_to_a_tenth(backend_name: str) -> None:
    model = boltzmann.Boltzmann(6, 2, settle=2, sweeps=2)
    p, x = boltzmann.data_distribution(), boltzmann.noisy_codes().train.x
    before = boltzmann.divergence(p, model)
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    for step in range(100):
        first = step * 300 % 3600
        v = trine.tensor(x[first : first + 300])
        optimizer.zero_grad()
        model.learn(v, v)
        optimizer.step()
    assert boltzmann.divergence(p, model) < before / 10
    w = values(model.weight)
    assert w == pytest.approx(w.T, abs=1e-5)
    assert not np.diag(w).any()


# The restricted machine


def test_rbm_likelihood_is_exact() -> None:
    model = at_random(rbm.RBM(4, 3))
    v, h = binary_states(4).astype(np.float64), binary_states(3).astype(np.float64)
    scores = (
        v @ values(model.weight).T @ h.T
        + (v @ values(model.visible_bias))[:, None]
        + h @ values(model.hidden_bias)
    )
    expected = log_sum(scores) - log_sum(scores.ravel())
    assert values(rbm.exact_log_likelihood(model, DESK.tensor(v))) == pytest.approx(expected)
    assert np.exp(expected).sum() == pytest.approx(1.0)


def test_rbm_conditions_follow_from_the_energy() -> None:
    model = at_random(rbm.RBM(4, 3))
    v, h = binary_states(4)[5:6].astype(np.float64), binary_states(3).astype(np.float64)
    scores = (h @ values(model.weight) @ v.T)[:, 0] + h @ values(model.hidden_bias)
    p = np.exp(scores - log_sum(scores))
    assert values(model.hidden(DESK.tensor(v)))[0] == pytest.approx(p @ h)
    backward = values(model.visible(DESK.tensor(h[3:4])))[0]
    sums = h[3] @ values(model.weight) + values(model.visible_bias)
    assert backward == pytest.approx(1 / (1 + np.exp(-sums)))


def test_cd_of_many_steps_is_the_exact_gradient_and_cd_1_goes_its_way(backend_name: str) -> None:
    desk = Desk(backend_name, "float64")
    model = at_random(rbm.RBM(6, 4), std=1.5, desk=desk)
    v = desk.tensor(binary_states(6)[[3, 12, 48, 51]])
    exact = rbm.exact_gradient(model, v)
    assert cosine(rbm.cd_direction(model, v, k=50, copies=3000), exact) > 0.999
    assert 0.5 < cosine(rbm.cd_direction(model, v, k=1, copies=3000), exact) < 0.99


@pytest.mark.slow
def test_rbm_likelihood_rises_and_cd_correlates(backend_name: str) -> None:
    model, rows, cosines = rbm.exact_study(Desk(backend_name, "float32"), epochs=300, points=3)
    assert model.weight.shape == (8, 16)
    assert rows[0, 1] == pytest.approx(-16 * np.log(2), abs=0.05)
    assert rows[-1, 1] > rows[0, 1] + 3.0
    assert cosines[0] > 0.5
    assert cosines[1] > 0.9


def test_bars_and_stripes() -> None:
    images = rbm.bars_and_stripes()
    assert len(np.unique(images, axis=0)) == 30
    for image in images.reshape(-1, 4, 4):
        assert (image == image[0]).all() or (image[:, :1] == image).all()


@pytest.mark.slow
def test_rbm_rebuilds_digits(backend_name: str) -> None:
    splits = models.get("rbm").splits()
    model = rbm.RBM(28 * 28, 64)
    rbm.fit(model, splits.train.x.reshape(-1, 784)[:600], epochs=8, lr=0.1, momentum=0.5)
    x = splits.test.x[:100]
    error = ((values(model(trine.tensor(x))) - x) ** 2).mean()
    spread = ((x - splits.train.x.mean(axis=0)) ** 2).mean()
    assert error < 0.5 * spread


def test_fitting_leaves_the_parameters_to_their_optimiser() -> None:
    model = rbm.RBM(16, 8)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    before = values(model.weight)
    rbm.fit(model, rbm.bars_and_stripes(), epochs=1, lr=0.1)
    assert not np.array_equal(values(model.weight), before)
    model.learn(trine.ones(2, 16), trine.ones(2, 16))
    optimizer.step()  # raises where another optimiser has taken the parameters over


# Deep machines


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_dbn_pretraining_beats_a_random_start(seed: int, scans: Callable[[Splits], Splits]) -> None:
    """100 labels, on the 8x8 scans, for each of five seeds: so their mean gains, too.

    Seen: gains of 0.025 to 0.106, 0.727 on average without pre-training and 0.780 with it.
    """
    splits = models.get("dbn").splits()
    assert np.bincount(splits.train.y).tolist() == [10] * 10
    assert len(splits.unlabelled) > 1000
    splits = replace(scans(splits), unlabelled=splits.unlabelled[:, :, 3:27:3, 3:27:3])
    with trine.use("numba"):
        found = deep_belief.compare_starts(
            Desk("numba", "float32"), splits, seeds=[seed], pretrain_epochs=10, epochs=30,
            build=lambda: deep_belief.DBN((64, 128, 128, 128), window=1),
        )  # fmt: skip
    assert found[0, 1] > found[0, 0] + 0.01


def test_dbn_shows_mean_and_spread_of_five_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    found = np.array([[0.70, 0.80], [0.74, 0.78], [0.71, 0.76], [0.73, 0.79], [0.74, 0.77]])
    asked: list[list[int]] = []

    def compared(desk: Desk, splits: Splits, seeds: Iterable[int], *settings: int) -> np.ndarray:
        asked.append(list(seeds))
        return found

    monkeypatch.setattr(deep_belief, "compare_starts", compared)
    with trine.use("numpy"):
        note = deep_belief.show(deep_belief.DBN(), models.get("dbn").splits())
        assert asked == [[0, 1, 2, 3, 4]]
        shown = {(row.symbol, row.formula.split(",")[0]): row.value for row in note.rows}
        assert shown["accuracy", "random start"] == pytest.approx(0.724)
        assert shown["accuracy", "pre-trained"] == pytest.approx(0.78)
        assert shown["spread", "random start"] == pytest.approx(0.00033**0.5)
        assert note.rows[-1].value == pytest.approx(0.056)
        gains = (0.10, 0.04, 0.05, 0.06, 0.03)  # squared distances from 0.056 sum to 0.00292
        assert np.allclose(found[:, 1] - found[:, 0], gains)
        assert note.rows[-1].reference == pytest.approx(2 * (0.00292 / 4 / 5) ** 0.5)
        assert note.failures() == []
        found[0, 1] = 0.40  # a mean gain of -0.024
        assert deep_belief.show(deep_belief.DBN(), models.get("dbn").splits()).failures()


def test_dbn_needs_classes() -> None:
    with pytest.raises(ValueError, match=r"\[dbn\] expected a data set with classes"):
        deep_belief.few_labels(models.get("rbm").splits())


def test_dbm_numbers_are_exact() -> None:
    model = at_random(deep_boltzmann.DBM(4, 3, 2))
    v, h1, h2 = (binary_states(n).astype(np.float64) for n in (4, 3, 2))
    w1, w2, a, b1, b2 = (values(p) for p in model.parameters())
    scores = (
        (v @ w1.T @ h1.T + (v @ a)[:, None] + h1 @ b1)[:, :, None]
        + (h1 @ w2.T @ h2.T)[None]
        + h2 @ b2
    )
    log_z = log_sum(scores.ravel())
    assert float(deep_boltzmann.log_partition(model)) == pytest.approx(log_z)
    exact = log_sum(scores.reshape(16, -1)) - log_z
    assert values(deep_boltzmann.log_likelihood(model, DESK.tensor(v))) == pytest.approx(exact)
    bound = values(deep_boltzmann.variational_bound(model, DESK.tensor(v)))
    assert (bound <= exact + 1e-9).all()

    # The bound by its definition: sum over h of q(h) (ln p*(v, h) - ln q(h)) - ln Z.
    mu1, mu2 = (values(mu) for mu in model.mean_field(DESK.tensor(v)))
    q1 = np.where(h1[None] == 1, mu1[:, None], 1 - mu1[:, None]).prod(axis=2)
    q2 = np.where(h2[None] == 1, mu2[:, None], 1 - mu2[:, None]).prod(axis=2)
    q = q1[:, :, None] * q2[:, None]
    by_definition = (q * (scores - np.log(q))).sum(axis=(1, 2)) - log_z
    assert bound == pytest.approx(by_definition)


def test_mean_field_is_a_fixed_point() -> None:
    model = at_random(deep_boltzmann.DBM(6, 4, 3), std=0.5)
    model.settle = 50
    v = DESK.tensor(binary_states(6)[:20])
    mu1, mu2 = model.mean_field(v)
    assert values(model.given_v_h2(v, mu2)) == pytest.approx(values(mu1), abs=1e-9)
    assert values(model.given_h1(mu1)[1]) == pytest.approx(values(mu2), abs=1e-9)


def test_dbm_rule_is_the_gradient_of_the_bound() -> None:
    """At the mean field's fixed point the bound does not change with mu, only with the weights."""
    model = at_random(deep_boltzmann.DBM(5, 4, 3, chains=20_000, settle=60, sweeps=40), std=0.5)
    v = DESK.tensor(binary_states(5)[[3, 7, 24]])
    with trine.no_grad():
        mu1, mu2 = (mu.detach() for mu in model.mean_field(v))
    model.mean_field = lambda _: (mu1, mu2)
    (-deep_boltzmann.variational_bound(model, v).mean()).backward()
    exact = np.concatenate([values(p.grad).ravel() for p in model.parameters()])
    model.zero_grad()
    model.learn(v, v)
    rule = np.concatenate([values(p.grad).ravel() for p in model.parameters()])
    assert rule == pytest.approx(exact, abs=0.02)
    assert cosine(rule, exact) > 0.999


def test_dbm_mean_field_is_a_fixed_point_of_both_layers() -> None:
    model = at_random(deep_boltzmann.DBM(5, 4, 3, settle=60), std=0.5)
    v = DESK.tensor(binary_states(5))
    mu1, mu2 = model.mean_field(v)
    assert values(model.given_v_h2(v, mu2)) == pytest.approx(values(mu1), abs=1e-9)
    assert values(model.given_h1(mu1)[1]) == pytest.approx(values(mu2), abs=1e-9)


def test_dbm_pretraining_reaches_every_weight() -> None:
    model = DESK.place(deep_boltzmann.DBM(6, 4, 3))
    before = [values(p) for p in model.parameters()]
    x = binary_states(6)[:40].astype(np.float32)
    deep_boltzmann.stack_pretrain(model, x, epochs=2, lr=0.5)
    for old, new in zip(before, model.parameters(), strict=True):
        assert np.abs(values(new) - old).min() > 1e-4


@pytest.mark.slow
def test_dbm_bound_improves_by_pretraining_and_by_training(backend_name: str) -> None:
    rows = deep_boltzmann.bound_study(Desk(backend_name, "float32"), epochs=160, points=2)
    untrained, pretrained, trained = rows[0, 1], rows[1, 1], rows[-1, 1]
    assert pretrained > untrained + 0.5
    assert trained > pretrained + 0.5
    assert (rows[:, 1] <= rows[:, 2] + 1e-4).all()


@pytest.mark.slow
def test_dbm_rebuilds_digits_better_after_joint_training(backend_name: str) -> None:
    splits = models.get("dbm").splits()
    x, seen = (
        part.x.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196).astype(np.float32)
        for part in (splits.train, splits.test)
    )
    model = deep_boltzmann.DBM(196, 64, 32, settle=5)
    untrained = deep_boltzmann.mean_square(model, seen)
    deep_boltzmann.stack_pretrain(model, x[:600], epochs=3, lr=0.1)
    pretrained = deep_boltzmann.mean_square(model, seen)
    with trine.no_grad():
        model.chains.copy_(model.mean_field(trine.tensor(x[:100]))[0])
    optimizer = optim.SGD(model.parameters(), lr=0.02, momentum=0.5)
    for step in range(300):
        v = trine.tensor(x[step * 50 % 600 : step * 50 % 600 + 50])
        optimizer.zero_grad()
        model.learn(v, v)
        optimizer.step()
    trained = deep_boltzmann.mean_square(model, seen)
    assert pretrained < 0.5 * untrained
    assert trained < 0.85 * pretrained
