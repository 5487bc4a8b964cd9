"""`segmentation`: a class for every pixel, by convolution and deconvolution.

    32x32 -> conv 16 -> max 2 -> 16x16 conv 32 -> max 2 -> 8x8 conv 64
          -> deconv 32 (16x16) + what conv 32 saw -> deconv 16 (32x32) + what conv 16 saw
          -> 1x1 conv, a score for each class at each pixel

A deconvolution is the transposed convolution: y_(ai+r)(bj+s) = sum_ij x_ij w_rs, here with 4x4
kernels and stride 2, which double height and width. The sums bring back where edges lie, which the
maxima lost. The cost is the mean cross-entropy of all pixels. The result is judged by

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


class Segmentation(nn.Module):
    """Two maxima down, two deconvolutions up, with sums across."""

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.up2 = nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1)
        self.up1 = nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1)
        self.score = nn.Conv2d(16, classes, 1)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """(N, 3, H, W), both multiples of 4 -> scores (N, classes, H, W)."""
        fine = self.conv1(x, "relu")
        middle = self.conv2(self.pool(fine), "relu")
        coarse = self.conv3(self.pool(middle), "relu")
        middle = (self.up2(coarse) + middle).relu()
        fine = (self.up1(middle) + fine).relu()
        return self.score(fine)


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
        "Pictures, true classes, found classes",
        {
            "picture": splits.test.x[shown].transpose(0, 2, 3, 1).clip(0, 1),
            "truth": splits.test.y[shown],
            "found": found[shown],
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
    lr=3e-3,
    schedule="cosine",
    batch_size=20,
    epochs=15,
    shows=shows,
)
def build() -> Segmentation:
    """Return the network at PyTorch's default start."""
    return Segmentation()
