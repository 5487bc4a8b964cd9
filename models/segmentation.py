"""`segmentation`: a class for every pixel, by convolution and deconvolution.

    32x32  conv 16  --------------------------------->  + deconv 16 -> conv, a score for each class
             max 2                                           |
    16x16  conv 32  ---------------------->  + deconv 32 ----
             max 2                                |
    8x8    conv 64  ----------->  + deconv 64 ----
             max 2                     |
    4x4    conv 64  ------------------

A deconvolution is the transposed convolution: y_(ai+r)(bj+s) = sum_ij x_ij w_rs, here with 4x4
kernels and stride 2, which double height and width. On the way down, by convolutions with batch
normalisation, a pixel comes to see the whole shape that it lies in; the sums bring back where edges
are, which the maxima lost. The cost is the mean cross-entropy of all pixels. The result is judged by

    IoU_k = |pixels of class k that were called k| / |pixels that are k or were called k|

over all pictures of the test set, and its mean over the classes, the ground among them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn
from trine.data import Splits
from trine.models.desk import Desk
from trine.models.explanation import Explanation
from trine.models.figures import Images
from trine.models.registry import system
from trine.models.shapes import KINDS, shape_masks

CLASSES = ("ground", *KINDS)
COLOURS = np.array([(0.1, 0.1, 0.1), (0.9, 0.3, 0.2), (0.2, 0.6, 0.9), (0.9, 0.8, 0.2)])
"""Of the classes in a drawing."""


def _layer(channels: int, maps: int) -> nn.Sequential:
    """Return a 3x3 convolution with batch normalisation and ReLU."""
    conv = nn.Conv2d(channels, maps, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(maps), nn.ReLU())


class Segmentation(nn.Module):
    """Three maxima down, three deconvolutions up, with sums across."""

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.conv1 = _layer(3, 16)
        self.conv2 = _layer(16, 32)
        self.conv3 = _layer(32, 64)
        self.conv4 = _layer(64, 64)
        self.pool = nn.MaxPool2d(2)
        self.up3 = nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1)
        self.up2 = nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1)
        self.up1 = nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1)
        self.score = nn.Conv2d(16, classes, 3, padding=1)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """(N, 3, H, W), both multiples of 8 -> scores (N, classes, H, W)."""
        x1 = self.conv1(x)
        x2 = self.conv2(self.pool(x1))
        x3 = self.conv3(self.pool(x2))
        x4 = self.conv4(self.pool(x3))
        x3 = (self.up3(x4) + x3).relu()
        x2 = (self.up2(x3) + x2).relu()
        x1 = (self.up1(x2) + x1).relu()
        return self.score(x1)


def class_ious(
    found: npt.NDArray[np.int64], truth: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.float64]:
    """Return intersection / union of each class over all pixels; NaN for a class that is nowhere."""
    pairs = np.bincount(truth.ravel() * classes + found.ravel(), minlength=classes * classes)
    pairs = pairs.reshape(classes, classes)
    union = pairs.sum(axis=0) + pairs.sum(axis=1) - np.diag(pairs)
    return np.where(union > 0, np.diag(pairs) / np.maximum(union, 1), np.nan)


def segment(model: nn.Module, images: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the most likely class of every pixel, (N, H, W)."""
    desk = Desk.of(model)
    with trine.no_grad():
        parts = [
            model(desk.tensor(images[i : i + 100])).argmax(1).numpy()
            for i in range(0, len(images), 100)
        ]
    return np.concatenate(parts)


def shows(model: nn.Module, splits: Splits) -> Explanation:
    """Measure the overlap of found and true regions on the test set."""
    desk = Desk.of(model)
    found = segment(model, splits.test.x)
    ious = class_ious(found, splits.test.y, len(CLASSES))
    note = Explanation(
        "segmentation", "Every pixel gets a class", "source notes 001", desk.backend, desk.dtype
    )
    for name, iou in zip(CLASSES, ious, strict=True):
        note.show(f"IoU {name}", "intersection / union, test set", iou)
    note.at_least("mean IoU", "mean over the classes", ious.mean(), 0.9)
    shown = slice(0, 8)
    note.drawings["masks"] = Images(
        "Pictures, true classes, found classes: red rectangles, blue ellipses, yellow triangles",
        {
            "picture": splits.test.x[shown].transpose(0, 2, 3, 1).clip(0, 1),
            "truth": COLOURS[splits.test.y[shown]],
            "found": COLOURS[found[shown]],
        },
    )
    return note


@system(
    "segmentation",
    family="convolutional",
    year=2015,
    source="source notes 001; Long, Shelhamer and Darrell, 2015; Noh, Hong and Han, 2015",
    summary="convolution down and deconvolution up: a class for every pixel of made shapes",
    data=shape_masks,
    loss=F.cross_entropy,
    optimizer="adam",
    lr=5e-3,
    schedule="cosine",
    batch_size=20,
    epochs=6,
    shows=shows,
)
def build() -> Segmentation:
    """Return the network at PyTorch's default start."""
    return Segmentation()
