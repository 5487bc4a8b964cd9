"""The recurrent systems: temporal XOR, recall after a delay, glides between vowels, reversal."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import trine
from trine import models, nn
from trine.cli.train import Options, prepare
from trine.models import registry
from trine.models.elman import memoryless, temporal_xor
from trine.models.encoder_decoder import END, EncoderDecoder, reversals, reverse
from trine.models.explanation import Explanation
from trine.models.formants import WORDS, glides, order_blind
from trine.models.memory import LENGTH, UNITS, Recall, accuracy, compare, recall


def rows(note: Explanation, part: str) -> list[float]:
    """Return the values of the rows whose formula has a part in it."""
    return [row.value for row in note.rows if part in row.formula]


# Temporal XOR


def test_each_third_bit_is_the_exclusive_or_of_the_two_before() -> None:
    splits = temporal_xor()
    x, y = splits.train.x[:, 0], splits.train.y[:, 0]
    assert np.array_equal(x[:, 1:], y[:, :-1])
    assert np.array_equal(y[:, 1::3], (x[:, 0::3] + x[:, 1::3]) % 2)
    assert x.mean() == pytest.approx(0.5, abs=0.02)


def test_the_best_memoryless_predictor_knows_nothing() -> None:
    splits = temporal_xor()
    chances = memoryless(splits)
    assert chances == pytest.approx([0.5, 0.5], abs=0.02)
    x, y = splits.train.x, splits.train.y
    best = ((y - chances[x.astype(int)]) ** 2).mean()
    for other in ([0.4, 0.5], [0.5, 0.6], [0.45, 0.55]):
        assert ((y - np.array(other)[x.astype(int)]) ** 2).mean() > best


def test_elman_beats_the_best_memoryless_predictor(train_system, backend_name: str) -> None:
    run = train_system("elman", backend_name, epochs=15)
    note = run.system.shows(run.model, run.splits)
    assert note.failures() == []
    (best,) = rows(note, "of the best memoryless predictor")[:1]
    net = rows(note, "of the network; any")[0]
    assert net < 0.76 * best  # the limit is 2/3
    with trine.no_grad():  # only a net with memory tells 0 1 from 1 1 after the same bit
        ends = run.model(trine.tensor(np.float32([[[0, 1]], [[1, 1]]]))).numpy()[:, 0, 1]
    assert ends[0] > 0.9
    assert ends[1] < 0.1


# Recall


def test_only_the_first_symbol_tells_the_class() -> None:
    splits = recall(train=400, test=1)
    symbols = splits.train.x.argmax(2)
    assert np.array_equal(symbols[:, 0], splits.train.y)
    assert set(np.unique(symbols[:, 0])) == set(range(8))
    assert set(np.unique(symbols[:, 1:])) == {8, 9, 10, 11}


@pytest.mark.parametrize(
    ("kind", "signs"), [("lstm", [-1, 1, 0, 0]), ("gru", [0, 1, 0]), ("rnn", [0])]
)
def test_the_gates_start_so_that_memory_lasts(kind: str, signs: list[int]) -> None:
    bias = Recall(kind).memory.bias_ih_l0.detach().numpy().reshape(len(signs), UNITS)
    assert bias == pytest.approx(
        np.log(LENGTH - 1.0) * np.array(signs)[:, None] + 0 * bias, abs=0.21
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("rnn", 0.0, 0.2), ("lstm-memory", 0.95, 1.0), ("gru-memory", 0.95, 1.0)],
)
def test_gated_nets_recall_what_the_plain_net_forgets(
    name: str, low: float, high: float, train_system
) -> None:
    """By the systems' own settings; one guess in eight is right by chance."""
    run = train_system(name, "numba")
    found = [accuracy(run.model.to(backend), run.splits) for backend in ("numba", "numpy")]
    assert low <= found[0] <= high
    assert found[1] == pytest.approx(found[0], abs=0.002)


def test_the_comparison_measures_the_model_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = recall(train=100, test=100, length=6)
    asked = []

    def untrained(name: str, *_: object) -> Recall:
        asked.append(name)
        return Recall(name.removesuffix("-memory"))

    monkeypatch.setattr("trine.models.memory.trained", untrained)
    monkeypatch.setattr("trine.models.memory.LENGTHS", (3,))
    model = Recall("lstm")
    note = compare("lstm-memory", model, splits)
    assert asked == ["rnn", "gru-memory"]
    assert rows(note, "lstm-memory") == [accuracy(model, splits)]
    assert note.figure is not None
    curves = {curve.label: curve.y for curve in note.figure.curves}
    assert set(curves) == {"rnn", "lstm-memory", "gru-memory"}
    assert curves["lstm-memory"] == [accuracy(model, recall(train=1, test=500, length=3, seed=1))]
    assert len(note.failures()) >= 2


