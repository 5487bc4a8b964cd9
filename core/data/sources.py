"""MNIST and Fashion-MNIST: where their files are looked for, and how they are fetched."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trine.data.dataset import ArrayDataset, Splits
from trine.data.idx import read_idx
from trine.errors import DataError

PARTS = {
    "train-images": "train-images-idx3-ubyte.gz",
    "train-labels": "train-labels-idx1-ubyte.gz",
    "test-images": "t10k-images-idx3-ubyte.gz",
    "test-labels": "t10k-labels-idx1-ubyte.gz",
}


@dataclass(frozen=True)
class Source:
    """Four IDX files of 28x28 images and labels, and where they come from."""

    name: str
    description: str
    licence: str
    urls: tuple[str, ...]
    md5: dict[str, str]
    system_folders: tuple[str, ...] = ()


MNIST = Source(
    name="mnist",
    description="70,000 handwritten digits, 28x28",
    licence="CC BY-SA 3.0 (Y. LeCun, C. Cortes, C. Burges)",
    urls=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    md5={
        "train-images": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels": "d53e105ee54ea40749a09fcbcd1e9432",
        "test-images": "9fb629c4189551a2d022fa330f9573f3",
        "test-labels": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)

FASHION_MNIST = Source(
    name="fashion-mnist",
    description="70,000 pictures of clothes in ten classes, 28x28",
    licence="MIT (Zalando SE)",
    urls=("https://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    md5={
        "train-images": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels": "25c81989df183df01b3e8a0aad5dffbe",
        "test-images": "bef4ecab320f06d8554ea6380940ec79",
        "test-labels": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    system_folders=("/usr/share/datasets/fashion-mnist",),
)

SOURCES = {source.name: source for source in (MNIST, FASHION_MNIST)}


def _plain(name: str) -> str:
    return name.removesuffix(".gz")


def search_folders(source: Source, data_dir: str | Path | None) -> list[Path]:
    """Return the folders that are searched for a source's files, in order."""
    roots = [Path(data_dir)] if data_dir is not None else []
    if os.environ.get("TRINE_DATA"):
        roots.append(Path(os.environ["TRINE_DATA"]))
    folders = [folder for root in roots for folder in (root, root / source.name)]
    return [*folders, *map(Path, source.system_folders), cache_folder() / source.name]


def cache_folder() -> Path:
    """Return where downloaded files are kept."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "trine" / "data"


def find_files(source: Source, data_dir: str | Path | None) -> dict[str, Path] | None:
    """Return the four files of a source, gzipped or plain, from the first folder that has all."""
    for folder in search_folders(source, data_dir):
        found = {}
        for part, name in PARTS.items():
            for candidate in (folder / name, folder / _plain(name)):
                if candidate.is_file():
                    found[part] = candidate
                    break
        if len(found) == len(PARTS):
            return found
    return None


def load_source(source: Source, data_dir: str | Path | None, download: bool) -> Splits:
    """Return a source's samples, float32 (N, 1, 28, 28) in [0, 1].

    Raises DataError, saying which files go where, if they are not found and cannot be fetched.
    """
    files = find_files(source, data_dir)
    if files is None:
        files = _download(source, data_dir) if download else _missing(source, data_dir, None)
    splits = {}
    for part in ("train", "test"):
        images, labels = read_idx(files[f"{part}-images"]), read_idx(files[f"{part}-labels"])
        if images.shape[1:] != (28, 28) or images.dtype != np.uint8 or labels.ndim != 1:
            raise DataError(
                f"[{source.name}] expected images (N, 28, 28) of bytes and labels (N,), got "
                f"{images.dtype} {images.shape} and {labels.shape} in {files[f'{part}-images'].parent}. "
                "Are the files mixed up?"
            )
        x = (images.astype(np.float32) / np.float32(255))[:, None]
        splits[part] = ArrayDataset(x, labels, 10, f"{source.name}/{part}")
    return Splits(
        source.name, splits["train"], splits["test"], 10, source.description, source.licence
    )


def _download(source: Source, data_dir: str | Path | None) -> dict[str, Path]:
    import pooch  # noqa: PLC0415  only for downloads

    folder = cache_folder() / source.name
    failures: list[str] = []
    found: dict[str, Path] = {}
    for part, name in PARTS.items():
        for url in source.urls:
            try:
                fetched = pooch.retrieve(
                    url + name, known_hash=f"md5:{source.md5[part]}", fname=name, path=folder
                )
            except Exception as error:  # pooch and requests raise many kinds without a network
                failures.append(f"{url}{name}: {type(error).__name__}")
                continue
            found[part] = Path(fetched)
            break
        else:
            _missing(source, data_dir, failures)
    return found


def _missing(
    source: Source, data_dir: str | Path | None, failures: list[str] | None
) -> dict[str, Path]:
    folders = ", ".join(str(f) for f in search_folders(source, data_dir))
    tried = f" Downloading failed ({failures[-1]})." if failures else ""
    package = (
        " On Debian: apt-get install dataset-fashion-mnist."
        if source.name == "fashion-mnist"
        else ""
    )
    where = data_dir if data_dir is not None else cache_folder() / source.name
    raise DataError(
        f"[{source.name}] expected the files {', '.join(PARTS.values())} in one of {folders}, found them "
        f"nowhere.{tried}{package} Put them (gzipped or not) into {where}, or name their folder with "
        "--data-dir."
    )
