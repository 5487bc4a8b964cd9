"""`nnlm` and `word-embedding`: the next word from the embeddings of the four before it."""

from __future__ import annotations

import math
from typing import Any

import trine
import trine.functional as F
from trine import nn
from trine.data import Splits
from trine.data.text import words
from trine.models.desk import Desk, values
from trine.models.explanation import Explanation
from trine.models.language import (
    CONTEXT,
    VOCABULARY,
    baselines,
    draw_symbol,
    likely,
    mean_loss,
    show_words,
    text_of,
    word_contexts,
    word_corpus,
)
from trine.models.registry import system
from trine.random import default_generator, uniform

EMBEDDING = 64
HIDDEN = 96
SAMPLE = 40


class NNLM(nn.Module):
    """Bengio's neural probabilistic language model.

        x = (C(w_(t-4)), ..., C(w_(t-1)))      y = b + U tanh(d + H x)
        P(w_t = i | context) = softmax(y)_i

    C: (V, D) is shared by all positions; the direct connections W x, which the paper makes
    optional, are left out. `words` is C, `hidden` is H and d, `output` is U and b. Dropout, which
    is younger than the paper, stands where it has weight decay.
    """

    def __init__(
        self, size: int = VOCABULARY, embedding: int = EMBEDDING, hidden: int = HIDDEN
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(size, embedding)
        self.hidden = nn.Linear(CONTEXT * embedding, hidden)
        self.dropout = nn.Dropout(0.25)
        self.output = nn.Linear(hidden, size)
        nn.init.normal_(self.words.weight, std=0.3)

    def forward(self, context: trine.Tensor) -> trine.Tensor:
        x = self.words(context).flatten(1)
        return self.output(self.dropout(self.hidden(self.dropout(x)).tanh()))


class LogBilinear(nn.Module):
    """The log-bilinear model: one table of words, for what is seen and for what is predicted.

        r = sum_i C_i R(w_(t-i)),  i = 1..4      P(w_t = w | context) = softmax(R r + b)_w

    A context's words predict the embedding r of the next one, and R(w) is likely where it lies
    along r. `words` is R: (V, D), `predict` the C_i side by side: (D, 4 D), `bias` is b: (V,).
    """

    def __init__(self, size: int = VOCABULARY, embedding: int = EMBEDDING) -> None:
        super().__init__()
        self.words = nn.Embedding(size, embedding)
        self.predict = nn.Linear(CONTEXT * embedding, embedding, bias=False)
        self.dropout = nn.Dropout(0.25)
        self.bias = nn.Parameter(trine.zeros(size))
        nn.init.normal_(self.words.weight, std=0.3)

    def forward(self, context: trine.Tensor) -> trine.Tensor:
        r = self.predict(self.dropout(self.words(context).flatten(1)))
        return F.linear(self.dropout(r), self.words.weight, self.bias)


def shows(model: nn.Module, splits: Splits) -> Explanation:
    """Compare the perplexity on the test text with Kneser-Ney's; show neighbours among the words."""
    desk, text = Desk.of(model), text_of(splits)
    size = model.words.num_embeddings
    corpus = word_corpus(text, size)
    note = Explanation(
        "language model",
        f"The next of {size} words in {text.name}: {len(corpus.train):,} words to learn from, "
        f"{len(splits.test):,} of the test text judged",
        "source notes 001",
        desk.backend,
        desk.dtype,
        ["perplexity = exp(-1/n sum_t ln p(w_t | the words before))"],
    )
    judged = slice(CONTEXT, None)
    known = baselines(note, corpus.train, corpus.test, size, judged, bits=False)
    perplexity = math.exp(mean_loss(model, desk, splits.test.x, splits.test.y))
    note.at_most(
        "perplexity", f"{type(model).__name__}, four words of context", perplexity, known[2]
    )
    note.show("unknown", "share of the test text's words", float((corpus.test == 0).mean()))
    show_words(note, values(model.words.weight), corpus.vocabulary)
    return note


def reads(model: nn.Module, splits: Splits, text: str) -> dict[str, Any]:
    """Return the words that are likely after a text, and the text as the model goes on with it.

    Each word is drawn from softmax(scores), from the default generator in the stream ("sample",
    path of the model), and is then one of the four before the next. Before the text a paragraph
    begins.
    """
    desk = Desk.of(model)
    vocabulary = word_corpus(text_of(splits), model.words.num_embeddings).vocabulary
    seen = [int(i) for i in vocabulary.encode(["\n"] * CONTEXT + words(text))]
    draws = uniform(default_generator().key(model.stream("sample")), (SAMPLE,), "float64")
    found, written = list[dict[str, Any]](), text
    with trine.no_grad():
        for draw in draws:
            scores = values(model(desk.integers([seen[-CONTEXT:]])))[0]
            found = found or likely(scores, vocabulary.symbols)
            seen.append(draw_symbol(scores, vocabulary, draw))
            word = vocabulary.symbols[seen[-1]]
            written += word if word in ".,;:!?\n" or written[-1:] in ("", "\n") else f" {word}"
    return {"likely": found, "text": written}


COMMON: dict[str, Any] = {
    "family": "language",
    "data": "austen",
    "task": word_contexts,
    "loss": F.cross_entropy,
    "optimizer": "adam",
    "lr": 3e-3,
    "schedule": "cosine",
    "batch_size": 256,
    "epochs": 6,
    "shows": shows,
    "reads": reads,
}
"""Both are trained and judged alike, so that their figures can be compared."""


@system(
    "nnlm",
    **COMMON,
    year=2003,
    source="source notes 001; Bengio et al., A neural probabilistic language model",
    summary="the next of 1500 words from the embeddings of four, against Kneser-Ney",
)
def build_nnlm() -> NNLM:
    """Return 64 numbers a word, 96 hidden units: 266,172 parameters."""
    return NNLM()


@system(
    "word-embedding",
    **COMMON,
    year=2007,
    source="source notes 001; Mnih and Hinton, Three new graphical models for statistical language "
    "modelling",
    summary="words as 64 numbers that predict the next word's, with their nearest neighbours",
)
def build_word_embedding() -> LogBilinear:
    """Return a log-bilinear model of 64 numbers a word: 113,884 parameters."""
    return LogBilinear()
