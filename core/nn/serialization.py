"""Weights in files: safetensors, written atomically, read with every name checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trine import atomic
from trine.errors import CheckpointError
from trine.nn.state import host_array
from trine.tensor import Tensor


def save_file(
    tensors: Mapping[str, Tensor | npt.NDArray[Any]],
    filename: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors, e.g. a `state_dict()`, to a safetensors file.

    The file appears at once and complete: it is written under another name, flushed to disk, then
    renamed. Raises OSError where the folder cannot be written to.
    """
    from safetensors.numpy import save  # noqa: PLC0415  only where files are written

    # The writer takes the bytes as they lie: anything but C order would be scrambled.
    arrays = {
        name: np.ascontiguousarray(host_array(value)).reshape(value.shape)
        for name, value in tensors.items()
    }
    content = save(arrays, metadata=dict(metadata) if metadata else None)
    atomic.write_chunks(Path(filename), [content])


def load_file(filename: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """Read a safetensors file, from Trine or PyTorch, as NumPy arrays by name.

    Raises FileNotFoundError if there is none, CheckpointError if it is damaged.
    """
    from safetensors import SafetensorError  # noqa: PLC0415  only where files are read
    from safetensors.numpy import load  # noqa: PLC0415

    content = Path(filename).read_bytes()
    try:
        return load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"[load_file] expected a safetensors file with types that NumPy has, but {filename} is "
            f"none: {error}. Copy or save it again."
        ) from error
