"""Kneser-Ney models: probabilities worked by hand, sums of one, every position judged."""

from __future__ import annotations

import numpy as np
import pytest

from trine.models.ngram import KneserNey, cross_entropy

A, B, C = 0, 1, 2
TINY = np.array([A, B, A, B, A, C, A])
"""ab 2, ba 2, ac 1, ca 1; before a: b c, before b: a, before c: a."""


def test_unigram_by_hand() -> None:
    model = KneserNey(TINY, 1, 3)
    # Counts 4 2 1: D = 1 / (1 + 2), and 3 D / 7 = 1/7 is spread over three symbols.
    expected = np.array([4 - 1 / 3, 2 - 1 / 3, 1 - 1 / 3]) / 7 + 1 / 21
    assert model.distribution([]) == pytest.approx(expected, abs=1e-15)


def test_bigram_by_hand() -> None:
    model = KneserNey(TINY, 2, 3)
    # Order 1 counts what comes before: 2 1 1, D = 2 / (2 + 2), so p = 1/2, 1/4, 1/4.
    assert model.distribution([]) == pytest.approx([1 / 2, 1 / 4, 1 / 4], abs=1e-15)
    # Order 2: D = 2 / (2 + 4).
    assert model.distribution([A]) == pytest.approx([2 / 18, 11 / 18, 5 / 18], abs=1e-15)
    assert model.distribution([B]) == pytest.approx([22 / 24, 1 / 24, 1 / 24], abs=1e-15)
    assert model.distribution([C]) == pytest.approx([10 / 12, 1 / 12, 1 / 12], abs=1e-15)


def test_trigram_by_hand() -> None:
    model = KneserNey(TINY, 3, 3)
    # aba 2, bab bac aca 1: D = 3 / (3 + 2). Order 2 has only counts of 1, so D = 1: all goes down.
    assert model.distribution([A, B]) == pytest.approx([0.85, 0.075, 0.075], abs=1e-15)
    assert model.distribution([B, A]) == pytest.approx([0.3, 0.35, 0.35], abs=1e-15)
    assert model.distribution([B, B]) == pytest.approx([0.5, 0.25, 0.25], abs=1e-15)  # never seen


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_sum_to_one_and_none_is_zero(order: int) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 5, 200) * rng.integers(0, 3, 200)  # some of 0..8 never occur
    model = KneserNey(ids, order, 9)
    for history in ([], [1], [8, 7], [2, 0, 4]):
        if len(history) < order:
            p = model.distribution(history)
            assert p.sum() == pytest.approx(1.0, abs=1e-12)
            assert p.min() > 0


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_sequence_is_judged_symbol_by_symbol(order: int) -> None:
    model = KneserNey(TINY, order, 3)
    sequence = np.array([C, A, B, B, A])
    expected = [
        model.distribution(sequence[max(0, i - order + 1) : i].tolist())[symbol]
        for i, symbol in enumerate(sequence)
    ]
    assert model.probabilities(sequence) == pytest.approx(expected, abs=1e-15)
    assert cross_entropy(model.probabilities(sequence)) == pytest.approx(-np.log(expected).mean())


def test_wrong_orders_are_refused() -> None:
    for order, size in ((0, 3), (8, 3), (3, 2**21)):
        with pytest.raises(ValueError, match=r"\[KneserNey\] expected an order"):
            KneserNey(TINY, order, size)
