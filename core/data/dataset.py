"""Data sets in memory: samples and targets, checked when they are put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trine.errors import DataError

if TYPE_CHECKING:
    from trine.data.text import Text


class ArrayDataset:
    """Samples x (N, ...) with targets y (N, ...).

    Integer targets of one axis are class labels and must lie in [0, num_classes). Raises DataError
    for lengths that differ, no samples, values that are not numbers, NaN or Inf, and labels out of
    range, each with the first place where it happens.
    """

    def __init__(
        self,
        x: npt.NDArray[Any],
        y: npt.NDArray[Any],
        num_classes: int | None = None,
        name: str = "dataset",
    ) -> None:
        self.x, self.y = np.asarray(x, order="C"), np.asarray(y, order="C")
        self.name = name
        self.num_classes = num_classes
        for label, array in (("samples", self.x), ("targets", self.y)):
            if array.dtype.kind not in "biuf":
                raise DataError(
                    f"[{name}] expected {label} as numbers, got dtype {array.dtype}. Convert them, e.g. "
                    "map class names to 0, 1, 2, ..."
                )
            if array.ndim == 0 or (array.dtype.kind == "f" and not np.isfinite(array).all()):
                raise DataError(_not_finite(name, label, array))
        if len(self.x) != len(self.y):
            raise DataError(
                f"[{name}] expected as many targets as samples, got {len(self.x)} samples and "
                f"{len(self.y)} targets. Do the files belong together?"
            )
        if len(self.x) == 0:
            raise DataError(f"[{name}] expected at least one sample, got none. Check the files.")
        if num_classes is not None:
            self._check_labels(num_classes)

    def _check_labels(self, num_classes: int) -> None:
        if self.y.ndim != 1 or self.y.dtype.kind not in "iu":
            raise DataError(
                f"[{self.name}] expected integer labels (N,), got {self.y.dtype} {self.y.shape}. "
                "Convert them with astype('int64')."
            )
        wrong = np.flatnonzero((self.y < 0) | (self.y >= num_classes))
        if wrong.size:
            first = int(wrong[0])
            raise DataError(
                f"[{self.name}] expected labels from 0 to {num_classes - 1}, got {int(self.y[first])} at "
                f"sample {first} ({wrong.size} in all). Is num_classes right?"
            )
        self.y = self.y.astype(np.int64)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        return self.x[index], self.y[index]

    def __repr__(self) -> str:
        return f"ArrayDataset({self.name!r}, {len(self)} samples {self.x.shape[1:]})"


def _not_finite(name: str, label: str, array: npt.NDArray[Any]) -> str:
    if array.ndim == 0:
        return f"[{name}] expected {label} (N, ...), got a single number. Add an axis."
    first = np.argwhere(~np.isfinite(array))[0]
    place = tuple(int(i) for i in first)
    return (
        f"[{name}] expected finite {label}, got {array[place]} at {place}. Remove or fill such "
        "samples first."
    )


@dataclass(frozen=True)
class Splits:
    """A data set split into training and test samples, with what one should know of it.

    `text` is what the samples were cut from, where that is text.
    """

    name: str
    train: ArrayDataset
    test: ArrayDataset
    num_classes: int | None = None
    description: str = ""
    licence: str = ""
    text: Text | None = None
