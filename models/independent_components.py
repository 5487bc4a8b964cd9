"""`ica`: signals are unmixed by the natural gradient, where PCA can only decorrelate them.

Three independent signals s are heard as x = A s. ICA looks for W such that y = W x is independent
again, by descent of the likelihood along its natural gradient (extended infomax):

    u = W x,   W <- W + eta (I - E[K tanh(u) u^T] - E[u u^T]) W,
    k_i = sign(E[sech^2 u_i] E[u_i^2] - E[u_i tanh u_i])

k_i = 1 for a peaked distribution (Laplace), -1 for a flat one (sine, uniform). Order, signs and
scales cannot be known. Sources: source notes 001; Amari, Cichocki and Yang, 1996; Lee, Girolami and
Sejnowski, 1999.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn
from trine.data import Splits
from trine.models.desk import Desk, made_splits, values
from trine.models.explanation import Explanation
from trine.models.figures import Curve, Figure
from trine.models.principal_components import principal_axes
from trine.models.registry import system
from trine.random import make_key, stream_id, uniform

Array = npt.NDArray[np.float64]

SOURCE = "source notes 001"
SIGNALS = ("sine", "uniform noise", "Laplace noise")
MIXING = np.array([[1.0, 0.6, 0.4], [0.5, 1.0, -0.7], [-0.3, 0.8, 1.0]])
PERIOD = 97.3
"""Samples a period of the sine."""


def signals(n: int) -> Array:
    """Return n samples (n, 3) of the three signals, each of mean 0 and variance 1."""
    u = uniform(make_key(0, stream_id("ica signals")), (2, n), "float64") - 0.5
    sine = np.sqrt(2.0) * np.sin(2 * np.pi * np.arange(n) / PERIOD)
    flat = np.sqrt(12.0) * u[0]
    # The inverse distribution function; u = -1/2, one draw in 2^53, would be infinite.
    peaked = -np.sign(u[1]) * np.log1p(-2 * np.abs(np.maximum(u[1], -0.5 + 2.0**-53))) / 2**0.5
    return np.stack([sine, flat, peaked], axis=1)


def mixtures(train: int = 4096, test: int = 1024) -> Splits:
    """Make mixtures x = A s of the signals; the targets are the signals themselves."""
    s = signals(train + test)
    about = "a sine, uniform and Laplace noise, mixed by a known matrix"
    x, y = (s @ MIXING.T).astype(np.float32), s.astype(np.float32)
    return made_splits("mixtures", x, y, train=train, description=about)


class Unmixing(nn.Learner):
    """A square matrix W that learns by the natural gradient, from the identity on."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(trine.eye(count))
        self.register_buffer("identity", trine.eye(count), persistent=False)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        return F.linear(x, self.weight)

    def learn(self, input: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
        """The rule above, over a batch; the target is not looked at."""
        with trine.no_grad():
            u = self(input)
            t = u.tanh()
            k = ((1 - t * t).mean(dim=0) * (u * u).mean(dim=0) - (u * t).mean(dim=0)).sign()
            moments = ((k * t + u).T @ u) / u.shape[0]
            self.descend(self.weight, (moments - self.identity) @ self.weight)
            return u


def unexplained(output: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
    """Return 1 - the mean over the targets of their largest squared correlation with an output.

    output, target: (N, n); 0 where each target is some output up to its scale.
    """
    a, b = _standardised(output), _standardised(target)
    correlations = b.T @ a / output.shape[0]
    return 1 - correlations.square().amax(dim=1).mean()


def _standardised(x: trine.Tensor) -> trine.Tensor:
    return (x - x.mean(dim=0)) / x.std(dim=0, correction=0)


def amari_error(w: Array, mixing: Array) -> float:
    """Return how far W A is from one entry a row and column: 0 unmixed, 1 not at all.

    With P = |W A|:  1/(2n(n-1)) [sum_i (sum_j P_ij / max_j P_ij - 1)
    + sum_j (sum_i P_ij / max_i P_ij - 1)]  (Amari, Cichocki and Yang, 1996).
    """
    p = np.abs(w @ mixing)
    n = len(p)
    rows = (p / p.max(axis=1, keepdims=True)).sum() - n
    columns = (p / p.max(axis=0)).sum() - n
    return float((rows + columns) / (2 * n * (n - 1)))


def show(model: Unmixing, splits: Splits) -> Explanation:
    """Compare what ICA and PCA make of the mixtures, on signals not learned from."""
    desk = Desk.of(model)
    note = Explanation(
        "ica", "Three signals unmixed by independence", SOURCE, desk.backend, desk.dtype,
        ["u = W x,  W <- W + eta (I - E[K tanh(u) u^T] - E[u u^T]) W"],
    )  # fmt: skip
    variances, axes = principal_axes(np.asarray(splits.train.x, np.float64))
    whitening = axes / np.sqrt(variances)[:, None]
    w = values(model.weight)
    x, s = np.asarray(splits.test.x, np.float64), np.asarray(splits.test.y, np.float64)
    found, decorrelated = x @ w.T, x @ whitening.T
    for j, name in enumerate(SIGNALS):
        best = [max(abs(np.corrcoef(s[:, j], y[:, i])[0, 1]) for i in range(3))
                for y in (found, decorrelated)]  # fmt: skip
        note.at_least(f"|correlation|, {name}", "the best output of ICA", best[0], 0.99)
        note.show(f"|correlation|, {name}", "the best output of PCA", best[1])
    note.at_most("Amari error", "of ICA's matrix", amari_error(w, MIXING), 0.05)
    note.at_least(
        "Amari error", "of PCA's, which leaves a turn", amari_error(whitening, MIXING), 0.2
    )
    note.matrices["W A"] = w @ MIXING
    panels = {"signals": s, "mixtures": x, "principal-components": decorrelated}
    for name, panel in panels.items():
        note.drawings[name] = _traces(name.replace("-", " "), panel)
    note.figure = _traces("signals found by ICA", found)
    return note


def _traces(title: str, y: Array, length: int = 250) -> Figure:
    """Return the first samples of signals, one above the other."""
    curves = [
        Curve(str(i + 1), list(range(length)), (y[:length, i] / y[:, i].std() + 5.0 * i).tolist())
        for i in range(y.shape[1])
    ]
    return Figure(title.capitalize(), "sample", "one above the other", curves)


@system(
    "ica",
    family="independent components",
    year=1996,
    source=f"{SOURCE}; Amari et al., 1996; Lee et al., 1999",
    summary="the natural gradient unmixes three signals that PCA only decorrelates",
    data=mixtures,
    loss=unexplained,
    metrics=(),
    optimizer="sgd",
    lr=0.4,
    schedule="cosine",
    batch_size=256,
    epochs=20,
    shows=show,
)
def build() -> Unmixing:
    """Return the unmixing matrix, 3 x 3, as the identity."""
    return Unmixing(3)
