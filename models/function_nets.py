"""`taylor-net` and `integral-net`: networks whose units are the terms of a series, or integrals."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre, polynomial

import trine
import trine.functional as F
from trine import nn
from trine.data import Splits
from trine.models.desk import Desk, draw_normal, half_squared_error, made_splits, values
from trine.models.explanation import Explanation
from trine.models.figures import Curve, Figure
from trine.models.registry import system
from trine.random import make_key, stream_id, uniform

SOURCE = "source notes 001"
Array = npt.NDArray[np.float64]

ORDER = 6
"""The first order at which the Taylor series of e^x is within 1e-3 on all of [-1, 1]."""
CLOSE = 1e-3


def exponential(train: int = 12_800, test: int = 201) -> Splits:
    """Make points x of [-1, 1] with y = e^x: random ones to train on, an even grid to test with."""
    drawn = 2.0 * uniform(make_key(0, stream_id("taylor-net")), (train,), "float64") - 1.0
    x = np.concatenate([drawn, np.linspace(-1.0, 1.0, test)])[:, None]
    features, targets = x.astype(np.float32), np.exp(x).astype(np.float32)
    about = "e^x at points of [-1, 1]"
    return made_splits("exponential", features, targets, train=train, description=about)


class TaylorNet(nn.Module):
    """y = sum_n w_n x^n / n! for n = 0 ... N; the w_n are learned.

    Product units make the terms one from another: t_0 = 1, t_n = t_(n-1) x / n. Where the net has
    learned a function exactly, w_n is that function's n-th derivative at 0.
    """

    def __init__(self, order: int) -> None:
        super().__init__()
        self.order = order
        self.sum = nn.Linear(order + 1, 1, bias=False)
        nn.init.zeros_(self.sum.weight)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """Return y (N, 1) at points x (N, 1)."""
        terms = [trine.ones_like(x)]
        for n in range(1, self.order + 1):
            terms.append(terms[-1] * x * (1.0 / n))
        return self.sum(trine.cat(terms, 1))


def explain_taylor(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Show how far the net with the weights of the Taylor series itself lies from e^x."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "taylor-net",
        "The Taylor series of e^x as a network",
        SOURCE,
        backend,
        dtype,
        [
            "t_0 = 1    t_n = t_(n-1) x / n    y = sum_n w_n t_n,    w_n = f^(n)(0) = 1 for e^x",
            "max |y - e^x| on [-1, 1] = sum_(n > N) 1 / n!, at x = 1",
        ],
    )
    grid = np.linspace(-1.0, 1.0, 201)
    first = None
    for order in range(1, 9):
        model = TaylorNet(order)
        nn.init.ones_(model.sum.weight)
        desk.place(model)
        error = np.abs(values(model(desk.tensor(grid[:, None])))[:, 0] - np.exp(grid)).max()
        remainder = sum(1.0 / math.factorial(n) for n in range(order + 1, 30))
        note.equal(f"N = {order}", "max |y - e^x| = sum_(n > N) 1 / n!", error, remainder)
        if first is None and error <= CLOSE:
            first = order
    note.equal("N", "the first order within 1e-3", first, ORDER)
    return note


def shows_taylor(model: TaylorNet, splits: Splits) -> Explanation:
    """Measure the largest error on the grid, and print the learned weights."""
    desk = Desk.of(model)
    note = Explanation(
        "taylor-net",
        "What the Taylor network has learned",
        SOURCE,
        desk.backend,
        desk.dtype,
        ["y = sum_n w_n x^n / n!"],
    )
    x = np.asarray(splits.test.x, np.float64)
    y = values(model(desk.tensor(x)))[:, 0]
    error = np.abs(y - np.exp(x[:, 0]))
    note.at_most("max |y - e^x|", f"on {len(x)} points of [-1, 1]", error.max(), CLOSE)
    for n, w in enumerate(values(model.sum.weight)[0]):
        note.show(f"w_{n}", f"the derivative of order {n} at 0 is 1", w)
    note.figure = Figure(
        "Error of the Taylor network", "x", "|y - e^x|", [Curve("error", x[:, 0], error)]
    )
    return note


@system(
    "taylor-net",
    family="function network",
    year=1715,
    source=SOURCE,
    summary="product units make the terms of a Taylor series, whose weights are learned: e^x",
    data=exponential,
    loss=F.mse_loss,
    metrics=(),
    optimizer="adam",
    lr=0.05,
    schedule="cosine",
    batch_size=256,
    epochs=20,
    explain=explain_taylor,
    shows=shows_taylor,
)
def build_taylor() -> TaylorNet:
    """Return the net of order 6, which starts as the function 0."""
    return TaylorNet(ORDER)


NODES = 12
"""Points at which a function is known: integrals are exact up to degree 11."""
LARGEST_DEGREE = 5
GAIN, START_SPEED, START_PLACE = 1.5, -0.5, 0.25
"""What the made motions have in common: s'' = 1.5 a, s'(0) = -0.5, s(0) = 0.25."""


def nodes() -> Array:
    """Return the points t in (-1, 1), those of Gauss and Legendre."""
    return np.asarray(legendre.leggauss(NODES)[0])


