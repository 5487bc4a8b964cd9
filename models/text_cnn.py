"""`text-cnn`: convolutions over words tell which preposition a passage has lost.

The passages are five words, a gap and five words of real prose; the class is the word that the
author wrote into the gap. Which words stand next to the gap, and in what order, decides that, so
counts of words know less than a net that reads them in a row.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn, optim
from trine.data import ArrayDataset, DataLoader, Splits
from trine.data.text import UNKNOWN, Text, words
from trine.errors import DataError
from trine.models.desk import Desk, draw_order, values
from trine.models.explanation import Explanation
from trine.models.language import VOCABULARY, batches, likely, text_of, word_corpus
from trine.models.registry import system
from trine.training import Trainer

PREPOSITIONS = ("to", "of", "in", "for", "with", "at", "on", "by", "from")
SIDE = 5
"""Words on either side of the gap."""
LENGTH = 2 * SIDE + 1
GAP = VOCABULARY
"""The number that stands for the gap, beside those of the words."""
SYMBOLS = VOCABULARY + 1

Ids = npt.NDArray[np.int64]


def passages(text: Text, part: str) -> tuple[Ids, Ids]:
    """Return the passages (N, 11) of a part of a text and the numbers of their prepositions (N,).

    Raises DataError for a text without any.
    """
    corpus = word_corpus(text)
    ids = getattr(corpus, part)
    numbers = corpus.vocabulary.encode(PREPOSITIONS)
    class_of = np.full(VOCABULARY, -1)
    class_of[numbers] = np.arange(len(PREPOSITIONS))
    class_of[corpus.vocabulary.index[UNKNOWN]] = -1  # a preposition that the text does not have
    places = np.flatnonzero(class_of[ids] >= 0)
    places = places[(places >= SIDE) & (places < len(ids) - SIDE)]
    if len(places) == 0:
        raise DataError(
            f"[{text.name}] expected passages with one of {', '.join(PREPOSITIONS)} in the part "
            f"{part!r}, found none. Choose an English text."
        )
    x = ids[places[:, None] + np.arange(-SIDE, SIDE + 1)]
    x[:, SIDE] = GAP
    return x, class_of[ids[places]].astype(np.int64)


def lost_prepositions(splits: Splits) -> Splits:
    """Return a text's passages with a gap, (N, 11), and their prepositions, (N,)."""
    text = text_of(splits)
    parts = [
        ArrayDataset(*passages(text, part), len(PREPOSITIONS), f"{text.name}/{part}")
        for part in ("train", "test")
    ]
    about = f"passages of {text.name} that have lost one of {len(PREPOSITIONS)} prepositions"
    return Splits(text.name, parts[0], parts[1], len(PREPOSITIONS), about, splits.licence, text)


