"""The shipped text: "Pride and Prejudice" and "Emma" by Jane Austen, in the public domain.

1,559,463 characters in 116 chapters, one paragraph a line; see files/austen.txt for its source and
how it was cut. The fixed split goes by chapters, numbered from 1: those whose number ends in 0 are
for testing, those that end in 5 for validation, all others for training.
"""

from __future__ import annotations

import bz2
import functools
from importlib import resources

from trine.data.text import Text
from trine.errors import DataError

CHAPTERS = 116
CHARACTER_COUNT = 1_559_463
LICENCE = "public domain (J. Austen, 1775-1817)"
DESCRIPTION = "Pride and Prejudice and Emma, 1.56 million characters"


@functools.lru_cache(maxsize=1)
def load_austen() -> Text:
    """Return the two novels, each part's chapters in their order, an empty line between them.

    Raises DataError if the shipped file is damaged.
    """
    file = resources.files("trine.data") / "files" / "austen.bz2"
    try:
        text = bz2.decompress(file.read_bytes()).decode("ascii")
    except (OSError, ValueError) as error:
        raise DataError(
            f"[austen] expected the shipped file {file} to be readable, but: {error}. Install trine "
            "again."
        ) from error
    chapters = text.rstrip("\n").split("\n\n")
    if len(chapters) != CHAPTERS or len(text) != CHARACTER_COUNT:
        raise DataError(f"[austen] expected {CHAPTERS} chapters in {file}. Install trine again.")
    parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for number, chapter in enumerate(chapters, start=1):
        part = {0: "test", 5: "validation"}.get(number % 10, "train")
        parts[part].append(chapter + "\n")
    joined = {name: "\n".join(found) for name, found in parts.items()}
    return Text("austen", **joined, description=DESCRIPTION, licence=LICENCE)
