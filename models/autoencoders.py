"""`autoencoder`, `stacked-autoencoder`, `deconv-autoencoder`: images squeezed through a short code.

    code = f(x),   x^ = g(code),   C = 1/2N sum_n |x_n - x^_n|^2

With linear f and g nothing beats PCA (see principal_components); with hidden layers less is lost at
the same code size. Source: source notes 001.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

import trine
from trine import nn
from trine.data import ArrayDataset, Splits
from trine.models.desk import Desk, fit, half_squared_error, own_targets, run_over, values
from trine.models.explanation import Explanation
from trine.models.figures import Images
from trine.models.principal_components import flat, principal_axes
from trine.models.registry import system

Array = npt.NDArray[np.float64]

SOURCE = "source notes 001"
SIZES = (28 * 28, 256, 64, 8)
"""Units from the image to the code."""

SHOWN = 12
"""Images drawn in a row."""


class Deep(nn.Module):
    """Full layers down to the code and back, all activated but the code, pixels logistic."""

    def __init__(self, sizes: Sequence[int], activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.code_size = sizes[-1]
        steps = list(pairwise(sizes))
        self.encoder = nn.ModuleList([nn.Linear(a, b) for a, b in steps])
        self.decoder = nn.ModuleList([nn.Linear(b, a) for a, b in reversed(steps)])

    def encode(self, x: trine.Tensor) -> trine.Tensor:
        """Return the codes (N, code) of images."""
        a = x.flatten(1)
        *hidden, last = self.encoder
        for layer in hidden:
            a = layer(a, self.activation)
        return last(a)

    def decode(self, code: trine.Tensor) -> trine.Tensor:
        """Return flat images (N, pixels) of codes."""
        a = code
        *hidden, last = self.decoder
        for layer in hidden:
            a = layer(a, self.activation)
        return last(a, "sigmoid")

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        return self.decode(self.encode(x)).reshape(x.shape)


class Stacked(Deep):
    """A deep autoencoder of logistic units that remembers what its pre-training reached.

    `before` and `after` hold the cost on the training set before and after pre-training.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(sizes, "sigmoid")
        self.register_buffer("before", trine.zeros(1))
        self.register_buffer("after", trine.zeros(1))


class Layer(nn.Module):
    """One layer of a stack as an autoencoder of its own: a -> h -> a^, a^ logistic."""

    def __init__(self, inputs: int, units: int, linear_code: bool) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, units)
        self.up = nn.Linear(units, inputs)
        self.linear_code = linear_code

    def encode(self, a: trine.Tensor) -> trine.Tensor:
        """Return the hidden layer's signals."""
        return self.down(a, "none" if self.linear_code else "sigmoid")

    def forward(self, a: trine.Tensor) -> trine.Tensor:
        return self.up(self.encode(a), "sigmoid")


PRETRAINING_EPOCHS = 15


def pretrain(model: Stacked, splits: Splits, epochs: int = PRETRAINING_EPOCHS) -> None:
    """Train layer after layer to reproduce what the layers below make of the images.

    Layer k learns a_(k-1) -> a_k -> a_(k-1) alone; its two halves become encoder k and the decoder
    at the same height (Bengio et al., Greedy layer-wise training of deep networks, 2007).
    """
    desk = Desk.of(model)
    model.before.fill_(cost(model, splits.train.x))
    signals = flat(splits.train.x)
    for k, (encoder, decoder) in enumerate(
        zip(model.encoder, reversed(model.decoder), strict=True)
    ):
        layer = Layer(signals.shape[1], len(encoder.bias), k == len(model.encoder) - 1)
        desk.place(layer)
        data = ArrayDataset(signals, signals, name=f"layer {k + 1}")
        fit(layer, data, half_squared_error, lr=3e-3, epochs=epochs)
        encoder.load_state_dict(layer.down.state_dict())
        decoder.load_state_dict(layer.up.state_dict())
        signals = run_over(layer.encode, desk, signals)
    model.after.fill_(cost(model, splits.train.x))


class Deconvolutional(nn.Module):
    """Two convolutions of stride 2, a code, and two transposed convolutions back to the image.

    Images of 28x28 become maps of 14x14 and 7x7. Raises ValueError for a side that is no multiple
    of 4.
    """

    def __init__(self, code: int, side: int = 28) -> None:
        super().__init__()
        if side % 4:
            raise ValueError(
                f"[deconv-autoencoder] expected images whose side is a multiple of 4, got {side}. "
                "Pad or crop them."
            )
        self.code_size, self.inner_side = code, side // 4
        inner = 16 * self.inner_side**2
        self.conv1 = nn.Conv2d(1, 8, 4, stride=2, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 4, stride=2, padding=1)
        self.code = nn.Linear(inner, code)
        self.uncode = nn.Linear(code, inner)
        self.deconv2 = nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1)
        self.deconv1 = nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1)

    def encode(self, x: trine.Tensor) -> trine.Tensor:
        """Return the codes (N, code) of images (N, 1, side, side)."""
        return self.code(self.conv2(self.conv1(x).relu()).relu().flatten(1))

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        maps = self.uncode(self.encode(x)).relu().reshape(-1, 16, self.inner_side, self.inner_side)
        return self.deconv1(self.deconv2(maps).relu()).sigmoid()


