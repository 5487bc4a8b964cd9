"""The shipped data set: 1,797 real scans of handwritten digits, 8x8 with 17 grey levels.

They are the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI
Machine Learning Repository, 1998), written by 13 people; licence CC BY 4.0, see files/digits.txt.

The file keeps the original order, in which writers follow one another. The fixed split takes, of
each class, every sample whose rank in a Philox permutation of the class (seed 0, stream
"digits-split", draw = the class) is below a fifth: 1,438 for training and 359 for testing, writers
mixed. `order="file"` trains on the first 1,438 and tests on the last 359 instead, whose writers are
not among the first.

Enlarging to 28x28: grey levels over 16, bilinear interpolation to 24x24 (pixel centres at
(i + 1/2) / 3 - 1/2, clipped to the image), then a border of two zeros.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.data.dataset import ArrayDataset, Splits
from trine.errors import DataError
from trine.random import make_key, permutation, stream_id

COUNT, SIDE, LEVELS = 1797, 8, 16
TEST_FRACTION = 5
INNER, BORDER = 24, 2
LICENCE = "CC BY 4.0 (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository)"


def raw_digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the scans, uint8 (1797, 8, 8) from 0 to 16, and their labels, in file order.

    Raises DataError if the shipped file is damaged.
    """
    with resources.as_file(resources.files("trine.data") / "files" / "digits.npz") as path:
        try:
            with np.load(path, allow_pickle=False) as archive:
                images, labels = archive["images"], archive["labels"]
        except (OSError, KeyError, ValueError) as error:
            raise DataError(
                f"[digits] expected the shipped file {path} to be readable, but: {error}. Install trine "
                "again."
            ) from error
    if images.shape != (COUNT, SIDE, SIDE) or images.max() > LEVELS or labels.shape != (COUNT,):
        raise DataError(f"[digits] expected {COUNT} scans in {path}. Install trine again.")
    return images, labels.astype(np.int64)


def _interpolation() -> npt.NDArray[np.float32]:
    """Return the matrix (24, 8) that interpolates along one axis."""
    position = np.clip((np.arange(INNER) + 0.5) * SIDE / INNER - 0.5, 0, SIDE - 1)
    low = np.minimum(np.floor(position).astype(int), SIDE - 2)
    share = position - low
    matrix = np.zeros((INNER, SIDE))
    matrix[np.arange(INNER), low] = 1 - share
    matrix[np.arange(INNER), low + 1] += share
    return matrix.astype(np.float32)


def enlarge(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return scans (N, 8, 8) as float32 images (N, 1, 28, 28) in [0, 1]."""
    matrix = _interpolation()
    inner = matrix @ (images.astype(np.float32) / LEVELS) @ matrix.T
    edges = ((0, 0), (BORDER, BORDER), (BORDER, BORDER))
    return np.pad(inner, edges)[:, None].astype(np.float32)


def test_members(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which samples the fixed split tests on."""
    chosen = np.zeros(len(labels), bool)
    stream = stream_id("digits-split")
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        order = permutation(make_key(0, stream, digit), len(members))
        chosen[members[order[: round(len(members) / TEST_FRACTION)]]] = True
    return chosen


def load_digits(order: str = "mixed") -> Splits:
    """Return the digits at 28x28, split with writers mixed, or in "file" order.

    Raises ValueError for another order.
    """
    if order not in ("mixed", "file"):
        raise ValueError(f'[digits] expected order "mixed" or "file", got {order!r}. Choose one.')
    images, labels = raw_digits()
    test = test_members(labels)
    if order == "file":
        test = np.arange(COUNT) >= COUNT - int(test.sum())
    x = enlarge(images)
    return Splits(
        name="digits" if order == "mixed" else "digits-file-order",
        train=ArrayDataset(x[~test], labels[~test], 10, "digits/train"),
        test=ArrayDataset(x[test], labels[test], 10, "digits/test"),
        num_classes=10,
        description="1,797 scans of handwritten digits, 8x8 enlarged to 28x28",
        licence=LICENCE,
    )
