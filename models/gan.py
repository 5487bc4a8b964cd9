"""`gan`: a generator learns to make digits that a discriminator takes for real ones.

D(x) is the discriminator's score, s(D(x)) its probability that x is real; G(z) makes an image of
noise z ~ N(0, I). The two have costs of their own:

    C_D = -E_x[a ln s(D(x)) + (1 - a) ln(1 - s(D(x)))] - E_z[ln(1 - s(D(G(z))))]
    C_G = -E_z[ln s(D(G(z)))]

C_G is the form that does not saturate while D wins; a = 0.9 instead of 1 keeps D from becoming
certain. Sources: source notes 001; Goodfellow et al., Generative adversarial nets, 2014; Salimans
et al., Improved techniques for training GANs, 2016.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn
from trine.data import Splits
from trine.models import registry
from trine.models.desk import Desk, draw_normal, fit, run_over
from trine.models.explanation import Explanation
from trine.models.figures import Images
from trine.models.registry import system

Array = npt.NDArray[np.float64]
Scores = tuple[trine.Tensor, trine.Tensor]
"""D of real and of made images, (N, 1) each."""

SOURCE = "source notes 001"
NOISE, UNITS, SIDE = 32, 128, 28
SURE = 0.9
"""What stands for 1 as the discriminator's target for real images."""

SAMPLES = 500
CONFIDENT = 0.8


