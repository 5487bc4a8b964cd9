"""What several tests of models share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from trine.backends.threads import get_threads, set_threads
from trine.data import ArrayDataset, Splits


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Train with one thread: small models gain nothing by a second, and tests run side by side.

    The bytes are the same with any number of threads, which the tests of kernels and training hold.
    """
    before = get_threads()
    set_threads(1)
    yield
    set_threads(before)


@pytest.fixture(scope="session")
def scans() -> Callable[[Splits], Splits]:
    """Return what takes the enlarged digits back to the 8x8 pixels of the scans.

    Enlarging puts pixel i of a scan at 3 + 3i. Targets that are images become as small.
    """

    def small(images: np.ndarray) -> np.ndarray:
        return images[:, :, 3:27:3, 3:27:3] if images.ndim == 4 else images

    def reduced(splits: Splits) -> Splits:
        parts = [ArrayDataset(small(d.x), small(d.y), d.num_classes)
                 for d in (splits.train, splits.test)]  # fmt: skip
        return replace(splits, train=parts[0], test=parts[1])

    return reduced


@pytest.fixture(scope="session")
def scanned(scans: Callable[[Splits], Splits]) -> Splits:
    """Return the scans as their own targets."""
    from trine import models

    return scans(models.get("autoencoder").splits())
