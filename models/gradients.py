"""How the error shrinks or grows on its way back, and the sum over all paths that it stands for."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn
from trine.models.desk import Desk, draw_normal, values
from trine.models.explanation import Explanation
from trine.models.figures import Curve, Figure
from trine.models.registry import register, system

LAYERS = 10
WIDTH = 32


class Deep(nn.Module):
    """Ten layers of one width and one activation, then ten classes."""

    def __init__(self, inputs: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        sizes = [inputs] + [WIDTH] * LAYERS
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(sizes)])
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        a = x.flatten(1)
        for layer in self.layers:
            z = layer(a)
            a = z.sigmoid() if self.activation == "logistic" else z.relu()
        return self.head(a)


def delta_norms(desk: Desk, activation: str, deviation: float) -> npt.NDArray[np.float64]:
    """Return |delta^l| = |dC/dz^l| for l = 1..10, weights normal of the given deviation.

    The deviation is in units of 1 / sqrt(width); 64 random inputs and classes.
    """
    a = desk.tensor(draw_normal("vanishing input", (64, WIDTH)))
    y = desk.integers(np.arange(64) % 10)
    sums = []
    for layer in range(LAYERS + 1):
        size = WIDTH if layer < LAYERS else 10
        weight = draw_normal(f"vanishing {layer}", (size, WIDTH)) * deviation / np.sqrt(WIDTH)
        z = F.linear(a, desk.tensor(weight, grad=True))
        z.retain_grad()
        sums.append(z)
        a = z.sigmoid() if activation == "logistic" else z.relu()
    F.cross_entropy(sums[-1], y).backward()
    return np.array([np.linalg.norm(values(z.grad)) for z in sums[:LAYERS]])


CASES = (
    ("logistic, small weights", "logistic", 1.0),
    ("logistic, large weights", "logistic", 6.0),
    ("ReLU, small weights", "relu", 0.7),
    ("ReLU, He's weights", "relu", 2.0**0.5),
    ("ReLU, large weights", "relu", 4.0),
)


def explain_vanishing(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Tabulate and plot |delta^l| over ten layers for two activations and several weights."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "vanishing-gradient",
        "The error on its way back through ten layers",
        "source notes 001",
        backend,
        dtype,
        [
            "delta^l = ((W^(l+1))^T delta^(l+1)) (.) act'(z^l)",
            "logistic: act' <= 1/4, so small weights shrink delta at every layer",
            "ReLU: act' is 0 or 1; weights of variance 2 / width keep delta's size (He)",
        ],
    )
    layers = list(range(1, LAYERS + 1))
    curves, ratio = [], {}
    for label, activation, deviation in CASES:
        norms = delta_norms(desk, activation, deviation)
        curves.append(Curve(label, layers, norms.tolist()))
        ratio[label] = float(norms[0] / norms[-1])
        note.show("|delta^1| / |delta^10|", label, ratio[label])
        note.matrices[f"|delta^l|, l = 1..10, {label}"] = norms
    small, large = ratio["logistic, small weights"], ratio["ReLU, large weights"]
    steady = ratio["ReLU, He's weights"]
    symbol = "|delta^1| / |delta^10|"
    note.at_most(symbol, "vanishes: logistic, small weights", small, 1e-4)
    note.at_least(symbol, "explodes: ReLU, large weights", large, 1e3)
    note.at_least(symbol, "steady: ReLU, He's weights", steady, 0.1)
    note.at_most(symbol, "steady: ReLU, He's weights", steady, 10.0)
    note.figure = Figure("Size of the error per layer", "layer l", "|delta^l|", curves, log_y=True)
    return note


@system(
    "vanishing-gradient",
    family="worked example",
    year=1991,
    source="source notes 001",
    summary="ten logistic layers hardly learn: the error per layer as a table and a plot",
    data="digits",
    loss=F.cross_entropy,
    optimizer="sgd",
    lr=0.1,
    batch_size=64,
    epochs=2,
    explain=explain_vanishing,
    report=True,
)
def build() -> Deep:
    """Return ten logistic layers on 28x28 images."""
    return Deep(28 * 28, "logistic")


SIZES = (2, 3, 3, 3, 2)
"""Units of layers 1 to 5 of the chain."""


def path_sum(
    weights: list[npt.NDArray[np.float64]],
    slopes: list[npt.NDArray[np.float64]],
    errors: npt.NDArray[np.float64],
    start: int,
) -> tuple[float, int]:
    """Return dJ/dz of one unit of layer 2 as the sum over every path to the output, and their count.

    `weights[l]` leads from layer l + 2 to l + 3, `slopes[l]` is act'(z) of layer l + 2, `errors`
    is dJ/da of the output.
    """
    total, count = 0.0, 0
    for path in product(*(range(size) for size in SIZES[2:])):
        factor, unit = slopes[0][start], start
        for weight, slope, following in zip(weights, slopes[1:], path, strict=True):
            factor *= weight[following, unit] * slope[following]
            unit = following
        total += factor * errors[unit]
        count += 1
    return total, count


def explain_five_layer(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Compute the first weights' gradient by every path, by the recursion and by autograd."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "five-layer",
        "Back-propagation is the sum over all paths",
        "source notes 001, section 3.4, and 000",
        backend,
        dtype,
        [
            "dJ/dz_i^2 = sum over paths i -> j -> k -> m of",
            "    act'(z_i) w_ji act'(z_j) w_kj act'(z_k) w_mk act'(z_m) dJ/da_m",
            "delta^l = ((W^(l+1))^T delta^(l+1)) (.) act'(z^l)   folds the sums into one another",
            "dJ/dw_ih = delta_i x_h",
        ],
    )
    x = desk.tensor([0.5, -1.0]).reshape(2, 1)
    target = desk.tensor([0.2, 0.7]).reshape(2, 1)
    pairs = list(zip(SIZES[1:], SIZES, strict=False))
    tensors = [desk.tensor(draw_normal(f"five-layer {k}", p), grad=True)
               for k, p in enumerate(pairs)]  # fmt: skip
    a, outputs = x, []
    for w in tensors:
        a = (w @ a).sigmoid()
        outputs.append(a)
    cost = ((a - target) ** 2).sum() * 0.5
    cost.backward()

    weights = [values(w) for w in tensors]
    signals = [values(a)[:, 0] for a in outputs]
    slopes = [s * (1.0 - s) for s in signals]
    errors = signals[-1] - values(target)[:, 0]
    sums = [path_sum(weights[1:], slopes, errors, start) for start in range(SIZES[1])]
    delta = errors * slopes[-1]
    for layer in (2, 1, 0):
        delta = (weights[layer + 1].T @ delta) * slopes[layer]
    gradient = values(tensors[0].grad)
    for i, (by_paths, count) in enumerate(sums):
        note.equal("paths", f"from unit {i + 1} of layer 2", count, np.prod(SIZES[2:]))
        note.equal(f"delta_{i + 1}", "sum over paths = recursion", by_paths, delta[i])
    by_paths_all = np.outer([total for total, _ in sums], values(x)[:, 0])
    note.agree("dJ/dW^2", "sum over paths - autograd", by_paths_all, gradient)
    note.matrices["dJ/dW^2"] = gradient
    note.notes.append("The source's last line writes dh/dW where dJ/dW is meant.")
    return note


register(
    name="five-layer",
    family="worked example",
    year=1986,
    source="source notes 001, section 3.4, and 000",
    summary="the gradient of a five-layer chain as the sum over all paths",
    explain=explain_five_layer,
)
