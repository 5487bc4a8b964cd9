"""What the language models share: words and their contexts, baselines, neighbours."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine.data import ArrayDataset, Splits
from trine.data.text import CHARACTERS, PLAIN, UNKNOWN, Text, Vocabulary, contexts, words
from trine.errors import DataError
from trine.models.desk import Desk
from trine.models.explanation import Explanation
from trine.models.figures import Points
from trine.models.ngram import KneserNey, cross_entropy

VOCABULARY = 1500
"""The unknown word and the 1499 most frequent words of the training text."""
CONTEXT = 4
"""Words from which the next one is predicted."""

Ids = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Corpus:
    """A text as numbers of its vocabulary."""

    vocabulary: Vocabulary
    train: Ids
    validation: Ids
    test: Ids


def text_of(splits: Splits) -> Text:
    """Return the text that a data set was cut from. Raises DataError if it is none."""
    if splits.text is None:
        raise DataError(
            f"[{splits.name}] expected a text to learn language from, got other samples. Use --data "
            "austen or --data FILE.txt."
        )
    return splits.text


@functools.lru_cache(maxsize=4)
def word_corpus(text: Text, size: int = VOCABULARY) -> Corpus:
    """Return a text's words as numbers."""
    parts = [words(part) for part in (text.train, text.validation, text.test)]
    vocabulary = Vocabulary.most_frequent(parts[0], size)
    return Corpus(vocabulary, *(vocabulary.encode(part) for part in parts))


@functools.lru_cache(maxsize=4)
def character_corpus(text: Text) -> Corpus:
    """Return a text's characters as numbers."""
    parts = (part.translate(PLAIN) for part in (text.train, text.validation, text.test))
    return Corpus(CHARACTERS, *(CHARACTERS.encode(part) for part in parts))


def word_contexts(splits: Splits, size: int = VOCABULARY) -> Splits:
    """Return a text as its contexts of four words, (N, 4), and the words that follow, (N,)."""
    text = text_of(splits)
    corpus = word_corpus(text, size)
    parts = []
    for name in ("train", "test"):
        x, y = contexts(getattr(corpus, name), CONTEXT)
        parts.append(ArrayDataset(x, y, size, f"{text.name}/{name}"))
    return Splits(text.name, parts[0], parts[1], size, splits.description, splits.licence, text)


def batches(x: Ids, size: int = 1024) -> Iterator[Ids]:
    """Cut samples into batches, in their order."""
    for start in range(0, len(x), size):
        yield x[start : start + size]


def mean_loss(model: Callable[[trine.Tensor], trine.Tensor], desk: Desk, x: Ids, y: Ids) -> float:
    """Return the mean of -ln p(y | x), p by the model's scores (N, V)."""
    total = 0.0
    with trine.no_grad():
        for inputs, targets in zip(batches(x), batches(y), strict=True):
            scores = model(desk.integers(inputs))
            total += F.cross_entropy(scores, desk.integers(targets), reduction="sum").item()
    return total / len(y)


def baselines(
    note: Explanation, train: Ids, test: Ids, size: int, judged: slice, *, bits: bool
) -> dict[int, float]:
    """Show what Kneser-Ney models of one to three symbols reach on the same symbols of the test text.

    Returns bits a symbol, or perplexity exp(mean of -ln p), by order.
    """
    found = {}
    for order, name in ((1, "unigram"), (2, "bigram"), (3, "trigram")):
        nats = cross_entropy(KneserNey(train, order, size).probabilities(test)[judged])
        found[order] = nats / math.log(2.0) if bits else math.exp(nats)
        unit = "bits a character" if bits else "perplexity"
        note.show(unit, f"interpolated Kneser-Ney {name}", found[order])
    return found


def likely(scores: Reals, symbols: Sequence[str], count: int = 5) -> list[dict[str, Any]]:
    """Return the likeliest symbols by scores (V,), each with its share of softmax, UNKNOWN left out."""
    p = np.exp(scores - scores.max())
    p /= p.sum()
    order = [i for i in np.argsort(-p, kind="stable") if symbols[i] != UNKNOWN]
    return [{"symbol": symbols[i], "probability": float(p[i])} for i in order[:count]]


def draw_symbol(
    scores: Reals, vocabulary: Vocabulary, uniform: float, temperature: float = 1.0
) -> int:
    """Return the number of a symbol drawn from softmax(scores / temperature), never that of UNKNOWN.

    It is the first at which the distribution function exceeds the uniform.
    """
    p = scores / temperature
    p = np.exp(p - p.max())
    p[vocabulary.index[UNKNOWN]] = 0.0
    reached = np.cumsum(p)
    return int(np.searchsorted(reached, uniform * reached[-1], side="right"))


def nearest(vectors: Reals, word: int, among: Sequence[int], count: int = 5) -> list[int]:
    """Return which of some rows lie nearest to a row by the cosine, the nearest first."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.array([i for i in among if i != word])
    order = np.argsort(-(unit[rows] @ unit[word]), kind="stable")
    return [int(i) for i in rows[order[:count]]]


def show_words(note: Explanation, vectors: Reals, vocabulary: Vocabulary) -> None:
    """Note the words nearest to frequent ones, and draw the most frequent words.

    Asked are the twelve most frequent words of five letters or more; drawn are 120 of three or
    more, in the plane of their first two principal components.
    """
    symbols = vocabulary.symbols
    plain = [i for i, word in enumerate(symbols) if word.isalpha() and len(word) > 1]
    for word in [i for i in plain if len(symbols[i]) >= 5][:12]:
        found = ", ".join(vocabulary.decode(nearest(vectors, word, plain)))
        note.notes.append(f"nearest to {symbols[word]}: {found}")
    drawn = [i for i in plain if len(symbols[i]) >= 3][:120]
    unit = vectors[drawn] / np.linalg.norm(vectors[drawn], axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    note.drawings["words"] = Points(
        f"The {len(drawn)} most frequent words of three letters or more",
        "first principal component",
        "second principal component",
        {"words": centred @ axes[:2].T},
        {"words": vocabulary.decode(drawn)},
    )
