"""Where two backends part: a model run on both, layer by layer, and the first difference named.

Differences are measured against the size of the layer's output: rounding alone stays below the
tolerance, which grows with the square root of the depth. It is wider where a backend rounds the
factors of its products (`trine.precision`).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trine import nn
from trine.backends import get_backend
from trine.errors import BackendError
from trine.tensor import Tensor

TOLERANCE = {"float32": 2e-5, "float64": 1e-12}
"""Of one layer's largest output: rounding of sums of some thousand terms."""

ROUNDED = {"fp32": 0.0, "tf32": 2e-3, "bf16": 1.6e-2}
"""By precision, for float32: both factors of each product rounded, and twice that."""


SUMS = "sums of products, added in another order"
WINDOWS = "sums over windows, in another order or by transformed tiles"
MOMENTS = "mean and variance, summed in another order"
CURVE = "exp or tanh by another polynomial"
REASONS = {
    "Linear": SUMS, "Conv2d": WINDOWS, "ConvTranspose2d": WINDOWS, "AvgPool2d": "sums over windows",
    "AdaptiveAvgPool2d": "sums over windows", "BatchNorm1d": MOMENTS, "BatchNorm2d": MOMENTS,
    "LayerNorm": MOMENTS, "GroupNorm": MOMENTS, "LocalResponseNorm": "a power of a sum of squares",
    "Sigmoid": CURVE, "Tanh": CURVE, "Softmax": CURVE, "LogSoftmax": CURVE, "Softplus": CURVE,
    "ELU": CURVE, "SiLU": CURVE, "RNN": SUMS, "LSTM": SUMS, "GRU": SUMS,
    "RoIAlign": "bilinear sums",
}  # fmt: skip
"""By kind of layer. Others only select, compare or copy: they add nothing to what came in."""
PASSED_ON = "only what came in"
BACKWARD = "sums over the batch, in another order"


@dataclass(frozen=True)
class LayerDifference:
    """How far one array of two runs differs."""

    name: str
    error: float
    tolerance: float
    place: tuple[int, ...] = ()
    first: float = 0.0
    second: float = 0.0
    ulp: float = 0.0
    """The difference at that place in units of the last place of the larger value there."""
    why: str = ""
    """What may make two correct backends differ here."""

    @property
    def agrees(self) -> bool:
        return self.error <= self.tolerance


@dataclass
class Comparison:
    """All layers in order; true if they all agree."""

    backends: tuple[str, str]
    layers: list[LayerDifference] = field(default_factory=list)

    @property
    def first(self) -> LayerDifference | None:
        """The first layer, or gradient, at which the backends part."""
        return next((layer for layer in self.layers if not layer.agrees), None)

    def __bool__(self) -> bool:
        return self.first is None

    def __str__(self) -> str:
        a, b = self.backends
        rows = [
            f"  {layer.name:<32} {layer.error:9.2e} {layer.ulp:9.1f} ulp  "
            f"{'' if layer.agrees else f'above {layer.tolerance:.1e}: more than '}{layer.why}"
            for layer in self.layers
        ]
        head = (
            f"{a} against {b}: the largest difference relative to the layer's largest value, in units\n"
            "of the last place there, and why correct backends may differ"
        )
        parting = self.first
        if parting is None:
            tail = f"{a} and {b} agree in all {len(self.layers)} layers and gradients"
        else:
            tail = (
                f"{a} and {b} part at {parting.name}: element {parting.place} is {parting.first!r} and "
                f"{parting.second!r}, relative error {parting.error:.2e} above {parting.tolerance:.1e} "
                f"({parting.ulp:.0f} ulp)"
            )
        return "\n".join([head, *rows, tail])


def compare_backends(
    model: nn.Module,
    x: Tensor,
    target: Tensor | None = None,
    *,
    loss: Callable[..., Tensor] | None = None,
    backends: tuple[str, str] = ("numpy", "numba"),
) -> Comparison:
    """Run a model, and with a target its loss and gradients, on two backends and compare.

    Raises BackendError if the two runs call different layers.
    """
    runs = [_record(deepcopy(model), x, target, loss, backend) for backend in backends]
    if [name for name, _ in runs[0]] != [name for name, _ in runs[1]]:
        raise BackendError(
            "[compare] expected the same layers on both backends, got different ones. Does forward "
            "depend on the backend?"
        )
    result = Comparison(backends)
    rounded = max(ROUNDED[get_backend(name).precision] for name in backends)
    for depth, ((name, a), (_, b)) in enumerate(zip(*runs, strict=True)):
        allowed = TOLERANCE[a.dtype.name] if a.dtype.kind == "f" else 0.0
        if a.dtype == np.float32:
            allowed = max(allowed, rounded)
        allowed *= float(np.sqrt(depth + 1))
        result.layers.append(replace(_difference(name, a, b, allowed), why=_reason(name)))
    return result


def _reason(name: str) -> str:
    if name.startswith("gradient of") or name == "loss":
        return BACKWARD
    kind = name.rpartition("(")[2].rstrip(")")
    return REASONS.get(kind, PASSED_ON)


def _record(
    model: nn.Module,
    x: Tensor,
    target: Tensor | None,
    loss: Callable[..., Tensor] | None,
    backend: str,
) -> list[tuple[str, npt.NDArray[Any]]]:
    model.to(backend)
    model.eval()
    found: list[tuple[str, npt.NDArray[Any]]] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            outputs = output if isinstance(output, tuple) else (output,)
            for tensor in outputs:
                if isinstance(tensor, Tensor):
                    label = f"{name} ({type(module).__name__})"
                    found.append((label, np.array(tensor.detach().numpy())))

        return hook

    handles = [
        module.register_forward_hook(watch(name or "model"))
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    try:
        out = model(x.detach().to(backend))
        if target is not None and loss is not None:
            value = loss(out, target.detach().to(backend))
            found.append(("loss", np.array(value.detach().numpy())))
            value.backward()
    finally:
        for handle in handles:
            handle.remove()
    # Gradients come into being from the last layer to the first.
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None:
            found.append((f"gradient of {name}", np.array(parameter.grad.numpy())))
    return found


def _difference(
    name: str, a: npt.NDArray[Any], b: npt.NDArray[Any], allowed: float
) -> LayerDifference:
    if a.shape != b.shape or a.dtype != b.dtype:
        return LayerDifference(
            f"{name}, {a.dtype} {a.shape} and {b.dtype} {b.shape}", np.inf, allowed
        )
    if a.size == 0:
        return LayerDifference(name, 0.0, allowed)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    same = np.equal(wide_a, wide_b) | (np.isnan(wide_a) & np.isnan(wide_b))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(wide_a - wide_b))
    error = np.where(np.isnan(error), np.inf, error)
    finite = np.abs(wide_a[np.isfinite(wide_a)])
    scale = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    place = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), a.shape))
    ulp = 0.0
    if a.dtype.kind == "f" and 0.0 < error[place] < np.inf:
        ulp = float(error[place] / np.spacing(max(abs(a[place]), abs(b[place]))))
    return LayerDifference(
        name, float(error[place]) / scale, allowed, place, float(a[place]), float(b[place]), ulp
    )
