"""A model explained layer by layer: shapes, sizes of signals and errors, gradients of parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn
from trine.models.desk import values
from trine.models.explanation import Explanation

FORMULAS = {
    "Linear": "z = W a + b",
    "Conv2d": "z_k = sum_c a_c * w_kc + b_k",
    "ConvTranspose2d": "z = a spread by w, plus b",
    "MaxPool2d": "maximum of each window",
    "AvgPool2d": "mean of each window",
    "AdaptiveAvgPool2d": "mean of each window",
    "Flatten": "one row an example",
    "ReLU": "a = max(0, z)",
    "Sigmoid": "a = 1 / (1 + exp(-z))",
    "Tanh": "a = tanh z",
    "Softmax": "a_i = exp(z_i) / sum_j exp(z_j)",
    "Dropout": "a random part set to 0",
    "BatchNorm2d": "(z - mean) / sqrt(var + eps) * weight + bias",
    "LayerNorm": "(z - mean) / sqrt(var + eps) * weight + bias",
    "Embedding": "row of the table",
    "LSTM": "c = f c + i g;  h = o tanh c",
}
SHOWN = 64
"""Matrices of up to so many elements are printed."""


def _numbers(tensor: trine.Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"


def explain_model(
    model: nn.Module,
    x: trine.Tensor,
    y: trine.Tensor | npt.NDArray[Any] | None = None,
    *,
    loss: Callable[..., trine.Tensor] | None = None,
    name: str = "model",
) -> Explanation:
    """Run a model on x, and back from loss(output, y), and report on every layer.

    |a| is the Euclidean norm of a layer's output, |delta| that of dC/da there. Without y the
    errors are left out. Gradients that the parameters had are replaced. The loss is cross-entropy
    unless another is given.
    """
    backend = next(iter(model.parameters())).backend.name
    x = x.to(backend)
    note = Explanation(name, f"Layer by layer: {name}", "this run", backend, x.dtype.name)
    layers = [(path or "model", m) for path, m in model.named_modules() if not list(m.children())]
    seen: list[tuple[str, nn.Module, str, trine.Tensor]] = []

    def record(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
            out = result[0] if isinstance(result, tuple) else result
            out.retain_grad()
            seen.append((path, module, _numbers(args[0]), out))

        return hook

    handles = [module.register_forward_hook(record(path)) for path, module in layers]
    was_training = model.training
    model.eval()
    try:
        output = model(x)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    if y is not None:
        target = y if isinstance(y, trine.Tensor) else trine.tensor(np.asarray(y))
        model.zero_grad()
        cost = (loss or F.cross_entropy)(output, target.to(backend))
        cost.backward()
        note.show("C", "cost", cost.item())
    for path, module, shape, out in seen:
        _layer(note, path, module, f"{shape} -> {_numbers(out)}", out)
    for path, parameter in model.named_parameters():
        note.show(f"|{path}|", f"{_numbers(parameter)} numbers", np.linalg.norm(values(parameter)))
        if y is not None and parameter.grad is not None:
            size = np.linalg.norm(values(parameter.grad))
            note.show(f"|dC/d{path}|", "over this input", size)
    if isinstance(output, trine.Tensor) and output.numel() <= SHOWN:
        note.matrices["output"] = values(output)
    if y is not None and np.asarray(values(target)).size <= SHOWN:
        note.matrices["target"] = values(target)
    if y is None:
        note.notes.append("Backward was not run: there is no target.")
    return note


def _layer(note: Explanation, path: str, module: nn.Module, shapes: str, out: trine.Tensor) -> None:
    kind = type(module).__name__
    formula = FORMULAS.get(kind, kind)
    note.show(f"|a| {path}", f"{kind} {shapes}: {formula}", np.linalg.norm(values(out)))
    if out.grad is not None:
        note.show(f"|delta| {path}", "dC/da here", np.linalg.norm(values(out.grad)))


def explain(what: str | nn.Module, *args: Any, **options: Any) -> Explanation:
    """Explain a worked example by its name, or a model on an input: `explain(model, x, y)`.

    Raises ValueError for an unknown name or a system without an explanation.
    """
    from trine.models.registry import get  # noqa: PLC0415 (the registry knows no layers)

    if isinstance(what, nn.Module):
        return explain_model(what, *args, **options)
    system = get(what)
    if system.explain is None:
        raise ValueError(
            f"[explain] expected a worked example, got {what!r}, which is only trained. Pass its"
            " model and an input: explain(model, x, y)."
        )
    return system.explain(*args, **options)
