"""Data sets by name, folder or text file, and the loader that cuts them into batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trine.data.austen import CHARACTER_COUNT, LICENCE, load_austen
from trine.data.dataset import ArrayDataset, Splits
from trine.data.digits import load_digits
from trine.data.folder import load_folder
from trine.data.idx import read_idx
from trine.data.loader import DataLoader
from trine.data.sources import SOURCES, find_files, load_source
from trine.data.text import CHARACTERS, Text, Vocabulary, character_splits, load_text
from trine.errors import suggest

__all__ = [
    "ArrayDataset",
    "DataLoader",
    "Splits",
    "Text",
    "Vocabulary",
    "character_splits",
    "describe",
    "load",
    "load_austen",
    "load_text",
    "names",
    "read_idx",
]


def names() -> list[str]:
    """Return the names that `load` knows, besides folders and text files."""
    return ["digits", "digits-file-order", "austen", *SOURCES]


def load(name: str, data_dir: str | Path | None = None, download: bool = True) -> Splits:
    """Return a data set: a name of `names()`, a folder with IDX or NPZ files, or a text file.

    `data_dir` is searched first for the files of a named set, then $TRINE_DATA, the system's
    packages, and the cache; else they are downloaded once and checked by checksum.

    Raises ValueError for an unknown name, DataError for files that are missing or corrupt.
    """
    if name == "digits":
        return load_digits()
    if name == "digits-file-order":
        return load_digits("file")
    if name == "austen":
        return character_splits(load_austen())
    if name in SOURCES:
        return load_source(SOURCES[name], data_dir, download)
    folder = Path(name)
    if folder.is_dir():
        return load_folder(folder)
    if folder.is_file():
        return character_splits(load_text(folder))
    raise suggest("data", "data set (or folder, or text file)", name, names())


def describe(data_dir: str | Path | None = None) -> list[dict[str, Any]]:
    """Return one row a data set: size, licence, and whether its files are here."""
    rows = [
        {
            "name": name,
            "samples": 1797,
            "shape": "1x28x28",
            "classes": 10,
            "here": "shipped",
            "licence": "CC BY 4.0",
        }
        for name in ("digits", "digits-file-order")
    ]
    rows.append(
        {
            "name": "austen",
            "samples": CHARACTER_COUNT,
            "shape": "characters",
            "classes": len(CHARACTERS),
            "here": "shipped",
            "licence": LICENCE,
        }
    )
    for source in SOURCES.values():
        files = find_files(source, data_dir)
        rows.append(
            {
                "name": source.name,
                "samples": 70000,
                "shape": "1x28x28",
                "classes": 10,
                "here": str(next(iter(files.values())).parent) if files else "to be downloaded",
                "licence": source.licence,
            }
        )
    return rows
