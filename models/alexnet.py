"""AlexNet: `alexnet` and `alexnet-onetower` for large pictures, `alexnet-small` for 28x28.

    conv 11x11/4 -> 96 -> LRN -> max 3/2 -> conv 5x5 -> 256 -> LRN -> max 3/2
         -> conv 3x3 -> 384 -> conv 3x3 -> 384 -> conv 3x3 -> 256 -> max 3/2
         -> 4096 -> 4096 -> classes,      ReLU behind every layer but the last,
    LRN: b_c = a_c / (2 + 1e-4 sum of a_j^2 over the 5 maps around c)^0.75

The paper trained it on two GPUs, each with half of the maps: the second, fourth and fifth
convolution see the maps of their own half only (groups=2), 60,965,224 parameters. Its pictures are
227x227, which its text calls 224. The later form in one tower has fewer maps in the first layers
and no LRN, 61,100,840 parameters under torchvision's names.
"""

from __future__ import annotations

from typing import Any

import trine
import trine.functional as F
from trine import nn
from trine.models.desk import start_for_relu_
from trine.models.large_images import BATCH, CLASSES, large_images, shows
from trine.models.registry import system

SOURCE = "source notes 001; Krizhevsky, Sutskever and Hinton, ImageNet classification, 2012"


class AlexNet(nn.Module):
    """Convolutions, then full layers."""

    def __init__(self, features: nn.Sequential, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """(N, C, H, W) -> scores (N, classes)."""
        return self.classifier(self.features(x).flatten(1))


def response_norm() -> nn.Module:
    """Return the paper's LRN; ours divides alpha by the number of neighbours, the paper does not."""
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)


FULL_SIZE: dict[str, Any] = {
    "loss": F.cross_entropy,
    "optimizer": "sgd",
    "lr": 1e-3,
    "optimizer_args": {"momentum": 0.9, "weight_decay": 5e-4},
    "batch_size": BATCH,
    "epochs": 1,
}
"""How the nets of the papers' sizes are trained: a few steps, to show that they do."""


@system(
    "alexnet",
    family="convolutional",
    year=2012,
    source=SOURCE,
    summary="two groups and LRN, 60,965,224 parameters; a few steps on made 227x227 pictures",
    data=large_images(227),
    **FULL_SIZE,
    shows=shows("alexnet", 60_965_224),
)
def two_groups(classes: int = CLASSES) -> AlexNet:
    """Return the paper's net for images (N, 3, 227, 227)."""
    features = nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(), response_norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), response_norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    classifier = nn.Sequential(
        nn.Linear(256 * 6 * 6, 4096), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(4096, classes),
    )  # fmt: skip
    return AlexNet(features, classifier).apply(start_for_relu_)


@system(
    "alexnet-onetower",
    family="convolutional",
    year=2014,
    source="source notes 001; Krizhevsky, One weird trick, 2014; torchvision's alexnet",
    summary="one tower, 61,100,840 parameters; a few steps on made 224x224 pictures",
    data=large_images(224),
    **FULL_SIZE,
    shows=shows("alexnet-onetower", 61_100_840),
)
def one_tower(classes: int = CLASSES) -> AlexNet:
    """Return torchvision's net for images (N, 3, 224, 224); other sizes are averaged to 6x6."""
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d(6),
    )  # fmt: skip
    classifier = nn.Sequential(
        nn.Dropout(0.5), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU(),
        nn.Linear(4096, classes),
    )  # fmt: skip
    return AlexNet(features, classifier).apply(start_for_relu_)


@system(
    "alexnet-small",
    family="convolutional",
    year=2012,
    source=SOURCE,
    summary="AlexNet's layers, groups, LRN and overlapping maxima for 28x28: digits, Fashion-MNIST",
    data="digits",
    loss=F.cross_entropy,
    optimizer="adam",
    lr=2e-3,
    schedule="cosine",
    batch_size=32,
    epochs=15,
    expected={"test_accuracy": 0.97},  # seeds 0, 1, 2: 99.2, 98.1, 99.2 %
)
def small(classes: int = 10) -> AlexNet:
    """Return the paper's eight layers for images (N, 1, 28, 28), with about a sixth of the maps."""
    features = nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), response_norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(24, 48, 5, padding=2, groups=2), nn.ReLU(), response_norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(48, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(64, 48, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    classifier = nn.Sequential(
        nn.Linear(48 * 2 * 2, 192), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(192, 192), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(192, classes),
    )  # fmt: skip
    return AlexNet(features, classifier).apply(start_for_relu_)
