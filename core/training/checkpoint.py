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
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.errors import CheckpointError
from trine.nn.serialization import sync_folder

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
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{arrays[name].shape}|".encode())
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
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep_as is not None and path.exists():
            os.replace(path, keep_as)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise OSError(
            f"[checkpoint] expected to write {len(content) / 2**20:.1f} MiB to {path}, but: "
            f"{error.strerror or error}. The checkpoint before it is intact; make room or choose "
            "another folder with --out."
        ) from error


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
            log.warning("%s", error)
            failures.append(str(error))
            continue
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
