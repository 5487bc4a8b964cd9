"""Interpolated Kneser-Ney models of n symbols, against which the language models are measured.

    p_n(w | h) = max(c(h w) - D, 0) / c(h .) + D N(h .) / c(h .) p_(n-1)(w | h')

with c(h .) = sum_w c(h w), N(h .) the number of different symbols seen after h, and h' the context
h without its oldest symbol.  At the highest order c counts occurrences; below it c(h w) is the
number of different symbols seen in front of h w.  p_0(w) = 1 / V, so no symbol has probability 0;
where h was never seen, p_n = p_(n-1).  Each order has one discount D = n1 / (n1 + 2 n2) from the
numbers of symbols with count 1 and 2, or 1/2 where no count is 1.
Source: R. Kneser and H. Ney, Improved backing-off for m-gram language modeling, 1995, interpolated
as in S. Chen and J. Goodman, An empirical study of smoothing techniques for language modeling, 1999.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """The counts of one order. A sequence of symbols is one number, its digits in base V."""

    grams: Ids
    """The sequences h w that were seen, sorted."""
    counts: Ids
    histories: Ids
    """The contexts h that were seen, sorted."""
    totals: Ids
    """c(h .)"""
    kinds: Ids
    """N(h .)"""
    discount: float


def _level(grams: Ids, counts: Ids, size: int) -> Level:
    histories, first = np.unique(grams // size, return_index=True)
    totals = np.add.reduceat(counts, first)
    kinds = np.diff(np.append(first, len(grams)))
    ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
    discount = ones / (ones + 2 * twos) if ones else 0.5
    return Level(grams, counts, histories, totals, kinds, discount)


def _numbers(ids: Ids, length: int, size: int) -> Ids:
    """Return every `length` symbols in a row as one number."""
    numbers = np.zeros(len(ids) - length + 1, dtype=np.int64)
    for i in range(length):
        numbers = numbers * size + ids[i : i + len(numbers)]
    return numbers


def _look_up(keys: Ids, table: Ids) -> tuple[Ids, npt.NDArray[np.bool_]]:
    """Return the place of each key in a sorted table, and whether it is there."""
    places = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return places, table[places] == keys


class KneserNey:
    """A model of `order` symbols, learned from ids (n,) of a vocabulary of `size`.

    Raises ValueError for an order below 1, too few symbols, or numbers too large for 63 bits.
    """

    def __init__(self, ids: Ids, order: int, size: int) -> None:
        if not 1 <= order <= len(ids) or size**order >= 2**63:
            raise ValueError(
                f"[KneserNey] expected an order from 1 to {len(ids)}, the symbols to learn from, and "
                f"size^order below 2^63, got order {order} and size {size}. Choose less."
            )
        self.order, self.size = order, size
        grams, counts = np.unique(_numbers(ids, order, size), return_counts=True)
        self.levels = [_level(grams, counts, size)]
        """Those of order 1 to n."""
        for length in range(order - 1, 0, -1):
            longer = np.unique(_numbers(ids, length + 1, size))
            grams, counts = np.unique(longer % size**length, return_counts=True)
            self.levels.insert(0, _level(grams, counts, size))

    def _probability(self, order: int, history: Ids, symbols: Ids) -> Reals:
        """Return p_order of symbols after histories of order - 1 symbols, as one number each."""
        if order == 0:
            return np.full(len(symbols), 1.0 / self.size)
        level = self.levels[order - 1]
        shorter = history % self.size ** max(order - 2, 0)
        below = self._probability(order - 1, shorter, symbols)
        place, seen = _look_up(history * self.size + symbols, level.grams)
        count = np.where(seen, level.counts[place], 0)
        place, known = _look_up(history, level.histories)
        total = level.totals[place]
        own = np.maximum(count - level.discount, 0.0) / total
        mixed = own + level.discount * level.kinds[place] / total * below
        return np.where(known, mixed, below)

    def probabilities(self, ids: Ids) -> Reals:
        """Return the probability of each symbol of a sequence after those before it, (n,).

        The first order - 1 symbols, which have fewer before them, are judged by lower orders.
        """
        parts = []
        for order in range(1, min(self.order, len(ids)) + 1):
            history = _numbers(ids[:-1], order - 1, self.size) if order > 1 else 0 * ids
            symbols = ids[order - 1 :]
            count = len(symbols) if order == self.order else 1
            parts.append(self._probability(order, history[:count], symbols[:count]))
        return np.concatenate(parts)

    def distribution(self, history: Sequence[int]) -> Reals:
        """Return the probabilities of all symbols, (V,), after at most order - 1 symbols."""
        number = 0
        for symbol in history:
            number = number * self.size + int(symbol)
        symbols = np.arange(self.size)
        return self._probability(len(history) + 1, np.full(self.size, number), symbols)


def cross_entropy(probabilities: Reals) -> float:
    """Return the mean of -ln p."""
    return float(-np.log(probabilities).mean())