@pytest.mark.parametrize(
    ("right", "short"),
    [
        ((0.12, 1.0, 0.99), []),
        ((0.12, 0.94, 0.99), ["lstm-memory"]),
        ((0.30, 1.0, 0.90), ["rnn: near chance", "gru-memory"]),
    ],
)
def test_the_comparison_wants_gated_nets_above_95_and_the_plain_one_near_chance(
    right: tuple[float, float, float], short: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = dict(zip((nn.RNN, nn.LSTM, nn.GRU), right, strict=True))
    monkeypatch.setattr("trine.models.memory.trained", lambda name, *_: models.get(name).build())
    monkeypatch.setattr("trine.models.memory.accuracy", lambda model, _: scores[type(model.memory)])
    note = compare("rnn", Recall("rnn"), recall(train=1, test=1, length=6))
    assert [row.formula for row in note.rows if not row.ok] == short


# Glides


def test_glides_are_speech_like() -> None:
    splits = glides()
    x, y = splits.train.x, splits.train.y
    assert np.bincount(y).tolist() == [150] * len(WORDS)
    frames = (np.abs(x).sum(2) > 0).sum(1)
    assert frames.min() == 20
    assert frames.max() == 40
    for one, length in zip(x, frames, strict=True):
        assert not one[length:].any()
    # The order is all that parts a word from its reverse.
    assert 1 / 3 < order_blind(splits) < 0.7


def test_the_state_after_the_own_last_frame_counts() -> None:
    model = models.get("sequence-classifier").build()
    x = glides(train=6, test=6).train.x
    frames = (np.abs(x).sum(2) > 0).sum(1)
    with trine.no_grad():
        together = model(trine.tensor(x)).numpy()
        alone = [
            model(trine.tensor(one[None, :n])).numpy()[0] for one, n in zip(x, frames, strict=True)
        ]
    assert together == pytest.approx(np.stack(alone), abs=1e-5)


def test_the_sequence_classifier_hears_the_order(train_system, backend_name: str) -> None:
    run = train_system("sequence-classifier", backend_name, epochs=8)
    note = run.system.shows(run.model, run.splits)
    assert note.failures() == []
    right, blind = rows(note, "of the test sequences")[0], rows(note, "without their order")[0]
    assert right >= 0.95
    assert blind < 0.7


# Reversal


def test_reversals_are_different_and_right() -> None:
    splits = reversals()
    every = np.concatenate([splits.train.x[:, 0], splits.test.x[:, 0]])
    assert len(np.unique(every, axis=0)) == len(every) == 11_000
    for part in (splits.train, splits.test):
        assert np.array_equal(part.y, reverse(part.x[:, 0]))
        assert np.array_equal(part.x[:, 1, 1:], part.y[:, :-1])
        assert (part.x[:, 1, 0] == END).all()
    assert reverse(np.array([[3, 1, 2, 0, 0]])).tolist() == [[2, 1, 3, 0, 0]]


def test_decoding_never_sees_the_answer(backend_name: str) -> None:
    model = models.get("encoder-decoder").build()
    x = reversals(train=10, test=10).test.x
    other = x.copy()
    other[:, 1] = 7
    with trine.no_grad():
        taught = [model.train()(trine.tensor(a)).numpy() for a in (x, other)]
        decoded = [model.eval()(trine.tensor(a)).numpy() for a in (x, other)]
    assert np.abs(taught[0] - taught[1]).max() > 1e-3
    assert np.array_equal(decoded[0], decoded[1])


def test_greedy_decoding_tells_each_step_the_best_token_before(backend_name: str) -> None:
    model = models.get("encoder-decoder").build().eval()
    x = reversals(train=10, test=10).test.x
    with trine.no_grad():
        scores = model(trine.tensor(x)).numpy()
        written = scores.argmax(1)
        told = np.concatenate([np.full((10, 1), END), written[:, :-1]], axis=1)
        same = model.train()(trine.tensor(np.stack([x[:, 0], told], axis=1))).numpy()
    assert scores == pytest.approx(same, abs=1e-5)


def test_more_reversals_than_there_are_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[reversals\] expected at least 100 different"):
        reversals(train=90, test=10, symbols=2, shortest=2, longest=3)


def test_encoder_decoder_learns_to_reverse(
    train_system, backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At reduced size: 3 or 4 of eight symbols, 32 units."""
    system = models.get("encoder-decoder")
    small = dataclasses.replace(
        system,
        data=lambda: reversals(train=800, test=200, symbols=8, shortest=3, longest=4),
        build=lambda: EncoderDecoder(8, width=8, units=32),
        lr=0.01,
        batch_size=40,
        epochs=20,
    )
    monkeypatch.setitem(registry._systems, "encoder-decoder", small)
    run = train_system("encoder-decoder", backend_name)
    note = run.system.shows(run.model, run.splits)
    assert note.failures() == []
    assert rows(note, "without a mistake")[0] >= 0.99


def test_memories_are_trained_with_bounded_gradients() -> None:
    for name in ("rnn", "lstm-memory", "gru-memory"):
        assert models.get(name).clip_norm == 1.0
    assert prepare(Options("lstm-memory", backend="numpy")).trainer.clip_norm == 1.0
    assert prepare(Options("xor", backend="numpy")).trainer.clip_norm is None
