"""`char-rnn` and `char-lstm`: the next character from all those before it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn
from trine.data import Splits
from trine.data.text import CHARACTERS, PLAIN
from trine.models.desk import Desk, values
from trine.models.explanation import Explanation
from trine.models.language import baselines, character_corpus, draw_symbol, likely, text_of
from trine.models.registry import system
from trine.random import default_generator, uniform

EMBEDDING = 32
HIDDEN = 128
STREAMS, STRIDE = 32, 128
"""The test text is read as so many streams side by side, so many characters at a time."""
SAMPLE = 300

Ids = npt.NDArray[np.int64]


class CharacterModel(nn.Module):
    """A recurrent net over characters with a distribution of the next one at every step.

        x_t = E(c_t)      h_t, state_t = cell(x_t, state_(t-1))      P(c_(t+1)) = softmax(V h_t + b)

    cell: `nn.RNN`, h_t = tanh(W x_t + U h_(t-1) + b), Elman's net, or `nn.LSTM`. Characters (N, T)
    -> scores (N, 97, T), class axis second as `F.cross_entropy` wants it.
    """

    def __init__(
        self, cell: type[nn.RNN | nn.LSTM], hidden: int = HIDDEN, embedding: int = EMBEDDING
    ) -> None:
        super().__init__()
        self.characters = nn.Embedding(len(CHARACTERS), embedding)
        self.cell = cell(embedding, hidden)
        self.output = nn.Linear(hidden, len(CHARACTERS))

    def read(self, x: trine.Tensor, state: Any = None) -> tuple[trine.Tensor, Any]:
        """Return the scores (N, 97, T) after each character of x (N, T), and the state at the end."""
        h, state = self.cell(self.characters(x.transpose(0, 1)), state)
        return self.output(h).permute(1, 2, 0), state

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        return self.read(x)[0]


def bits_per_character(model: CharacterModel, ids: Ids) -> tuple[float, slice]:
    """Return the mean of -log2 P(c_t | what was read before), and which characters were judged.

    The text is cut into streams that are read side by side from an empty state on, each from the
    character before its first one on; what does not fill all streams is left out.
    """
    desk = Desk.of(model)
    length = (len(ids) - 1) // STREAMS
    count = STREAMS * length
    x = ids[:count].reshape(STREAMS, length)
    y = ids[1 : count + 1].reshape(STREAMS, length)
    total, state = 0.0, None
    with trine.no_grad():
        for start in range(0, length, STRIDE):
            part = slice(start, start + STRIDE)
            scores, state = model.read(desk.integers(x[:, part]), state)
            total += F.cross_entropy(scores, desk.integers(y[:, part]), reduction="sum").item()
    return total / count / math.log(2.0), slice(1, count + 1)


def sample(
    model: CharacterModel, length: int = SAMPLE, temperature: float = 1.0, after: str = "\n"
) -> str:
    """Let a model write: each character drawn from softmax(scores / temperature), then read.

    It goes on from a text that it reads first; by default it starts a paragraph. The draw is one of
    float64 uniforms from the default generator in the stream ("sample", path of the model). The
    unknown character is never drawn.
    """
    desk = Desk.of(model)
    draws = uniform(default_generator().key(model.stream("sample")), (length,), "float64")
    unread, state, written = CHARACTERS.encode(after), None, list[int]()
    with trine.no_grad():
        for draw in draws:
            scores, state = model.read(desk.integers(unread[None]), state)
            written.append(draw_symbol(values(scores)[0, :, -1], CHARACTERS, draw, temperature))
            unread = np.array(written[-1:])
    return "".join(CHARACTERS.decode(written))


def reads(model: CharacterModel, splits: Splits, text: str) -> dict[str, Any]:
    """Return the characters that are likely after a text, and the text as the model goes on with it."""
    after = text.translate(PLAIN) or "\n"
    with trine.no_grad():
        scores, _ = model.read(Desk.of(model).integers(CHARACTERS.encode(after)[None]))
    return {
        "likely": likely(values(scores)[0, :, -1], CHARACTERS.symbols),
        "text": text + sample(model, after=after),
    }


def shows(model: CharacterModel, splits: Splits) -> Explanation:
    """Compare the bits a character of the test text with Kneser-Ney's; print what the model writes."""
    text, desk = text_of(splits), Desk.of(model)
    corpus = character_corpus(text)
    bits, judged = bits_per_character(model, corpus.test)
    note = Explanation(
        "character model",
        f"The next character in {text.name}: {len(corpus.train):,} characters to learn from, "
        f"{judged.stop - 1:,} of the test text judged",
        "source notes 001",
        desk.backend,
        desk.dtype,
        ["bits a character = -1/n sum_t log2 P(c_t | the characters before)"],
    )
    known = baselines(note, corpus.train, corpus.test, len(CHARACTERS), judged, bits=True)
    kind = type(model.cell).__name__
    note.at_most("bits a character", f"{kind}, all characters before", bits, known[3])
    for temperature in (1.0, 0.6):
        written = sample(model, temperature=temperature)
        note.notes.append(f"written at temperature {temperature}:\n{written}")
    return note


def as_characters(splits: Splits) -> Splits:
    """Return a text's windows of characters as they are. Raises DataError for other samples."""
    text_of(splits)
    return splits


@system(
    "char-rnn",
    family="language",
    year=1990,
    source="source notes 001; Elman, Finding structure in time",
    summary="a plain recurrent net writes English, character by character",
    data="austen",
    task=as_characters,
    loss=F.cross_entropy,
    optimizer="adam",
    lr=2e-3,
    schedule="cosine",
    batch_size=32,
    epochs=4,
    shows=shows,
    reads=reads,
)
def build_char_rnn() -> CharacterModel:
    """Return 128 hidden units over embeddings of 32: 36,353 parameters."""
    return CharacterModel(nn.RNN)


@system(
    "char-lstm",
    family="language",
    year=1997,
    source="source notes 001; Hochreiter and Schmidhuber, Long short-term memory",
    summary="an LSTM writes English, character by character",
    data="austen",
    task=as_characters,
    loss=F.cross_entropy,
    optimizer="adam",
    lr=8e-3,
    schedule="cosine",
    batch_size=16,
    epochs=3,
    shows=shows,
    reads=reads,
)
def build_char_lstm() -> CharacterModel:
    """Return 128 hidden units over embeddings of 32: 98,561 parameters."""
    return CharacterModel(nn.LSTM)
