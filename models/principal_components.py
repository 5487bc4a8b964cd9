"""`pca` and `autoencoder-linear`: one subspace, reached by Sanger's rule and by descent.

Data are centred, and scaled to a total variance of 1 so that one rate suits every data set:

    S = 1/N sum_n x_n x_n^T,    S u_j = lambda_j u_j,    lambda_1 >= lambda_2 >= ...,  sum lambda_j = 1
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn
from trine.data import ArrayDataset, Splits
from trine.models.desk import Desk, draw_normal, half_squared_error, own_targets, values
from trine.models.explanation import Explanation
from trine.models.figures import Curve, Figure, Images
from trine.models.registry import system

Array = npt.NDArray[np.float64]

INPUTS = 28 * 28
COMPONENTS = 4
SHOWN = 10
"""Images drawn in a row."""


def centred(splits: Splits) -> Splits:
    """Return samples less the training mean, at a total training variance of 1, as own targets."""
    train = np.asarray(splits.train.x, np.float64)
    mean = train.mean(axis=0)
    deviation = float(np.sqrt(np.mean(np.sum((train - mean).reshape(len(train), -1) ** 2, axis=1))))
    parts = []
    for part in (splits.train, splits.test):
        x = ((np.asarray(part.x, np.float64) - mean) / deviation).astype(np.float32)
        parts.append(ArrayDataset(x, x, name=part.name))
    return own_targets(replace(splits, train=parts[0], test=parts[1], num_classes=None))


def principal_axes(x: Array) -> tuple[Array, Array]:
    """Return lambda (D,), falling, and the axes u_j as rows (D, D) of centred samples (N, D)."""
    variances, axes = np.linalg.eigh(x.T @ x / len(x))
    return variances[::-1], axes.T[::-1]


def flat(images: npt.NDArray[np.float32]) -> Array:
    """Return samples as float64 rows (N, D)."""
    return np.asarray(images, np.float64).reshape(len(images), -1)


class Components(nn.Learner):
    """d directions that learn by Sanger's rule: y = W x,

        W <- W + eta (1/N) (Y^T X - LT[Y^T Y] W),

    LT the lower triangle with the diagonal; X (N, D) and Y (N, d) hold a sample a row. The first
    row follows Oja's rule, and each other row Oja's rule on what the rows above leave over. So the
    rows become u_1, ..., u_d. Source: Sanger, 1989; Oja, 1982.
    """

    def __init__(self, inputs: int, components: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(trine.zeros(components, inputs))
        nn.init.normal_(self.weight, std=inputs**-0.5)
        lower = trine.tensor(np.tril(np.ones((components, components), np.float32)))
        self.register_buffer("lower", lower, persistent=False)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """Return the reconstructions W^T W x."""
        return (F.linear(x.flatten(1), self.weight) @ self.weight).reshape(x.shape)

    def learn(self, input: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
        """Sanger's rule, over a batch; the target is the input itself."""
        with trine.no_grad():
            x = input.flatten(1)
            y = F.linear(x, self.weight)
            rise = y.T @ x - (self.lower * (y.T @ y)) @ self.weight
            self.descend(self.weight, rise / -x.shape[0])
            return (y @ self.weight).reshape(input.shape)