class Generator(nn.Module):
    """z -> two hidden layers with batch normalisation and ReLU -> side^2 pixels from 0 to 1."""

    def __init__(self, noise: int, units: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.hidden1 = nn.Linear(noise, units, bias=False)
        self.norm1 = nn.BatchNorm1d(units)
        self.hidden2 = nn.Linear(units, units, bias=False)
        self.norm2 = nn.BatchNorm1d(units)
        self.pixels = nn.Linear(units, side * side)

    def forward(self, z: trine.Tensor) -> trine.Tensor:
        """Return images (N, 1, side, side) of noise (N, noise)."""
        a = self.norm1(self.hidden1(z)).relu()
        a = self.norm2(self.hidden2(a)).relu()
        return self.pixels(a, "sigmoid").reshape(-1, 1, self.side, self.side)


class Discriminator(nn.Module):
    """side^2 pixels -> two hidden layers with leaky ReLU and dropout -> one score."""

    def __init__(self, units: int, side: int) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(side * side, units)
        self.dropout1 = nn.Dropout(0.3)
        self.hidden2 = nn.Linear(units, units)
        self.dropout2 = nn.Dropout(0.3)
        self.score = nn.Linear(units, 1)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """Return D(x), (N, 1), for images with pixels from 0 to 1."""
        a = self.dropout1(F.leaky_relu(self.hidden1(2 * x.flatten(1) - 1), 0.2))
        a = self.dropout2(F.leaky_relu(self.hidden2(a), 0.2))
        return self.score(a)


class GAN(nn.Learner):
    """Both networks; a step moves each along the gradient of its own cost."""

    def __init__(self, noise: int = NOISE, units: int = UNITS, side: int = SIDE) -> None:
        super().__init__()
        self.noise = noise
        self.generator = Generator(noise, units, side)
        self.discriminator = Discriminator(units, side)

    def make(self, like: trine.Tensor) -> trine.Tensor:
        """Return as many images as `like` has, of fresh noise."""
        shape = (like.shape[0], self.noise)
        return self.generator(trine.randn(shape, dtype=like.dtype, backend=like.backend))

    def forward(self, x: trine.Tensor) -> Scores:
        return self.discriminator(x), self.discriminator(self.make(x))

    def learn(self, input: trine.Tensor, target: trine.Tensor) -> Scores:
        """Give D the gradient of C_D and G that of C_G; the target is not looked at."""
        made = self.make(input)
        scores = self.discriminator(input), self.discriminator(made.detach())
        self._descend_by(discriminator_cost(scores), self.discriminator)
        self._descend_by(generator_cost(self.discriminator(made)), self.generator)
        return scores

    def _descend_by(self, cost: trine.Tensor, part: nn.Module) -> None:
        parameters = list(part.parameters())
        for parameter, gradient in zip(parameters, trine.grad(cost, parameters), strict=True):
            self.descend(parameter, gradient)


def discriminator_cost(scores: Scores) -> trine.Tensor:
    """Return C_D of scores (N, 1) of real and of made images."""
    real, made = scores
    sure = trine.full(real.shape, SURE, dtype=real.dtype, backend=real.backend)
    loss = F.binary_cross_entropy_with_logits
    return loss(real, sure) + loss(made, trine.zeros_like(made))


def generator_cost(made: trine.Tensor) -> trine.Tensor:
    """Return C_G of scores (N, 1) of made images."""
    return F.binary_cross_entropy_with_logits(made, trine.ones_like(made))


def measured(output: Scores, target: trine.Tensor) -> trine.Tensor:
    """Return C_D, which a run reports; 2 ln 2 = 1.386 where D can only guess and a = 1."""
    return discriminator_cost(output)


def samples(model: GAN, count: int) -> Array:
    """Return images (count, 1, side, side) of the generator in evaluation mode."""
    z = draw_normal("gan samples", (count, model.noise))
    model.eval()
    return run_over(model.generator, Desk.of(model), z)


def judge(desk: Desk, splits: Splits, epochs: int = 12) -> nn.Module:
    """Return a LeNet-5 trained on the real digits alone, to read the made ones."""
    build = registry.get("lenet5").build
    assert build is not None
    classifier: nn.Module = desk.place(build())
    fit(classifier, splits.train, F.cross_entropy, lr=3e-3, epochs=epochs)
    return classifier


def probabilities(classifier: nn.Module, images: npt.NDArray[Any]) -> Array:
    """Return the classifier's p(class | image), (N, classes)."""
    return run_over(lambda x: F.softmax(classifier(x), 1), Desk.of(classifier), images)


def show(model: GAN, splits: Splits, classifier: nn.Module | None = None) -> Explanation:
    """Let an independent classifier, `judge` by default, read 500 samples: what, and how surely."""
    desk = Desk.of(model)
    note = Explanation(
        "gan", "Digits made of noise", SOURCE, desk.backend, desk.dtype,
        ["C_D = -E[ln s(D(x))] - E[ln(1 - s(D(G(z))))]", "C_G = -E[ln s(D(G(z)))]"],
    )  # fmt: skip
    images = samples(model, SAMPLES)
    classifier = classifier if classifier is not None else judge(desk, splits)
    right = probabilities(classifier, splits.test.x).argmax(axis=1) == splits.test.y
    note.at_least("accuracy", "of the classifier, on real test images", right.mean(), 0.95)
    p = probabilities(classifier, images)
    confidence, digit = p.max(axis=1), p.argmax(axis=1)
    clear = np.bincount(digit[confidence >= CONFIDENT], minlength=p.shape[1])
    note.at_least("classes", f"read at {CONFIDENT} or more in {SAMPLES} samples",
                  int((clear > 0).sum()), p.shape[1] - 1)  # fmt: skip
    note.at_least("confidence", "its median over the samples", np.median(confidence), CONFIDENT)
    note.matrices[f"samples read as 0, 1, ... at {CONFIDENT} or more"] = clear
    chosen = [np.flatnonzero(digit == d)[:10] for d in range(p.shape[1])]
    rows = {f"read as {d}": images[which, 0] for d, which in enumerate(chosen) if len(which)}
    note.drawings["samples"] = Images("Made of noise", rows)
    return note


@system(
    "gan",
    family="generative",
    year=2014,
    source=f"{SOURCE}; Goodfellow et al., 2014",
    summary="a generator against a discriminator: digits out of noise",
    data="digits",
    loss=measured,
    metrics=(),
    optimizer="adam",
    lr=1e-3,
    optimizer_args={"betas": (0.5, 0.999)},
    batch_size=64,
    epochs=120,
    shows=show,
)
def build() -> GAN:
    """Return generator and discriminator at a random start."""
    return GAN()
