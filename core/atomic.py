"""Files that are either the old one or the new one, whatever happens in between.

The content goes to a temporary name in the same folder and from there to the disk (fsync); then the
name changes in one step (rename), and the folder itself goes to the disk. A process killed at any
moment, or a full disk, leaves the earlier file as it was.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def failed(error: OSError, path: Path) -> OSError:
    """Return an error of the same kind that says what could not be written and what to do."""
    if error.errno in FULL:
        what, remedy = "the disk is full", "Free some space, or choose another folder"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        what, remedy = "it may not be written to", "Choose a folder of your own, e.g. with --out"
    else:
        what, remedy = error.strerror or str(error), "Check the folder"
    new = type(error)(
        f"[write] expected to write {path}, but {what}. {remedy}; an earlier file of that name is "
        "untouched."
    )
    new.errno = error.errno
    return new


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; raises OSError saying what to do if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise failed(error, folder) from error


def write_chunks(path: Path, chunks: Iterable[bytes], keep_as: Path | None = None) -> None:
    """Replace a file atomically by the given bytes; raises OSError with the remedy.

    The file that was there is kept as `keep_as`, if that is given: it is renamed only when the new
    content is complete on the disk. The temporary name is always the same, so that what a killed
    process left is overwritten.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if keep_as is not None and path.exists():
            os.replace(path, keep_as)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise failed(error, path) from error


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically, as UTF-8; raises OSError with the remedy."""
    write_chunks(path, [text.encode()])


def append(path: Path, text: str) -> None:
    """Append text to a file and bring it to the disk; raises OSError with the remedy."""
    try:
        with open(path, "ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise failed(error, path) from error


def truncate(path: Path, length: int) -> None:
    """Cut a file to its first `length` bytes; raises OSError with the remedy."""
    try:
        with open(path, "r+b") as file:
            file.truncate(length)
            os.fsync(file.fileno())
    except OSError as error:
        raise failed(error, path) from error


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder last through a power failure, where the system allows it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
