"""Text as numbers: by characters or by words, with an unknown symbol, in windows for a network.

Characters are those of `CHARACTERS`: line feed, the 95 printable ones of ASCII, and one symbol for
everything else, so that every text has the same 97 classes. Quotes and dashes of typesetters count
as their plain forms. Words are cut by `words` and numbered by their frequency in the training text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trine.data.dataset import ArrayDataset, Splits
from trine.errors import DataError

Ids = npt.NDArray[np.int64]
UNKNOWN = "\ufffd"
"""The symbol that stands for all that a vocabulary does not have."""
WINDOW = 64
"""Characters in each sample of a text loaded by name."""
MOST_UNKNOWN = 0.2
LEAST_CHARACTERS = 20

PLAIN = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "--",
     "\u2026": "...", "\u00a0": " ", "\t": " "}
)  # fmt: skip
TOKEN = re.compile(r"(?:mr|mrs|dr|st)\.|[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[.,;:!?]|--|\n")


@dataclass(frozen=True)
class Text:
    """A text in three parts: to learn from, to choose by, to measure on."""

    name: str
    train: str
    validation: str
    test: str
    description: str = ""
    licence: str = ""


class Vocabulary:
    """Symbols, characters or words, and their numbers 0, 1, ...; one of them is `UNKNOWN`.

    Raises ValueError if a symbol comes twice or UNKNOWN is missing.
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = tuple(symbols)
        self.index = {symbol: i for i, symbol in enumerate(self.symbols)}
        if len(self.index) != len(self.symbols) or UNKNOWN not in self.index:
            raise ValueError(
                "[Vocabulary] expected different symbols, UNKNOWN among them, got "
                f"{len(self.symbols)} of which {len(self.index)} differ. Leave out repeated ones."
            )

    @classmethod
    def most_frequent(cls, symbols: Iterable[str], size: int) -> Vocabulary:
        """Return UNKNOWN as number 0 and the most frequent symbols, at most `size` in all.

        Equally frequent ones come in the order of their code points.
        """
        counts = Counter(symbols)
        counts.pop(UNKNOWN, None)
        order = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
        return cls([UNKNOWN, *order[: size - 1]])

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, symbols: Iterable[str]) -> Ids:
        """Return the numbers of symbols, int64 (n,)."""
        unknown, index = self.index[UNKNOWN], self.index
        return np.array([index.get(symbol, unknown) for symbol in symbols], dtype=np.int64)

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Return the symbols of numbers."""
        return [self.symbols[int(i)] for i in ids]


CHARACTERS = Vocabulary(["\n", *map(chr, range(32, 127)), UNKNOWN])


def words(text: str) -> list[str]:
    """Return the words of a text in small letters; marks, numbers and line feeds are words too.

    An apostrophe between letters belongs to the word, the point of "Mr." to the title; quotation
    marks and brackets are left out, one number counts as another ("0").
    """
    found = TOKEN.findall(text.translate(PLAIN).lower())
    return ["0" if token.isdigit() else token for token in found]


def windows(ids: Ids, length: int) -> tuple[Ids, Ids]:
    """Return (inputs, targets), (N, length): side by side, targets the inputs one ahead.

    Raises DataError if the text is shorter than one window.
    """
    count = (len(ids) - 1) // length if length > 0 else 0
    if count < 1:
        raise DataError(
            f"[text] expected windows from 1 to {len(ids) - 1} symbols, got {length}. Choose fewer."
        )
    end = count * length
    return ids[:end].reshape(count, length), ids[1 : end + 1].reshape(count, length)


def contexts(ids: Ids, length: int) -> tuple[Ids, Ids]:
    """Return every `length` symbols in a row, (N, length), and the symbol after them, (N,).

    Raises DataError if there is no symbol after a first context.
    """
    if not 0 < length < len(ids):
        raise DataError(
            f"[text] expected contexts from 1 to {len(ids) - 1} symbols, got {length}. Choose fewer."
        )
    rows = np.lib.stride_tricks.sliding_window_view(ids, length + 1)
    return rows[:, :-1].copy(), rows[:, -1].copy()


def character_splits(text: Text, length: int = WINDOW) -> Splits:
    """Return windows of a text's characters and the characters one ahead; `Splits.text` has it all.

    Raises DataError for a part that is shorter than one window.
    """
    parts = []
    for name in ("train", "test"):
        x, y = windows(CHARACTERS.encode(getattr(text, name).translate(PLAIN)), length)
        parts.append(ArrayDataset(x, y, name=f"{text.name}/{name}"))
    return Splits(
        text.name, parts[0], parts[1], len(CHARACTERS), text.description, text.licence, text
    )


def load_text(path: str | Path) -> Text:
    """Return a UTF-8 text file: its first eight tenths, the ninth and the last one.

    Raises DataError for a file that is missing, no UTF-8, too short, or mostly of characters that
    `CHARACTERS` does not have.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8").translate(PLAIN)
    except FileNotFoundError:
        raise DataError(f"[text] expected a text file, found no {file}. Check the path.") from None
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(
            f"[text] expected UTF-8 text in {file}, but: {error}. Convert it to UTF-8."
        ) from error
    unknown = sum(character not in CHARACTERS.index for character in text)
    if len(text) < LEAST_CHARACTERS or unknown > MOST_UNKNOWN * len(text):
        raise DataError(
            f"[text] expected at least {LEAST_CHARACTERS} characters, four of five in ASCII, in {file}, "
            f"got {len(text)}, {unknown} of them others. Is it text in Latin letters?"
        )
    tenth = len(text) // 10
    first, second = len(text) - 2 * tenth, len(text) - tenth
    return Text(
        file.name, text[:first], text[first:second], text[second:], f"the file {file}", "yours"
    )
