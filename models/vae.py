"""`vae`: a variational autoencoder of images, whose codes follow a normal distribution.

    z ~ N(0, I),   x_i ~ Bernoulli(s(l_i)) with l = g(z),   q(z|x) = N(mu(x), diag sigma^2(x))
    ELBO(x) = E_q[ln p(x|z)] - KL(q(z|x) || N(0, I)) <= ln p(x)
    KL = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - ln sigma_j^2)
    z = mu + sigma (.) epsilon,   epsilon ~ N(0, I)

The last line makes the sample a function of mu and sigma, so that gradients go through it. Grey
levels from 0 to 1 count as probabilities of ink. Sources: source notes 001; Kingma and Welling,
Auto-encoding variational Bayes, 2014.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn
from trine.data import Splits
from trine.models.desk import Desk, draw_normal, own_targets, run_over
from trine.models.explanation import Explanation
from trine.models.figures import Images
from trine.models.registry import system

Array = npt.NDArray[np.float64]
Output = tuple[trine.Tensor, trine.Tensor, trine.Tensor]
"""Logits l (N, pixels), mu and ln sigma^2 (N, code)."""

SOURCE = "source notes 001"
INPUTS, HIDDEN, CODE = 28 * 28, 256, 10
SHOWN = 12
"""Images drawn in a row."""


class VAE(nn.Module):
    """One hidden layer on either side of the code."""

    def __init__(self, inputs: int = INPUTS, hidden: int = HIDDEN, code: int = CODE) -> None:
        super().__init__()
        self.code = code
        self.encoder = nn.Linear(inputs, hidden)
        self.mu = nn.Linear(hidden, code)
        self.log_variance = nn.Linear(hidden, code)
        self.decoder = nn.Linear(code, hidden)
        self.logits = nn.Linear(hidden, inputs)

    def encode(self, x: trine.Tensor) -> tuple[trine.Tensor, trine.Tensor]:
        """Return mu and ln sigma^2 of q(z|x), (N, code) each."""
        h = self.encoder(x.flatten(1), "relu")
        return self.mu(h), self.log_variance(h)

    def decode(self, z: trine.Tensor) -> trine.Tensor:
        """Return the logits (N, pixels) of p(x|z)."""
        return self.logits(self.decoder(z, "relu"))

    def reconstruct(self, x: trine.Tensor, epsilon: trine.Tensor) -> Output:
        """Return what a code at mu + sigma epsilon stands for, with mu and ln sigma^2."""
        mu, log_variance = self.encode(x)
        return self.decode(mu + (log_variance * 0.5).exp() * epsilon), mu, log_variance

    def forward(self, x: trine.Tensor) -> Output:
        """Draw a code for each image in training; take its mean in evaluation."""
        shape = (x.shape[0], self.code)
        if not self.training:
            return self.reconstruct(x, trine.zeros(shape, dtype=x.dtype, backend=x.backend))
        return self.reconstruct(x, trine.randn(shape, dtype=x.dtype, backend=x.backend))


def divergence(mu: trine.Tensor, log_variance: trine.Tensor) -> trine.Tensor:
    """Return KL(N(mu, sigma^2) || N(0, I)) of each row, (N,)."""
    return ((mu * mu + log_variance.exp() - log_variance - 1) * 0.5).sum(dim=1)


def negative_elbo(output: Output, target: trine.Tensor) -> trine.Tensor:
    """Return the mean over images of -ln p(x|z) + KL, one code z an image."""
    logits, mu, log_variance = output
    x = target.flatten(1)
    unlikely = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return (unlikely + divergence(mu, log_variance).sum()) / x.shape[0]


def elbo(model: VAE, x: npt.NDArray[np.float32], draws: int = 4) -> tuple[float, float]:
    """Return the mean ELBO over images, codes drawn `draws` times, and the KL part of it."""
    desk = Desk.of(model)
    bound = divergences = 0.0
    with trine.no_grad():
        for draw in range(draws):
            epsilon = draw_normal("vae elbo", (len(x), model.code), draw)
            for i in range(0, len(x), 256):
                batch = desk.tensor(x[i : i + 256])
                output = model.reconstruct(batch, desk.tensor(epsilon[i : i + 256]))
                bound -= negative_elbo(output, batch).item() * len(batch)
                divergences += divergence(*output[1:]).sum().item()
    return bound / (draws * len(x)), divergences / (draws * len(x))


def mean_image_likelihood(splits: Splits) -> float:
    """Return the mean ln p(x) of test images where every pixel is an independent coin.

    The best a model without a code can do: p_i is the training mean of pixel i (half a pixel in N
    + 1 is added, so that no pixel is certain).
    """
    train = np.asarray(splits.train.x, np.float64).reshape(len(splits.train), -1)
    test = np.asarray(splits.test.x, np.float64).reshape(len(splits.test), -1)
    p = (train.sum(axis=0) + 0.5) / (len(train) + 1)
    return float(np.mean(np.sum(test * np.log(p) + (1 - test) * np.log1p(-p), axis=1)))


def samples(model: VAE, count: int) -> Array:
    """Return probabilities of ink (count, pixels) of codes drawn from N(0, I)."""
    z = draw_normal("vae samples", (count, model.code))
    return run_over(lambda codes: model.decode(codes).sigmoid(), Desk.of(model), z)


def show(model: VAE, splits: Splits) -> Explanation:
    """Measure the ELBO on the test images by drawn codes, and draw images."""
    desk = Desk.of(model)
    note = Explanation(
        "vae", "A variational autoencoder", SOURCE, desk.backend, desk.dtype,
        ["ELBO = E_q[ln p(x|z)] - KL(q(z|x) || N(0, I)) <= ln p(x)"],
    )  # fmt: skip
    x = splits.test.x
    start = desk.place(VAE(model.encoder.in_features, len(model.encoder.bias), model.code))
    base = mean_image_likelihood(splits)
    bound, kl = elbo(model, x)
    note.show("ELBO", "of a random start, test images", elbo(start, x)[0])
    note.show("ln p", "pixels as coins of their own", base)
    note.at_least("ELBO", "after training, test images", bound, base)
    note.at_least("KL", "the codes say something: nats an image", kl, 1.0)
    side = x.shape[2:]
    drawn = samples(model, 2 * SHOWN).reshape(-1, *side)
    spread = np.linalg.norm(drawn - drawn.mean(axis=0), axis=(1, 2)).mean()
    real = x[:, 0] - x[:, 0].mean(axis=0)
    ratio = spread / np.linalg.norm(real, axis=(1, 2)).mean()
    note.at_least("spread", "samples differ as images do", ratio, 0.5)

    def mean_code(batch: trine.Tensor) -> trine.Tensor:
        return model.decode(model.encode(batch)[0]).sigmoid()

    steps = np.linspace(0.0, 1.0, SHOWN)[:, None]
    ends = run_over(lambda batch: model.encode(batch)[0], desk, x[:2])
    between = run_over(
        lambda z: model.decode(z).sigmoid(), desk, ends[0] + steps * (ends[1] - ends[0])
    )
    rows = {
        "test images": x[:SHOWN, 0],
        "reconstructions": run_over(mean_code, desk, x[:SHOWN]).reshape(-1, *side),
        "samples": drawn[:SHOWN],
        "more samples": drawn[SHOWN:],
        "from one image to another": between.reshape(-1, *side),
    }
    note.drawings["images"] = Images("Variational autoencoder", rows)
    return note


@system(
    "vae",
    family="generative",
    year=2014,
    source=f"{SOURCE}; Kingma and Welling, 2014",
    summary="codes drawn from a normal distribution: reconstructs images and makes new ones",
    data="digits",
    task=own_targets,
    loss=negative_elbo,
    metrics=(),
    optimizer="adam",
    lr=2e-3,
    schedule="cosine",
    batch_size=64,
    epochs=80,
    shows=show,
)
def build() -> VAE:
    """Return the autoencoder 784-256-10-256-784."""
    return VAE()