def cost(model: nn.Module, x: npt.NDArray[np.float32]) -> float:
    """Return 1/2 mean |x - x^|^2 over images."""
    differences = run_over(lambda batch: model(batch) - batch, Desk.of(model), x)
    return 0.5 * float(np.mean(np.sum(flat(differences) ** 2, axis=1)))


def pca_reconstructions(splits: Splits, size: int) -> Array:
    """Return what PCA, fitted on the training images, makes of the test images by `size` numbers."""
    train, test = flat(splits.train.x), flat(splits.test.x)
    mean = train.mean(axis=0)
    axes = principal_axes(train - mean)[1][:size]
    return mean + (test - mean) @ axes.T @ axes


def show(model: Deep | Deconvolutional, splits: Splits, name: str, title: str) -> Explanation:
    """Compare a model with PCA at the same code size, on the test images."""
    desk = Desk.of(model)
    note = Explanation(
        name, title, SOURCE, desk.backend, desk.dtype,
        ["C = 1/2N sum |x - g(f(x))|^2", f"code size {model.code_size}, for PCA as well"],
    )  # fmt: skip
    x = splits.test.x
    linear = pca_reconstructions(splits, model.code_size)
    by_pca = 0.5 * float(np.mean(np.sum((flat(x) - linear) ** 2, axis=1)))
    by_model = cost(model, x)
    note.show("C", "PCA, test images", by_pca)
    note.show("C", "the autoencoder, test images", by_model)
    note.at_most("C / C of PCA", "less is lost at equal code size", by_model / by_pca, 0.95)
    rows = {
        "test images": x[:SHOWN, 0],
        "autoencoder": run_over(model, desk, x[:SHOWN])[:, 0],
        "PCA": linear[:SHOWN].reshape(x[:SHOWN, 0].shape),
    }
    note.drawings["reconstructions"] = Images(f"Through {model.code_size} numbers", rows)
    return note


def show_deep(model: Deep, splits: Splits) -> Explanation:
    """Show that the deep autoencoder loses less than PCA."""
    return show(model, splits, "autoencoder", "A deep autoencoder against PCA")


def show_stacked(model: Stacked, splits: Splits) -> Explanation:
    """Show the same, and what pre-training and fine-tuning each did."""
    note = show(model, splits, "stacked-autoencoder", "Layer by layer, then all at once")
    before, after = (values(buffer).item() for buffer in (model.before, model.after))
    final = cost(model, splits.train.x)
    note.show("C, training", "at the random start", before)
    note.at_most("C, training", "after layer-wise pre-training", after, before)
    note.at_most("C, training", "after fine-tuning", final, after)
    return note


def show_deconv(model: Deconvolutional, splits: Splits) -> Explanation:
    """Show that convolutions and their transposes lose less than PCA."""
    return show(model, splits, "deconv-autoencoder", "Convolution and deconvolution against PCA")


COMMON: dict[str, Any] = {
    "family": "autoencoder",
    "data": "digits",
    "task": own_targets,
    "loss": half_squared_error,
    "metrics": (),
    "optimizer": "adam",
    "schedule": "cosine",
    "batch_size": 64,
}


@system(
    "autoencoder",
    **COMMON,
    year=2006,
    source=f"{SOURCE}; Hinton and Salakhutdinov, 2006",
    summary="784-256-64-8 and back with ReLU: loses less than PCA at equal code size",
    lr=2e-3,
    epochs=80,
    shows=show_deep,
)
def build_deep() -> Deep:
    """Return the deep autoencoder: 436,632 parameters."""
    return Deep(SIZES, "relu")


@system(
    "stacked-autoencoder",
    **COMMON,
    year=2007,
    source=f"{SOURCE}; Bengio et al., Greedy layer-wise training of deep networks, 2007",
    summary="784-256-64-8 and back of logistic units, pre-trained layer by layer",
    lr=2e-3,
    epochs=60,
    pretrain=pretrain,
    shows=show_stacked,
)
def build_stacked() -> Stacked:
    """Return the stack of logistic layers: 436,632 parameters."""
    return Stacked(SIZES)


@system(
    "deconv-autoencoder",
    **COMMON,
    year=2010,
    source=f"{SOURCE}; Zeiler et al., Deconvolutional networks, 2010",
    summary="two convolutions to a code of 8 and two transposed convolutions back",
    lr=1e-2,
    epochs=60,
    shows=show_deconv,
)
def build_deconv() -> Deconvolutional:
    """Return the convolutional autoencoder for images (N, 1, 28, 28)."""
    return Deconvolutional(SIZES[-1])
