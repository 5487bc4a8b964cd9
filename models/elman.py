"""`elman`: the simple recurrent network predicts a stream of bits in which each third is an XOR."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn
from trine.data import Splits
from trine.models.desk import Desk, made_splits, values
from trine.models.explanation import Explanation
from trine.models.figures import Curve, Figure
from trine.models.registry import system
from trine.random import integers, make_key, stream_id

SOURCE = "source notes 001; Elman, 1990"
Bits = npt.NDArray[np.float32]

STEPS = 12
"""Predictions a window; a multiple of 3."""
UNITS = 16
BEST_ERROR = 1.0 / 6.0
"""Of any predictor: the third bits are certain, of the others 1/2 is all one can say."""
BEST_ACCURACY = 2.0 / 3.0


def temporal_xor(train: int = 1000, test: int = 400) -> Splits:
    """Make windows of 13 bits of temporal XOR: x (N, 1, 12) and, as y, the bits one step later.

    Bits come in threes: two fair random ones, then their exclusive or. So no bit depends on the one
    before it alone, and each third bit is certain to whoever remembers the two before it and where
    the threes begin. Windows begin with a three.
    """
    n, threes = train + test, STEPS // 3 + 1
    drawn = integers(make_key(0, stream_id("temporal xor")), 0, 2, (n, threes, 2))
    bits = np.concatenate([drawn, drawn.sum(2, keepdims=True) % 2], axis=2).reshape(n, 1, -1)
    bits = bits.astype(np.float32)
    about = "bits in threes, the third the exclusive or of the first two"
    x, y = bits[:, :, :STEPS], bits[:, :, 1 : STEPS + 1]
    return made_splits("temporal-xor", x, y, train=train, description=about)


class Elman(nn.Module):
    """The simple recurrent network, whose context units hold the hidden units' last values.

        h_t = tanh(W x_t + U h_(t-1) + b),  h_0 = 0        y_t = s(V h_t + c)

    tanh stands for Elman's logistic, which it is but for scale and shift. Errors go back through
    the whole window; Elman's went back one step.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.context = nn.RNN(1, hidden, batch_first=True)
        self.output = nn.Linear(hidden, 1)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """Return for bits (N, 1, T) the probabilities (N, 1, T) that the bits after them are 1."""
        h, _ = self.context(x.transpose(1, 2))
        return self.output(h).sigmoid().transpose(1, 2)


def memoryless(splits: Splits) -> npt.NDArray[np.float64]:
    """Return the best prediction from the present bit alone: P(next = 1 | bit), for bit = 0, 1.

    It is the mean of what followed each bit in the training set: of all functions of the present
    bit it has the least squared error there.
    """
    x, y = splits.train.x, splits.train.y
    return np.array([y[x == bit].mean(dtype=np.float64) for bit in (0, 1)])


def shows(model: Elman, splits: Splits) -> Explanation:
    """Compare errors with those of the best memoryless predictor, in all and by place in the three."""
    desk = Desk.of(model)
    note = Explanation(
        "elman",
        "Temporal XOR: what memory is good for",
        SOURCE,
        desk.backend,
        desk.dtype,
        ["h_t = tanh(W x_t + U h_(t-1) + b)    y_t = s(V h_t + c)"],
    )
    x, y = splits.test.x, np.asarray(splits.test.y, np.float64)
    by_net, by_bit = values(model(desk.tensor(x))), memoryless(splits)[x.astype(np.int64)]
    errors = {name: (y - guess) ** 2 for name, guess in (("net", by_net), ("memoryless", by_bit))}
    right = {
        name: ((guess > 0.5) == (y > 0.5)).mean()
        for name, guess in (("net", by_net), ("memoryless", by_bit))
    }
    note.show("MSE", "of the best memoryless predictor", errors["memoryless"].mean())
    note.at_most("MSE", "of the network; any predictor's best is 1/6", errors["net"].mean(), 0.19)
    note.at_most(
        "MSE", "below the memoryless one", errors["net"].mean(), errors["memoryless"].mean()
    )
    note.show("right", "guesses of the best memoryless predictor", right["memoryless"])
    note.at_least("right", "guesses of the network; the best is 2/3", right["net"], 0.62)
    certain = errors["net"][:, :, 1::3]
    note.at_most("MSE", "of the network where the bit is certain", certain.mean(), 0.05)
    step = np.arange(1, STEPS + 1)
    note.figure = Figure(
        "Temporal XOR: the error falls at every third bit",
        "step",
        "mean squared error",
        [Curve(name, step, e.mean(axis=(0, 1))) for name, e in errors.items()],
    )
    return note


@system(
    "elman",
    family="recurrent",
    year=1990,
    source=SOURCE,
    summary="simple recurrent network: predicts temporal XOR, which no memoryless predictor can",
    data=temporal_xor,
    loss=F.mse_loss,
    optimizer="adam",
    lr=0.01,
    batch_size=50,
    epochs=30,
    expected={"test_accuracy": 0.62},
    shows=shows,
)
def build() -> Elman:
    """Return the network of 16 hidden units."""
    return Elman(UNITS)
