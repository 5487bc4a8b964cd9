"""Small examples of the mathematics: element products, linear approximation, steps and epochs."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from trine import nn, optim
from trine.data import ArrayDataset, DataLoader
from trine.models.desk import Desk, values
from trine.models.explanation import Explanation
from trine.models.registry import register

POINT = (1.0, 2.0)
DIRECTION = (0.6, -0.8)


def explain_hadamard(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Multiply two matrices element by element, and as matrices for contrast."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "hadamard",
        "The elementwise (Hadamard) product",
        "source notes 004, equation 8",
        backend,
        dtype,
        ["(A (.) B)_ij = a_ij b_ij"],
    )
    a, b = desk.tensor([[2, 7], [1, 8]]), desk.tensor([[2, 8], [1, 3]])
    product = values(a * b)
    for (i, j), expected in np.ndenumerate(np.array([[4, 56], [1, 24]])):
        note.equal(
            f"c_{i + 1}{j + 1}", f"a_{i + 1}{j + 1} b_{i + 1}{j + 1}", product[i, j], expected
        )
    note.matrices["A (.) B"] = product
    note.matrices["A B, the matrix product"] = values(a @ b)
    return note


def explain_linear_approximation(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Compare dz with grad z . dx for z = x^2 y + y^3 and ever shorter dx."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "linear-approximation",
        "A small step changes z by grad z . dx",
        "source notes 004, equations 15 and 18",
        backend,
        dtype,
        ["z = x^2 y + y^3", "dz = z(x + dx) - z(x) = grad z . dx + O(|dx|^2)"],
    )
    point = desk.tensor(POINT, grad=True)
    z = point[0] ** 2 * point[1] + point[1] ** 3
    z.backward()
    gradient = values(point.grad)
    x, y = POINT
    note.equal("dz/dx", "2 x y, by autograd", gradient[0], 2 * x * y)
    note.equal("dz/dy", "x^2 + 3 y^2, by autograd", gradient[1], x * x + 3 * y * y)
    # Twice the largest second derivative near the point bounds the remainder over |dx|^2.
    bound = 2.0 * 6.0 * y
    rounding = 1e-6 if dtype == "float32" else 1e-14
    for length in (1e-1, 1e-2, 1e-3):
        moved = desk.tensor([p + length * d for p, d in zip(POINT, DIRECTION, strict=True)])
        dz = (moved[0] ** 2 * moved[1] + moved[1] ** 3).item() - z.item()
        linear = length * float(gradient @ np.asarray(DIRECTION))
        margin = bound * length**2 + 100.0 * rounding
        note.equal(f"dz, |dx| = {length:g}", "grad z . dx", dz, linear, margin)
    return note


def explain_unit_step(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Walk down z = x^2 + 4 y^2 in steps of one length, and stand still where grad z = 0."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "unit-length-step",
        "Descent by steps of one length",
        "source notes 004, equation 21",
        backend,
        dtype,
        ["dx = -eta grad f / |grad f|      no step where grad f = 0", "f = x^2 + 4 y^2"],
    )
    eta = 0.1
    place = nn.Parameter(desk.tensor([2.0, 1.0]))
    optimizer = optim.UnitDescent([place], lr=eta)
    scale = desk.tensor([1.0, 4.0])
    path = [values(place).copy()]
    for _ in range(40):
        optimizer.zero_grad()
        (scale * place * place).sum().backward()
        optimizer.step()
        path.append(values(place).copy())
    lengths = [math.dist(a, b) for a, b in pairwise(path)]
    note.equal("|dx|", "shortest of 40 steps = eta", min(lengths), eta)
    note.equal("|dx|", "longest of 40 steps = eta", max(lengths), eta)
    distance = float(np.linalg.norm(path[-1]))
    note.equal("|x|", "at the end: within eta of the minimum", distance, 0.0, eta)
    still = nn.Parameter(desk.tensor([0.0, 0.0]))
    standing = optim.UnitDescent([still], lr=eta)
    (scale * still * still).sum().backward()
    standing.step()
    note.equal("|dx|", "where grad f = 0", np.linalg.norm(values(still)), 0.0, 0.0)
    note.matrices["path, every tenth step"] = np.array(path[::10])
    return note


def explain_epoch(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Count the updates of an epoch by batch, stochastic and mini-batch descent."""
    note = Explanation(
        "epoch",
        "How many updates make an epoch",
        "source notes 002",
        backend,
        dtype,
        ["N examples, m a batch: N / m updates an epoch, the last batch perhaps smaller"],
    )
    for n, m, label in (
        (2_560_000, 256, "mini-batch"),
        (64, 64, "batch"),
        (64, 1, "stochastic"),
        (1_000, 256, "mini-batch with a smaller last one"),
    ):
        examples = ArrayDataset(np.zeros((n, 1), dtype=np.float32), np.zeros(n, dtype=np.int64))
        loader = DataLoader(examples, batch_size=m)
        note.equal(f"{n} / {m}", f"{label}: updates an epoch", len(loader), math.ceil(n / m))
    note.notes.append("2,560,000 examples in batches of 256: 10,000 updates an epoch.")
    return note


for _name, _year, _source, _summary, _explain in (
    (
        "hadamard",
        1893,
        "source notes 004, equation 8",
        "the elementwise product of matrices",
        explain_hadamard,
    ),
    (
        "linear-approximation",
        1715,
        "source notes 004, equations 15 and 18",
        "dz = grad z . dx, shown numerically",
        explain_linear_approximation,
    ),
    (
        "unit-length-step",
        1847,
        "source notes 004, equation 21",
        "descent by steps of one length",
        explain_unit_step,
    ),
    ("epoch", 1951, "source notes 002", "how many updates make an epoch", explain_epoch),
):
    register(
        name=_name,
        family="mathematics",
        year=_year,
        source=_source,
        summary=_summary,
        explain=_explain,
    )
