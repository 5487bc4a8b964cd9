"""Text as numbers: one id a character, split into training and test text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trine.errors import DataError

MAX_VOCABULARY = 4096


@dataclass(frozen=True)
class TextCorpus:
    """A text's characters as ids in the order of their code points.

    The last tenth of the text is for testing. `train` and `test` are int64 (length,).
    """

    name: str
    vocabulary: str
    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Return the ids of a text's characters.

        Raises DataError for a character that the corpus does not have.
        """
        index = {character: i for i, character in enumerate(self.vocabulary)}
        try:
            return np.array([index[character] for character in text], dtype=np.int64)
        except KeyError as error:
            raise DataError(
                f"[text] expected characters of {self.name}, got {error.args[0]!r}. Leave it out."
            ) from None

    def decode(self, ids: npt.NDArray[np.int64]) -> str:
        """Return the characters of ids."""
        return "".join(self.vocabulary[int(i)] for i in ids)

    def windows(self, length: int, part: str = "train") -> tuple[npt.NDArray[np.int64], ...]:
        """Return (inputs, targets), int64 (N, length): targets are the inputs, one ahead.

        Raises DataError if the part is shorter than one window.
        """
        ids = self.train if part == "train" else self.test
        count = (len(ids) - 1) // length
        if length < 1 or count < 1:
            raise DataError(
                f"[text] expected windows from 1 to {len(ids) - 1} characters, got {length}. Choose fewer."
            )
        return (
            ids[: count * length].reshape(count, length),
            ids[1 : count * length + 1].reshape(count, length),
        )


def load_text(path: str | Path) -> TextCorpus:
    """Return the corpus of a UTF-8 text file.

    Raises DataError for a file that is missing, no UTF-8, or too short.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"[text] expected a text file, found no {file}. Check the path.") from None
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(
            f"[text] expected UTF-8 text in {file}, but: {error}. Convert it to UTF-8."
        ) from error
    vocabulary = "".join(sorted(set(text)))
    if len(text) < 20 or len(vocabulary) > MAX_VOCABULARY:
        raise DataError(
            f"[text] expected at least 20 characters and at most {MAX_VOCABULARY} different ones in "
            f"{file}, got {len(text)} and {len(vocabulary)}. Is it text?"
        )
    index = {character: i for i, character in enumerate(vocabulary)}
    ids = np.array([index[character] for character in text], dtype=np.int64)
    cut = len(ids) - len(ids) // 10
    return TextCorpus(file.name, vocabulary, ids[:cut], ids[cut:])
