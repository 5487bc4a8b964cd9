"""`encoder-decoder`: one recurrent net reads a sequence, another writes it out in reverse."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn
from trine.data import Splits
from trine.models.desk import Desk, draw_order, made_splits, values
from trine.models.explanation import Explanation
from trine.models.registry import system
from trine.random import integers, make_key, stream_id

SOURCE = "source notes 001; Cho et al., 2014; Sutskever, Vinyals and Le, 2014"
Tokens = npt.NDArray[np.int64]

SYMBOLS = 10
END = 0
"""Ends a sequence and fills what is left; it also starts the decoder. Symbols are 1 ... 10."""
SHORTEST, LONGEST = 4, 8


def reversals(
    train: int = 10_000,
    test: int = 1_000,
    symbols: int = SYMBOLS,
    shortest: int = SHORTEST,
    longest: int = LONGEST,
) -> Splits:
    """Make pairs x (N, 2, T) of a sequence and what the decoder is told in training, and y (N, T).

    x[:, 0] is a sequence of 4 to 8 random symbols, then ends, up to T = 9; y its symbols in reverse
    order, then ends. x[:, 1] is y one step later, after a first end: the right tokens before each
    step. No sequence comes twice, so none of the test was seen in training.
    """
    wanted = train + test
    key = [make_key(0, stream_id("reversals"), draw) for draw in range(2)]
    drawn, steps = 2 * wanted, longest + 1
    lengths = integers(key[0], shortest, longest + 1, (drawn, 1))
    sequences = integers(key[1], 1, symbols + 1, (drawn, steps))
    sequences[np.arange(steps) >= lengths] = END
    different = np.unique(sequences, axis=0)
    chosen = different[draw_order("reversals order", len(different))[:wanted]]
    if len(chosen) < wanted:
        raise ValueError(
            f"[reversals] expected at least {wanted} different sequences among those drawn, got "
            f"{len(chosen)}. Ask for fewer, or for longer ones."
        )
    y = reverse(chosen)
    told = np.concatenate([np.full((wanted, 1), END), y[:, :-1]], axis=1)
    about = "sequences of 4 to 8 of ten symbols, to be written in reverse"
    return made_splits(
        "reversals", np.stack([chosen, told], axis=1), y, train=train, description=about
    )


def reverse(sequences: Tokens) -> Tokens:
    """Return sequences (N, T) with the symbols before the ends in reverse order."""
    lengths = (sequences != END).sum(1, keepdims=True)
    place = np.arange(sequences.shape[1])
    mirrored = np.take_along_axis(sequences, np.maximum(lengths - 1 - place, 0), axis=1)
    return np.where(place < lengths, mirrored, END)


class EncoderDecoder(nn.Module):
    """An LSTM reads the sequence; its last state is where a second LSTM starts to write.

        encoder  (h_t, c_t) = LSTM(E x_t, h_(t-1), c_(t-1)),         t = 1 ... own length
        decoder  (s_t, d_t) = LSTM'(E' y_(t-1), s_(t-1), d_(t-1)),   (s_0, d_0) = the last (h, c)
                 p(y_t | y_1 ... y_(t-1), x) = softmax(V s_t + b),   y_0 = the end token

    In training the decoder is told the right y_(t-1) ("teacher forcing"); in evaluation it is told
    its own most probable token (greedy decoding), and x[:, 1] is not looked at.
    """

    def __init__(self, symbols: int, width: int, units: int) -> None:
        super().__init__()
        tokens = symbols + 1
        self.read = nn.Embedding(tokens, width)
        self.encoder = nn.LSTM(width, units, batch_first=True)
        self.told = nn.Embedding(tokens, width)
        self.decoder = nn.LSTM(width, units, batch_first=True)
        self.head = nn.Linear(units, tokens)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """Return the scores (N, tokens, T) for x (N, 2, T), as cross_entropy takes them."""
        state = self.encode(x[:, 0])
        if self.training:
            out, _ = self.decoder(self.told(x[:, 1]), state)
            return self.head(out).transpose(1, 2)
        return self.greedy(state, x.shape[2])

    def encode(self, sequence: trine.Tensor) -> tuple[trine.Tensor, trine.Tensor]:
        """Return the encoder's state after each sequence's own last symbol."""
        lengths = (sequence != END).long().sum(1)
        _, state = self.encoder(self.read(sequence), lengths=lengths)
        return state

    def greedy(self, state: tuple[trine.Tensor, trine.Tensor], steps: int) -> trine.Tensor:
        """Return the scores (N, tokens, T) when each step is told the best token before it."""
        last = state[0]
        token = trine.full((last.shape[1], 1), END, dtype="int64", backend=last.backend)
        scores = []
        for _ in range(steps):
            out, state = self.decoder(self.told(token), state)
            scores.append(self.head(out[:, 0]))
            token = scores[-1].argmax(1, keepdim=True)
        return trine.stack(scores, 2)


def shows(model: EncoderDecoder, splits: Splits) -> Explanation:
    """Measure how many test sequences are reversed without a mistake, by greedy decoding."""
    desk = Desk.of(model)
    note = Explanation(
        "encoder-decoder",
        "Sequences written in reverse",
        SOURCE,
        desk.backend,
        desk.dtype,
        [
            "(h_t, c_t) = LSTM(E x_t, h_(t-1), c_(t-1))    (s_0, d_0) = (h_T, c_T)",
            "(s_t, d_t) = LSTM'(E' y_(t-1), s_(t-1), d_(t-1))    y_t = argmax softmax(V s_t + b)",
        ],
    )
    x, y = splits.test.x, splits.test.y
    with trine.no_grad():
        written = values(model(desk.integers(x)).argmax(1)).astype(np.int64)
    whole = (written == y).all(1)
    note.at_least("right", "test sequences without a mistake, greedy decoding", whole.mean(), 0.99)
    note.show("right", "symbols, ends included", (written == y).mean())
    lengths = (x[:, 0] != END).sum(1)
    for length in np.unique(lengths):
        note.show(
            f"T = {length}", "sequences of this length right", whole[lengths == length].mean()
        )
    for i in range(3):
        note.notes.append(
            f"{_text(x[i, 0])}  ->  {_text(written[i])}"
            + ("" if whole[i] else f", but should be {_text(y[i])}")
        )
    return note


def _text(tokens: Tokens) -> str:
    return "".join("abcdefghij"[token - 1] if token != END else "." for token in tokens)


@system(
    "encoder-decoder",
    family="recurrent",
    year=2014,
    source=SOURCE,
    summary="an LSTM reads a sequence, a second one writes it in reverse",
    data=reversals,
    loss=F.cross_entropy,
    optimizer="adam",
    lr=5e-3,
    schedule="cosine",
    batch_size=64,
    epochs=10,
    expected={"test_accuracy": 0.99},
    shows=shows,
)
def build() -> EncoderDecoder:
    """Return encoder and decoder of 96 units each: 88,971 parameters."""
    return EncoderDecoder(SYMBOLS, width=16, units=96)
