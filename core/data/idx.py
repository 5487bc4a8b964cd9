"""IDX files, the format of MNIST: a magic number, sizes, then the elements, big-endian.

The magic number is two zero bytes, a type code and the number of axes. Files may be gzipped.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.errors import DataError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_BYTES = 1 << 34


def read_idx(path: str | Path) -> npt.NDArray[Any]:
    """Return the array of an IDX file, in the machine's byte order.

    Raises DataError for a file that is missing, corrupt, truncated, too long or no IDX file.
    """
    file = Path(path)
    content = _read(file)
    if content[:1] == b"<":
        raise DataError(
            f"[idx] expected an IDX file in {file}, found text that looks like a web page: a download "
            "went wrong. Delete it and fetch it again."
        )
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES or not content[3]:
        raise DataError(
            f"[idx] expected an IDX file in {file} (two zero bytes, a type, a number of axes), found "
            f"{content[:4].hex(' ') or 'an empty file'}. Is it another format?"
        )
    dtype, axes = np.dtype(TYPES[content[2]]), content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise DataError(
            f"[idx] expected {axes} sizes in {file}, but it ends in them. Fetch it again."
        )
    shape = struct.unpack(f">{axes}I", content[4:start])
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_BYTES or len(content) != start + size:
        kind = "truncated" if len(content) < start + size else "too long"
        raise DataError(
            f"[idx] expected {start + size} bytes in {file} for shape {shape}, found {len(content)}: it "
            f"is {kind}. Fetch it again."
        )
    array = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def _read(file: Path) -> bytes:
    try:
        raw = file.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except FileNotFoundError:
        raise DataError(f"[idx] expected an IDX file, found no {file}. Check the path.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"[idx] expected a readable file {file}, but: {error}. It may be truncated; fetch it again."
        ) from error
