"""A folder of one's own: IDX files named as MNIST's, or train.npz and test.npz."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.data.dataset import ArrayDataset, Splits
from trine.data.idx import read_idx
from trine.data.sources import PARTS
from trine.errors import DataError


def load_folder(folder: Path) -> Splits:
    """Return the data set of a folder.

    Either MNIST's four IDX files, or train.npz and test.npz, each with arrays `x` and `y`. Byte
    images (N, H, W) become float32 (N, 1, H, W) in [0, 1]; integer targets are class labels.
    Raises DataError, naming what is expected, for any other contents.
    """
    archives = {part: folder / f"{part}.npz" for part in ("train", "test")}
    if all(file.is_file() for file in archives.values()):
        arrays = {part: _read_npz(file) for part, file in archives.items()}
    else:
        arrays = {part: _read_idx_pair(folder, part) for part in ("train", "test")}
    labels = [y for _, y in arrays.values()]
    classes = None
    if all(y.dtype.kind in "iu" and y.ndim == 1 and y.size for y in labels):
        classes = int(max(y.max() for y in labels)) + 1
    name = folder.name
    train, test = (
        ArrayDataset(_as_samples(x), y, classes, f"{name}/{part}")
        for part, (x, y) in arrays.items()
    )
    if train.x.shape[1:] != test.x.shape[1:]:
        raise DataError(
            f"[{name}] expected samples of one shape, got {train.x.shape[1:]} for training and "
            f"{test.x.shape[1:]} for testing. Check the files."
        )
    return Splits(name, train, test, classes, f"the folder {folder}", "yours")


def _read_npz(file: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    try:
        # Opened here, since NumPy leaves the file open where it finds no archive in it.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            missing = {"x", "y"} - set(archive.files)
            if missing:
                raise DataError(
                    f"[folder] expected arrays x and y in {file}, found "
                    f"{', '.join(archive.files) or 'none'}. Save with numpy.savez(file, x=..., y=...)."
                )
            return archive["x"], archive["y"]
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"[folder] expected a NumPy archive of numbers in {file}, but: {error}. Save it again with "
            "numpy.savez."
        ) from error


def _read_idx_pair(folder: Path, part: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    found = []
    for kind in ("images", "labels"):
        name = PARTS[f"{part}-{kind}"]
        candidates = [folder / name, folder / name.removesuffix(".gz")]
        file = next((c for c in candidates if c.is_file()), None)
        if file is None:
            raise DataError(
                f"[folder] expected train.npz and test.npz, or {', '.join(PARTS.values())}, in {folder}; "
                f"{name} is missing. Name another folder, or add the file."
            )
        found.append(read_idx(file))
    return found[0], found[1]


def _as_samples(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if x.dtype == np.uint8:
        x = x.astype(np.float32) / np.float32(255)
    elif x.dtype == np.float64:
        x = x.astype(np.float32)
    return x[:, None] if x.ndim == 3 else x
