"""`sequence-classifier`: a recurrent net tells speech-like glides between vowels from one another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn
from trine.data import Splits
from trine.models.desk import Desk, draw_normal, made_splits, values
from trine.models.explanation import Explanation
from trine.models.figures import Images
from trine.models.registry import system
from trine.random import make_key, stream_id, uniform

SOURCE = "source notes 001; formants of Peterson and Barney, 1952"
Array = npt.NDArray[np.float64]

FORMANTS = {"i": (270.0, 2290.0, 3010.0), "a": (730.0, 1090.0, 2440.0), "u": (300.0, 870.0, 2240.0)}
"""F1, F2 and F3 in Hz: the means of 33 men."""
WORDS = ("ia", "ai", "iu", "ui", "au", "ua")
BANDS = 20
LONGEST, SHORTEST = 40, 20
"""Frames a word, of about 10 ms each."""
NOISE = 0.5


def mel(frequency: npt.ArrayLike) -> Array:
    """Return 2595 log10(1 + f / 700), the scale on which steps of pitch sound alike."""
    return np.asarray(2595.0 * np.log10(1.0 + np.asarray(frequency, np.float64) / 700.0))


def band_centres() -> Array:
    """Return the centres in Hz of bands that lie evenly on the mel scale from 150 to 4000 Hz."""
    even = np.linspace(mel(150.0), mel(4000.0), BANDS)
    return np.asarray(700.0 * (10.0 ** (even / 2595.0) - 1.0))


def spectrum(formants: Array) -> Array:
    """Return log spectra (..., BANDS) of formants (..., 3).

    Each formant is a resonance of relative width 0.12 and strength 1, 1/2, 1/4; a floor of 0.01
    stands for the noise of a room:  log(0.01 + sum_k 2^-k / (1 + ((f - F_k) / 0.12 F_k)^2)).
    """
    distance = (band_centres() - formants[..., None]) / (0.12 * formants[..., None])
    strength = np.array([1.0, 0.5, 0.25])[:, None]
    return np.asarray(np.log(0.01 + (strength / (1.0 + distance**2)).sum(-2)))


def glides(train: int = 900, test: int = 600) -> Splits:
    """Make glides from one vowel to another, x (N, 40, 20), in six classes: ia ai iu ui au ua.

    A glide has 20 to 40 frames; its formants go from the first vowel's to the second's along an
    S curve of random steepness whose middle lies in the middle third. Speakers differ by a factor
    of 0.85 to 1.15 on all formants. The frames are log spectra in 20 bands, scaled, with normal
    noise of deviation 0.5; after a glide's end they are exactly 0. A class and its reverse pass
    through the same sounds, so only their order tells them apart.
    """
    n = train + test
    draws = [
        uniform(make_key(0, stream_id("glides"), draw), (n, 1), "float64") for draw in range(4)
    ]
    label = np.arange(n) % len(WORDS)
    frames = np.floor(SHORTEST + (LONGEST + 1 - SHORTEST) * draws[0])
    place = np.arange(LONGEST) / (frames - 1.0)
    middle, steep, speaker = (1.0 + draws[1]) / 3.0, 8.0 + 12.0 * draws[2], 0.85 + 0.3 * draws[3]
    share = 1.0 / (1.0 + np.exp(-steep * (place - middle)))
    first, last = (
        np.log(np.array([FORMANTS[word[part]] for word in WORDS]))[label][:, None]
        for part in (0, 1)
    )
    formants = speaker[..., None] * np.exp(first + share[..., None] * (last - first))
    x = 0.5 * (spectrum(formants) + 2.5) + NOISE * draw_normal("glides noise", (n, LONGEST, BANDS))
    x[np.arange(LONGEST) >= frames] = 0.0
    about = (
        "glides between two vowels as log spectra; six classes, pairwise the reverse of one another"
    )
    return made_splits(
        "glides", x.astype(np.float32), label.astype(np.int64),
        train=train, num_classes=len(WORDS), description=about,
    )  # fmt: skip


class SequenceClassifier(nn.Module):
    """A plain recurrent layer over the frames; its state after the last frame names the class.

        h_t = tanh(W x_t + U h_(t-1) + b)      p = softmax(V h_T + c), the softmax in the loss

    T is each sequence's own number of frames: those after it are zeros.
    """

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """Return scores (N, classes) of sequences (N, T, inputs)."""
        frames = (x.abs().sum(2) > 0.0).long().sum(1)
        _, h = self.rnn(x, lengths=frames)
        return self.head(h[0])


def order_blind(splits: Splits) -> float:
    """Return how much of the test set the nearest class mean of the time-averaged frames gets right."""

    def averages(x: npt.NDArray[np.float32]) -> Array:
        frames = (np.abs(x).sum(2) > 0).sum(1, keepdims=True)
        return np.asarray(x.sum(1, dtype=np.float64) / frames)

    train, test = averages(splits.train.x), averages(splits.test.x)
    means = np.stack([train[splits.train.y == k].mean(0) for k in range(len(WORDS))])
    nearest = ((test[:, None] - means) ** 2).sum(2).argmin(1)
    return float((nearest == splits.test.y).mean())


def shows(model: SequenceClassifier, splits: Splits) -> Explanation:
    """Measure the test accuracy beside that of a classifier that does not see the order."""
    desk = Desk.of(model)
    note = Explanation(
        "sequence-classifier",
        "Glides between vowels, told apart by a recurrent net",
        SOURCE,
        desk.backend,
        desk.dtype,
        ["h_t = tanh(W x_t + U h_(t-1) + b)    p = softmax(V h_T + c)"],
    )
    x, y = splits.test.x, splits.test.y
    guess = values(model(desk.tensor(x))).argmax(1)
    note.at_least("right", "of the test sequences", (guess == y).mean(), 0.95)
    blind = order_blind(splits)
    note.show("right", "by the nearest mean of the frames' average, without their order", blind)
    for k, word in enumerate(WORDS):
        note.show(word, "of this class right", (guess[y == k] == k).mean())
    shown = [int(np.flatnonzero(y == k)[0]) for k in range(len(WORDS))]
    note.drawings["glides"] = Images(
        "Glides " + " ".join(WORDS) + ": time to the right, pitch upwards",
        {"log spectra": np.stack([x[i].T[::-1] for i in shown])},
    )
    return note


@system(
    "sequence-classifier",
    family="recurrent",
    year=1990,
    source=SOURCE,
    summary="a recurrent net classifies speech-like glides between vowels by their order",
    data=glides,
    loss=F.cross_entropy,
    optimizer="adam",
    lr=3e-3,
    schedule="cosine",
    batch_size=50,
    epochs=30,
    expected={"test_accuracy": 0.95},
    shows=shows,
)
def build() -> SequenceClassifier:
    """Return a net of 48 recurrent units over 20 bands, with six classes."""
    return SequenceClassifier(BANDS, 48, len(WORDS))
