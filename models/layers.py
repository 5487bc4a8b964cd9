"""A model explained op by op: what it computes, how large signals and errors are, what it learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn
from trine.models.anatomy import Part, record
from trine.models.desk import values
from trine.models.explanation import Explanation
from trine.models.formulas import formula

if TYPE_CHECKING:
    from trine.models.registry import System

SHOWN = 64
"""Matrices of up to so many elements are printed."""


def _numbers(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "scalar"


def explain_model(
    model: nn.Module,
    x: trine.Tensor,
    y: trine.Tensor | npt.NDArray[Any] | None = None,
    *,
    loss: Callable[..., trine.Tensor] | None = None,
    name: str = "model",
    rate: float | None = None,
) -> Explanation:
    """Run a model on x, and back from loss(output, y), and report on every op.

    |z| is the Euclidean norm of what an op gives out, |dC/dz| that of its error. The whole arrays
    are in the result's `anatomies`, whose pages and tables show one sample. Without y the errors
    are left out. Gradients that the parameters had are replaced. The loss is cross-entropy unless
    another is given; `rate` is the eta of the step of gradient descent that is shown.
    """
    backend = next(iter(model.parameters())).backend.name
    x = x.to(backend)
    target = None
    if y is not None:
        target = (y if isinstance(y, trine.Tensor) else trine.tensor(np.asarray(y))).to(backend)
    note = Explanation(name, f"Op by op: {name}", "this run", backend, x.dtype.name)
    anatomy = record(model, x, target, loss=loss or F.cross_entropy, rate=rate)
    note.anatomies = [(0, anatomy)]
    if anatomy.cost is not None:
        note.show("C", "cost", anatomy.cost)
    for part in anatomy.parts:
        _part(note, part)
    for path, parameter in anatomy.weights.items():
        note.show(f"|{path}|", f"{_numbers(parameter.shape)} numbers", np.linalg.norm(parameter))
        if path in anatomy.grads:
            size = np.linalg.norm(anatomy.grads[path])
            note.show(f"|dC/d{path}|", "over this input", size)
    if anatomy.output.size <= SHOWN:
        note.matrices["output"] = anatomy.output
    if target is not None and np.asarray(values(target)).size <= SHOWN:
        note.matrices["target"] = values(target)
    if y is None:
        note.notes.append("Backward was not run: there is no target.")
    return note


def _part(note: Explanation, part: Part) -> None:
    shapes = f"{_numbers(part.inputs[0].value.shape)} -> {_numbers(part.output.shape)}"
    where = f"{part.path}: " if part.path else ""
    size = np.linalg.norm(part.output)
    note.show(f"|{part.symbol}|", f"{where}{part.op} {shapes}: {formula(part)}", size)
    if part.delta is not None and part.symbol != "C":
        note.show(f"|dC/d{part.symbol}|", "the error here", np.linalg.norm(part.delta))


def explain(what: str | nn.Module, *args: Any, **options: Any) -> Explanation:
    """Explain a system by its name, or a model on an input: `explain(model, x, y)`.

    A worked example comes with its source's numbers; any other system that learns by gradients is
    shown op by op, untrained, on its first samples.

    Raises ValueError for an unknown name or a system that does neither.
    """
    from trine.models.registry import get  # noqa: PLC0415 (the registry knows no layers)

    if isinstance(what, nn.Module):
        return explain_model(what, *args, **options)
    system = get(what)
    if system.explain is not None:
        return system.explain(*args, **options)
    return _untrained(system, *args, **options)


def _untrained(system: System, backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Explain a system that is only trained, before its training."""
    from trine.models.lesson import lesson_of  # noqa: PLC0415 (data sets and optimisers)

    title = system.summary[:1].upper() + system.summary[1:]
    note = Explanation(system.name, title, system.source, backend, dtype)
    note.anatomies = lesson_of(system, backend, dtype, 0)
    if not note.anatomies:
        raise ValueError(
            f"[explain] expected a system that learns by gradients, got {system.name!r}, which learns "
            f"by a rule of its own. Run: trine train {system.name}"
        )
    note.notes.append(
        f"The net on the first samples of its data, untrained at step 0. A trained one: trine train "
        f"{system.name}, then trine explain runs/{system.name}."
    )
    return note
