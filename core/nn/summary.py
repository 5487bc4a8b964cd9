"""A table of a model's layers, output shapes and parameters, found by a dry run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from trine.autograd import no_grad
from trine.creation import zeros
from trine.nn.module import Module
from trine.tensor import Tensor


@dataclass(frozen=True)
class Row:
    """One module of the table."""

    path: str
    kind: str
    depth: int
    output: str
    parameters: int


def _shapes(output: Any) -> str:
    if isinstance(output, Tensor):
        return str(output.shape)
    if isinstance(output, (tuple, list)):
        return ", ".join(_shapes(part) for part in output)
    return type(output).__name__


def rows(
    model: Module, input_shape: Sequence[int], dtype: npt.DTypeLike | None = None
) -> list[Row]:
    """Return one row for each module, with its output's shape ("-" where it was not called).

    Parameters are those of the module itself, not of its children; tied ones count once.
    """
    named = list(model.named_modules())
    outputs: dict[int, str] = {}

    def note(module: Module, args: tuple[Any, ...], output: Any) -> None:
        outputs[id(module)] = _shapes(output)

    like = next(model.parameters(), None)
    modes = [(module, module.training) for _, module in named]
    handles = [module.register_forward_hook(note) for _, module in named]
    try:
        model.eval()
        kind = dtype if dtype is not None or like is None else like.dtype
        backend = None if like is None else like.backend
        with no_grad():
            model(zeros(tuple(input_shape), dtype=kind, backend=backend))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            object.__setattr__(module, "training", mode)
    seen: set[int] = set()
    found = []
    for path, module in named:
        count = 0
        for parameter in module.parameters(recurse=False):
            count += 0 if id(parameter) in seen else parameter.numel()
            seen.add(id(parameter))
        depth = path.count(".") + 1 if path else 0
        found.append(Row(path, type(module).__name__, depth, outputs.get(id(module), "-"), count))
    return found


def summary(model: Module, input_shape: Sequence[int], dtype: npt.DTypeLike | None = None) -> str:
    """Return the table of a model's layers as text.

    The model runs once in evaluation mode on zeros of `input_shape`, the batch axis included, in
    `dtype` (default: that of its parameters; "int64" for models that start with an embedding).
    """
    table = rows(model, input_shape, dtype)
    header = ("layer", "output shape", "parameters")
    lines = [
        (
            "  " * row.depth + (f"{row.path.rsplit('.', 1)[-1]}: " if row.path else "") + row.kind,
            row.output,
            f"{row.parameters:,}" if row.parameters else "",
        )
        for row in table
    ]
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(3)]
    rule = "-" * (sum(widths) + 4)

    def text(line: tuple[str, str, str]) -> str:
        left, middle, right = line
        return f"{left:<{widths[0]}}  {middle:<{widths[1]}}  {right:>{widths[2]}}".rstrip()

    parameters = list(model.parameters())
    total = sum(p.numel() for p in parameters)
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    size = sum(p.numel() * p.dtype.itemsize for p in parameters)
    return "\n".join(
        [
            text(header),
            rule,
            *(text(line) for line in lines),
            rule,
            f"input {tuple(input_shape)}; {total:,} parameters, {trainable:,} trainable, "
            f"{size / 2**20:.2f} MiB",
        ]
    )