class LinearAutoencoder(nn.Module):
    """x^ = V W x without biases and activations; cost 1/2N sum |x - V W x|^2.

    At its minimum V W is the projection on the span of u_1, ..., u_d, and W V = I, but the columns
    of V need not be the axes themselves. Source: source notes 001; Baldi and Hornik, 1989.
    """

    def __init__(self, inputs: int, code: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(inputs, code, bias=False)
        self.decoder = nn.Linear(code, inputs, bias=False)
        for parameter in self.parameters():  # columns about as long as in a projection
            nn.init.normal_(parameter, std=inputs**-0.5)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        return self.decoder(self.encoder(x.flatten(1))).reshape(x.shape)


def four_readings(note: Explanation, desk: Desk, x: Array, w: Array, tolerance: float) -> None:
    """Check the four readings of PCA for centred samples (N, D) and found axes w (d, D).

    `tolerance` says how near to the exact axes w has come; identities must hold up to rounding.
    """
    n, inputs = x.shape
    d = len(w)
    rounding = 1e-9 if desk.dtype == "float64" else 1e-5
    variances, axes = principal_axes(x)
    samples, weight = desk.tensor(x), desk.tensor(w)
    y = F.linear(samples, weight)

    spread = values((y * y).mean(dim=0))
    covariance = values(samples.T @ samples) / n
    for j in range(d):
        note.equal(f"lambda_{j + 1}", "1: = variance of w^T x", spread[j], variances[j], tolerance)
    residuals = np.linalg.norm(covariance @ w.T - w.T * spread, axis=0) / spread
    note.at_most("|S w - lambda w| / lambda", "1: w is an eigenvector", residuals.max(), tolerance)

    error = F.squared_error(y @ weight, samples, factor=1.0, reduction="batchmean").item()
    rest = sum(float(u @ covariance @ u) for u in axes[d:])
    note.equal("mean |x - x^|^2", "2: = sum over j>d of u_j^T S u_j", error, rest, tolerance)

    frames = [w + 0.1 * draw_normal("pca turn", (d, inputs), k) / inputs**0.5 for k in range(8)]
    turned = desk.tensor(frames[0], grad=True)
    nearest = F.linear(samples, turned) @ turned
    unlikely = F.normal_density(samples, nearest, 1.0).log().sum() / -n
    half_error = F.squared_error(nearest, samples, reduction="batchmean")
    note.equal(
        "-mean ln N(x; x^, I)", "3: = 1/2 mean error + D/2 ln 2 pi, off the axes too",
        unlikely.item(), half_error.item() + inputs * np.log(2 * np.pi) / 2, rounding * inputs,
    )  # fmt: skip
    by_likelihood, by_error = (
        values(trine.grad(q, turned, retain_graph=True)[0]) for q in (unlikely, half_error)
    )
    note.agree("d(-ln N)/dw - 1/2 d(error)/dw", "3: so descent is the same",
               by_likelihood, by_error, rounding)  # fmt: skip

    coordinates = np.linalg.lstsq(w.T, x.T, rcond=None)[0].T
    note.agree("z - W x", "4: z of the nearest W^T z", coordinates, values(y), tolerance)
    bases = [np.linalg.qr(frame.T)[0] for frame in frames]
    distances = [np.mean(np.sum((x - x @ q @ q.T) ** 2, axis=1)) for q in bases]
    note.at_least("mean distance^2", "4: of manifolds turned away", min(distances), error)


EQUATIONS = [
    "1  variance:    S w = lambda w, and lambda is the variance of w^T x",
    "2  error:       mean |x - sum over j<=d of u_j u_j^T x|^2 = sum over j>d of u_j^T S u_j",
    "3  likelihood:  -ln N(x; W^T W x, I) = 1/2 |x - W^T W x|^2 + constant",
    "4  alignment:   {W^T z} is the linear manifold nearest to the samples, with z = W x",
]


def explain_pca(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Check the four readings on 400 samples of five dimensions, by their exact axes."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "pca", "Principal components: four readings of one subspace", SOURCE, backend, dtype,
        list(EQUATIONS),
    )  # fmt: skip
    x = draw_normal("pca example", (400, 5)) * [1.0, 0.8, 0.5, 0.3, 0.2]
    x = x @ np.linalg.qr(draw_normal("pca frame", (5, 5)))[0]
    x -= x.mean(axis=0)
    four_readings(note, desk, x, principal_axes(x)[1][:2], 1e-10 if dtype == "float64" else 1e-5)
    return note


def _images(x: npt.NDArray[np.float32], reconstructed: trine.Tensor) -> dict[str, Array]:
    """Return rows of grey images for a figure: originals and what a model makes of them."""
    return {
        "centred images": np.asarray(x[:SHOWN, 0], np.float64),
        "reconstructions": values(reconstructed)[:, 0],
    }


def show_pca(model: Components, splits: Splits) -> Explanation:
    """Measure the learned components on the training set, whose axes they are."""
    desk = Desk.of(model)
    note = Explanation(
        "pca", f"{len(model.weight)} components by Sanger's rule", SOURCE, desk.backend, desk.dtype,
        list(EQUATIONS),
    )  # fmt: skip
    x, w = flat(splits.train.x), values(model.weight)
    note.agree("W W^T - I", "rows of length 1, at right angles", w @ w.T, np.eye(len(w)), TOLERANCE)
    four_readings(note, Desk(desk.backend, "float64"), x, w, TOLERANCE)
    variances = principal_axes(x)[0]
    left = 1.0 - np.cumsum(variances[:50])
    curve = Curve("sum over j>d of lambda_j", list(range(1, 51)), left.tolist())
    note.figure = Figure("What d components leave over", "d", "mean squared error", [curve])
    first = splits.train.x[:SHOWN]
    rows = {"components": w.reshape(-1, *splits.train.x.shape[2:])}
    rows |= _images(first, model(desk.tensor(first)))
    note.drawings["images"] = Images("Principal components of the training images", rows)
    return note


def show_linear(model: LinearAutoencoder, splits: Splits) -> Explanation:
    """Compare the subspace of the decoder with that of PCA, on the training set."""
    desk = Desk.of(model)
    note = Explanation(
        "autoencoder-linear", "A linear autoencoder finds the principal subspace", SOURCE,
        desk.backend, desk.dtype, ["C = 1/2N sum |x - V W x|^2"],
    )  # fmt: skip
    v, w = values(model.decoder.weight), values(model.encoder.weight)
    d = v.shape[1]
    variances, axes = principal_axes(flat(splits.train.x))
    angles = principal_angles(v, axes[:d].T)
    note.at_most("largest angle", "of span V to span u_1..u_d", angles.max(), 1e-2)
    note.show("smallest angle", "in radians, as above", angles.min())
    best = 0.5 * float(variances[d:].sum())
    x = desk.tensor(splits.train.x)
    with trine.no_grad():
        cost = half_squared_error(model(x), x).item()
    note.equal("C", "= 1/2 sum over j>d of lambda_j", cost, best, 1e-4)
    note.agree("W V - I", "encoding undoes decoding", w @ v, np.eye(d), 1e-2)
    note.show("|V - U U^T V|", "part of V outside of PCA's subspace",
              np.linalg.norm(v - axes[:d].T @ (axes[:d] @ v)))  # fmt: skip
    first = splits.train.x[:SHOWN]
    rows = _images(first, model(desk.tensor(first)))
    note.drawings["images"] = Images("Linear autoencoder", rows)
    return note


def principal_angles(a: Array, b: Array) -> Array:
    """Return the angles (d,) between the spans of two matrices' columns, (D, d) each.

    Through the sines, which stay exact for small angles: singular values of (I - B B^T) A with
    orthonormal A and B.
    """
    a, b = np.linalg.qr(a)[0], np.linalg.qr(b)[0]
    sines = np.linalg.svd(a - b @ (b.T @ a), compute_uv=False)
    return np.arcsin(np.minimum(sines, 1.0))


SOURCE = "source notes 001"
TOLERANCE = 1e-3
"""How near to the exact axes the learned ones must come, in units of the total deviation."""


@system(
    "pca",
    family="principal components",
    year=1989,
    source=f"{SOURCE}; Pearson, 1901; Sanger, 1989",
    summary="Sanger's rule finds the first principal components; four readings of them agree",
    data="digits",
    task=centred,
    loss=half_squared_error,
    metrics=(),
    optimizer="sgd",
    lr=4.0,
    batch_size=1438,
    epochs=200,
    explain=explain_pca,
    shows=show_pca,
)
def build_pca() -> Components:
    """Return four components at a random start: 3,136 weights."""
    return Components(INPUTS, COMPONENTS)


@system(
    "autoencoder-linear",
    family="autoencoder",
    year=1989,
    source=f"{SOURCE}; Baldi and Hornik, 1989",
    summary="784-4-784 without activations: descent finds the subspace of PCA",
    data="digits",
    task=centred,
    loss=half_squared_error,
    metrics=(),
    optimizer="sgd",
    lr=1.0,
    optimizer_args={"momentum": 0.9},
    batch_size=1438,
    epochs=200,
    shows=show_linear,
)
def build_linear() -> LinearAutoencoder:
    """Return the linear autoencoder at a random start: 6,272 weights."""
    return LinearAutoencoder(INPUTS, COMPONENTS)