class TextCNN(nn.Module):
    """Kim's convolutional net for sentences.

        x_(i:i+k) = words i to i + k - 1, each an embedding of D numbers
        a_i = relu(w . x_(i:i+k) + b),  k = 2, 3, 4      feature = max_i a_i
        P(class) = softmax(V dropout(features) + c)

    Passages (N, 11) -> scores (N, 9).
    """

    def __init__(
        self, embedding: int = 48, filters: int = 64, widths: tuple[int, ...] = (2, 3, 4)
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(SYMBOLS, embedding)
        self.filters = nn.ModuleList([nn.Conv2d(embedding, filters, (1, k)) for k in widths])
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(filters * len(widths), len(PREPOSITIONS))
        nn.init.normal_(self.words.weight, std=0.3)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        rows = self.words(x).transpose(1, 2).unsqueeze(2)
        maps = [conv(rows).relu() for conv in self.filters]
        features = [F.max_pool2d(a, (1, a.shape[3])).flatten(1) for a in maps]
        return self.output(self.dropout(trine.cat(features, 1)))


class BagOfWords(nn.Module):
    """Logistic regression on the counts of words: scores = sum over the words of W_word, + b."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Embedding(SYMBOLS, len(PREPOSITIONS))
        self.bias = nn.Parameter(trine.zeros(len(PREPOSITIONS)))
        nn.init.zeros_(self.weights.weight)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        return self.weights(x).sum(1) + self.bias


def accuracy(model: nn.Module, x: Ids, y: Ids) -> float:
    """Return the share of passages whose preposition a model finds."""
    desk, right = Desk.of(model), 0
    with trine.no_grad():
        for inputs, labels in zip(batches(x), batches(y), strict=True):
            right += int((values(model(desk.integers(inputs))).argmax(axis=1) == labels).sum())
    return right / len(y)


def bag_of_words(
    desk: Desk, train: ArrayDataset, choose: tuple[Ids, Ids], epochs: int = 8
) -> nn.Module:
    """Return the logistic regression that does best on the passages to choose by.

    It is trained by Adam and kept as it is after the best of its epochs.
    """
    model = desk.place(BagOfWords())
    optimizer = optim.Adam(model.parameters(), lr=5e-3)
    trainer = Trainer(
        model, optimizer, F.cross_entropy,
        monitor="test_accuracy", restore_best=True, progress="none",
    )  # fmt: skip
    trainer.fit(
        DataLoader(train, 128, shuffle=True), DataLoader(ArrayDataset(*choose), 1024), epochs=epochs
    )
    return model.eval()


def shuffled(x: Ids) -> Ids:
    """Return passages whose words, but for the gap, stand in another order."""
    others = np.delete(np.arange(LENGTH), SIDE)
    mixed = x.copy()
    for i in range(len(x)):
        mixed[i, others] = x[i, others[draw_order("text-cnn shuffled", len(others), i)]]
    return mixed


def reads(model: nn.Module, splits: Splits, text: str) -> dict[str, Any]:
    """Return the likely prepositions for the gap in a passage, and the passage with the first.

    The gap is written ___ . Where fewer than five words are beside it, a paragraph begins or ends.
    Raises ValueError for a text without a gap.
    """
    before, gap, after = re.split("(_+)", text, maxsplit=1) if "_" in text else (text, "", "")
    if not gap:
        raise ValueError(
            f"[text-cnn] expected a passage with a gap, such as 'she went ___ the house', got {text!r}."
            f" Write ___ where one of {', '.join(PREPOSITIONS)} is missing."
        )
    desk, border = Desk.of(model), ["\n"] * SIDE
    near = [*(border + words(before))[-SIDE:], UNKNOWN, *(words(after) + border)[:SIDE]]
    x = word_corpus(text_of(splits)).vocabulary.encode(near)
    x[SIDE] = GAP
    with trine.no_grad():
        scores = values(model(desk.integers(x[None])))[0]
    found = likely(scores, PREPOSITIONS)
    return {"likely": found, "text": f"{before}{found[0]['symbol']}{after}"}


def shows(model: nn.Module, splits: Splits) -> Explanation:
    """Compare the accuracy on test passages with that of a bag of words trained on the same ones."""
    text, desk = text_of(splits), Desk.of(model)
    train, test = splits.train, splits.test
    note = Explanation(
        "text-cnn",
        f"Which of {', '.join(PREPOSITIONS)} stood in the gap: {len(train):,} passages of "
        f"{text.name} to learn from, {len(test):,} to be judged",
        "source notes 001",
        desk.backend,
        desk.dtype,
    )
    shares = np.bincount(test.y, minlength=len(PREPOSITIONS)) / len(test)
    commonest = int(np.bincount(train.y).argmax())
    note.show("accuracy", f"always {PREPOSITIONS[commonest]!r}", shares[commonest])
    counted = bag_of_words(desk, train, passages(text, "validation"))
    bag = accuracy(counted, test.x, test.y)
    note.show("accuracy", "logistic regression on the counts of words", bag)
    found = accuracy(model, test.x, test.y)
    note.at_least("accuracy", "convolutions over the words in a row", found, bag)
    note.show(
        "accuracy",
        "the same net, words in another order",
        accuracy(model, shuffled(test.x), test.y),
    )
    corpus = word_corpus(text)
    chosen = draw_order("text-cnn examples", len(test))[:8]
    with trine.no_grad():
        guesses = values(model(desk.integers(test.x[chosen]))).argmax(axis=1)
    for row, label, guess in zip(test.x[chosen], test.y[chosen], guesses, strict=True):
        shown = ["___" if i == GAP else corpus.vocabulary.symbols[i] for i in row]
        passage = " ".join(shown).replace(UNKNOWN, "*").replace("\n", "/")
        note.notes.append(f"{passage}   {PREPOSITIONS[guess]} (was: {PREPOSITIONS[label]})")
    return note


@system(
    "text-cnn",
    family="language",
    year=2014,
    source="source notes 001; Kim, Convolutional neural networks for sentence classification",
    summary="which of nine prepositions a passage has lost, against a bag of words",
    data="austen",
    task=lost_prepositions,
    loss=F.cross_entropy,
    optimizer="adam",
    lr=2e-3,
    schedule="cosine",
    batch_size=64,
    epochs=8,
    shows=shows,
    reads=reads,
)
def build() -> TextCNN:
    """Return embeddings of 48 and 64 filters for each of 2, 3 and 4 words: 101,625 parameters."""
    return TextCNN()
