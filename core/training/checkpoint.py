"""Checkpoints: one safetensors file with a checksum, the previous one kept, written atomically.

    arrays    model.NAME (weights and buffers), optimizer.NAME (its states), best.NAME (best weights)
    metadata  "trine": JSON of everything else; "sha256": of all arrays and that JSON

Nothing is pickled. A kill at any moment leaves a complete checkpoint: the new file is written under
another name and flushed, `last` becomes `previous`, then the new one becomes `last`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trine import atomic
from trine.errors import CheckpointError

FORMAT = 1
LAST, PREVIOUS, BEST, SNAPSHOT = (
    "last.safetensors",
    "previous.safetensors",
    "best.safetensors",
    "snapshot.safetensors",
)

Arrays = dict[str, npt.NDArray[Any]]
log = logging.getLogger("trine")


def checksum(arrays: Arrays, meta: str) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of all arrays, and of the metadata."""
    digest = hashlib.sha256(meta.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save(path: Path, arrays: Arrays, meta: dict[str, Any], keep_as: Path | None = None) -> None:
    """Write a checkpoint; what stood at `path` is kept as `keep_as`.

    Raises OSError, naming the folder, where it cannot be written; the old file is untouched then.
    """
    from safetensors.numpy import save as to_bytes  # noqa: PLC0415  only where files are written

    text = json.dumps({"format": FORMAT, **meta}, sort_keys=True)
    plain = {k: np.ascontiguousarray(a).reshape(a.shape) for k, a in arrays.items()}
    content = to_bytes(plain, metadata={"trine": text, "sha256": checksum(plain, text)})
    atomic.make_folder(path.parent)
    atomic.write_chunks(path, _sorted_header(content), keep_as)


def _sorted_header(content: bytes) -> list[bytes]:
    """Return a safetensors file with its header's entries in one order.

    The library writes metadata in an order that changes from process to process, but equal runs
    shall leave equal files.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    ordered = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    ordered += b" " * (-len(ordered) % 8)  # the arrays that follow stay aligned
    return [len(ordered).to_bytes(8, "little"), ordered, content[8 + length :]]


def load(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Return arrays and metadata of a checkpoint.

    Raises CheckpointError if it is missing, damaged, from a later version, or no checkpoint.
    """
    from safetensors import SafetensorError  # noqa: PLC0415  only where files are read
    from safetensors.numpy import load as from_bytes  # noqa: PLC0415

    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"[checkpoint] expected a checkpoint, cannot read {path}: {error.strerror}. Check the path."
        ) from error
    try:
        arrays: Arrays = from_bytes(content)
        header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
        metadata = header.get("__metadata__", {})
        text, expected = metadata["trine"], metadata["sha256"]
        meta = json.loads(text)
    except (SafetensorError, KeyError, ValueError, struct.error) as error:
        raise CheckpointError(
            f"[checkpoint] expected a Trine checkpoint, but {path} is damaged or something else "
            f"({type(error).__name__}). Use another one."
        ) from error
    if checksum(arrays, text) != expected:
        raise CheckpointError(
            f"[checkpoint] expected the checksum that was saved, got another: {path} is damaged. Use "
            "another one."
        )
    if meta.get("format") != FORMAT:
        raise CheckpointError(
            f"[checkpoint] expected format {FORMAT}, got {meta.get('format')} in {path}. Upgrade Trine."
        )
    return arrays, meta


def load_latest(folder: Path) -> tuple[Arrays, dict[str, Any]] | None:
    """Return the last checkpoint of a run, the one before it if that is damaged, None without any.

    Raises CheckpointError, naming both, if neither can be read.
    """
    failures = []
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            found = load(path)
        except CheckpointError as error:
            failures.append(str(error))
            continue
        if failures:
            log.warning("%s Going on from %s, step %s.", failures[0], path, found[1].get("step"))
        return found
    if failures:
        raise CheckpointError(
            f"[checkpoint] expected a readable checkpoint in {folder}, but: {' '.join(failures)} Start "
            "anew in another folder."
        )
    return None


def part(arrays: Arrays, prefix: str) -> Arrays:
    """Return the arrays under a prefix, without it."""
    return {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}