def integral_matrix() -> Array:
    """Return J (NODES, NODES) that takes a function's values to those of its integral from 0.

    (J f)_i = int_0^(t_i) p(t) dt, p the polynomial of degree NODES - 1 through the points: with
    Legendre's P_k, p = sum_k c_k P_k, and int P_k = (P_(k+1) - P_(k-1)) / (2k + 1).
    """
    t = nodes()
    of_series = np.zeros((NODES, NODES))
    for k in range(NODES):
        antiderivative = legendre.legint(np.eye(NODES)[k])
        of_series[:, k] = legendre.legval(t, antiderivative) - legendre.legval(0.0, antiderivative)
    return np.asarray(of_series @ np.linalg.inv(legendre.legvander(t, NODES - 1)))


def degree(samples: Array) -> int:
    """Return the degree of the polynomial through a function's values, up to rounding of float32."""
    of_legendre = np.linalg.solve(legendre.legvander(nodes(), NODES - 1), samples)
    certain = np.flatnonzero(np.abs(of_legendre) > 1e-5 * np.abs(samples).max())
    return int(certain.max(initial=0))


def motions(train: int = 200, test: int = 60) -> Splits:
    """Make accelerations a(t) and the places s(t) they lead to, each as values at the nodes.

    a is a polynomial of degree 0 to 5 with normal coefficients; s is the solution of
    s'' = 1.5 a, s'(0) = -0.5, s(0) = 0.25, integrated term by term.
    """
    n, t = train + test, nodes()
    coefficients = draw_normal("integral-net", (n, LARGEST_DEGREE + 1))
    order = np.arange(n) % (LARGEST_DEGREE + 1)
    coefficients[np.arange(LARGEST_DEGREE + 1) > order[:, None]] = 0.0
    a = polynomial.polyval(t, coefficients.T)
    start = [START_PLACE, START_SPEED]
    s = np.stack(
        [polynomial.polyval(t, polynomial.polyint(GAIN * c, 2, start[::-1])) for c in coefficients]
    )
    about = "accelerations, polynomials of degree 0 to 5, and the places they lead to"
    return made_splits(
        "motions", a.astype(np.float32), s.astype(np.float32), train=train, description=about
    )


class Integrating(nn.Module):
    """y(t) = w int_0^t a(u) du + c, functions given by their values at the nodes; learns w and c."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(trine.ones(1))
        self.constant = nn.Parameter(trine.zeros(1))
        self.register_buffer("matrix", trine.tensor(integral_matrix().T, dtype="float32"))

    def forward(self, a: trine.Tensor) -> trine.Tensor:
        """Return the integrals (N, NODES) of functions (N, NODES)."""
        return (a @ self.matrix) * self.weight + self.constant


def shows_integral(model: nn.Sequential, splits: Splits) -> Explanation:
    """Measure the degree of a polynomial after every layer, and what the layers have learned."""
    desk = Desk.of(model)
    note = Explanation(
        "integral-net",
        "Each integrating layer raises the degree by one",
        SOURCE,
        desk.backend,
        desk.dtype,
        [
            "y_1 = w_1 int_0^t a + c_1        the speed",
            "y_2 = w_2 int_0^t y_1 + c_2      the place",
            "s'' = 1.5 a, s'(0) = -0.5, s(0) = 0.25   =>   w_1 w_2 = 1.5, w_2 c_1 = -0.5, c_2 = 0.25",
        ],
    )
    t = nodes()
    for power in range(LARGEST_DEGREE + 1):
        signal = desk.tensor(t[None] ** power)
        for number, layer in enumerate(model, start=1):
            signal = layer(signal)
            found = degree(values(signal)[0])
            note.equal("degree", f"of t^{power} after layer {number}", found, power + number, 0.0)
    (w1, c1), (w2, c2) = ([values(p)[0] for p in (m.weight, m.constant)] for m in model)
    note.equal("w_1 w_2", "the gain", w1 * w2, GAIN, 1e-3)
    note.equal("w_2 c_1", "the speed at 0", w2 * c1, START_SPEED, 1e-3)
    note.equal("c_2", "the place at 0", c2, START_PLACE, 1e-3)
    a, s = (np.asarray(part[:1], np.float64) for part in (splits.test.x, splits.test.y))
    note.figure = Figure(
        "From acceleration to place",
        "t",
        "value",
        [
            Curve("acceleration", t, a[0]),
            Curve("speed, after layer 1", t, values(model[0](desk.tensor(a)))[0]),
            Curve("place, after layer 2", t, values(model(desk.tensor(a)))[0]),
            Curve("place, known", t, s[0]),
        ],
    )
    return note


@system(
    "integral-net",
    family="function network",
    year=2017,
    source=SOURCE,
    summary="two integrating layers learn to turn accelerations into places",
    data=motions,
    loss=half_squared_error,
    metrics=(),
    optimizer="adam",
    lr=0.03,
    schedule="cosine",
    batch_size=50,
    epochs=50,
    shows=shows_integral,
)
def build_integral() -> nn.Sequential:
    """Return two integrating layers with w = 1 and c = 0: four parameters."""
    return nn.Sequential(Integrating(), Integrating())
