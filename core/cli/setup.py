"""What every command that computes does first: files of kernels, preferences, threads, backend."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import trine
from trine import backends
from trine.backends import Backend
from trine.cli.output import notes
from trine.errors import suggest
from trine.kernels import load_file, prefer

owns_process = False
"""Whether the command is the process, as in a shell, and may replace it; not in a test."""


def load_kernel_files(files: Iterable[Path]) -> None:
    """Load users' files of kernels and ops, and say what each brought."""
    for file in files:
        found = load_file(file)
        listed = ", ".join(f"{k.op} on {k.backend} ({k.name})" for k in found)
        notes.print(f"{file}: {listed or 'no kernel'}", highlight=False)


def prefer_kernels(choices: Iterable[str]) -> None:
    """Apply `--kernel OP=NAME` options; raises ValueError for another form or an unknown name."""
    for choice in choices:
        op, equals, name = choice.partition("=")
        if not equals or not op or not name:
            raise ValueError(
                f"[--kernel] expected OP=NAME, got {choice!r}. For example --kernel conv2d=reference."
            )
        from trine.backends.op import OPS

        if op not in OPS:
            raise suggest("--kernel", "op", op, OPS)
        prefer(op, name)


def set_threads(threads: int | None) -> None:
    """Use so many CPU threads for Numba and BLAS alike."""
    if threads is not None:
        from trine.backends import threads as knob

        knob.set_threads(threads)


def set_precision(backend: Backend, precision: str, dtype: str) -> None:
    """Apply --precision; raises BackendError where the backend lacks it, ValueError with float64."""
    if precision != "fp32" and dtype != "float32":
        raise ValueError(
            f"[precision] expected fp32 with {dtype}, got {precision}, which rounds products of float32. "
            "Leave out --precision or --dtype."
        )
    backend.set_precision(precision)


def choose_backend(name: str, device: int, parameters: int | None = None) -> tuple[Backend, str]:
    """Make the backend the default one; return it and why it was taken.

    Raises BackendError if an explicitly named one cannot run.
    """
    backends.select_device(device)
    if name == "auto":
        name, reason = backends.auto(parameters)
    else:
        reason = f"{name}, as asked"
    backend = backends.get_backend(name)
    backends.use(name)
    return backend, reason


def as_model_input(array: Any, dtype: str) -> trine.Tensor:
    """Return samples or targets as a tensor: real numbers in a model's dtype, integers as they are."""
    array = np.asarray(array)
    return trine.tensor(array, dtype=dtype if array.dtype.kind == "f" else None)
