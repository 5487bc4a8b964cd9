"""`hebb`: Hebb's rule in its three forms, and pairs of patterns stored by the last of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn, optim
from trine.data import Splits
from trine.models.desk import Desk, draw_normal, half_squared_error, made_splits, values
from trine.models.explanation import Explanation
from trine.models.figures import Images
from trine.models.registry import system

SOURCE = "source notes 001; Hebb, The Organization of Behavior, 1949"
PAIRS = 8
DIGITS = (
    "### #.# #.# #.# ###", ".#. ##. .#. .#. ###", "### ..# ### #.. ###", "### ..# ### ..# ###",
    "#.# #.# ### ..# ..#", "### #.. ### ..# ###", "### #.. ### #.# ###", "### ..# ..# ..# ..#",
)  # fmt: skip
"""The digits 0 to 7 in five rows of three cells."""
Signal = Callable[[trine.Tensor], trine.Tensor]


class Hebb(nn.Learner):
    """A linear unit a = W p whose weights grow by what is active on both of their sides.

    W += alpha f(a) g(p)^T, with f = `post` and g = `pre`; where a teacher sets the output,
    a = t (`supervised`), and with f and g the identity that is W += alpha t p^T.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        supervised: bool = True,
        post: Signal = F.identity,
        pre: Signal = F.identity,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(trine.zeros(outputs, inputs))
        self.supervised, self.post, self.pre = supervised, post, pre

    def forward(self, p: trine.Tensor) -> trine.Tensor:
        return F.linear(p, self.weight)

    def learn(self, input: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
        """Hebb's rule, summed over the batch; returns the response before it."""
        with trine.no_grad():
            response = self(input)
            a = target if self.supervised else response
            self.descend(self.weight, -(self.post(a).T @ self.pre(input)))
            return response


def walsh(n: int) -> npt.NDArray[np.float64]:
    """Return the Walsh patterns of length n, a power of two: rows of +-1/sqrt(n), orthonormal."""
    rows = np.ones((1, 1))
    while len(rows) < n:
        rows = np.block([[rows, rows], [rows, -rows]])
    return rows / np.sqrt(n)


def bitmap(text: str) -> npt.NDArray[np.float64]:
    """Return a digit of DIGITS as (5, 3), 1 and -1."""
    return np.array([[1.0 if cell == "#" else -1.0 for cell in row] for row in text.split()])


def digit_pairs() -> Splits:
    """Return 8 orthonormal patterns of 16 cells, each with the bitmap of a digit as its target.

    What is stored is what is to be recalled: the test set is the training set.
    """
    p = np.tile(walsh(16)[:PAIRS], (2, 1)).astype(np.float32)
    t = np.tile(np.stack([bitmap(d).ravel() for d in DIGITS]), (2, 1)).astype(np.float32)
    about = "8 orthonormal patterns of 16 cells, each paired with a 5x3 digit"
    return made_splits("digit-pairs", p, t, train=PAIRS, description=about)


def store(
    model: Hebb, desk: Desk, p: npt.NDArray[np.float64], t: npt.NDArray[np.float64], lr: float = 1.0
) -> None:
    """Let a model learn from rows of patterns and targets, once."""
    optimizer = optim.SGD(model.parameters(), lr=lr)
    model.learn(desk.tensor(p), desk.tensor(t))
    optimizer.step()


def explain(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Work the three forms of the rule on one pair, and watch the rule without a teacher."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "hebb", "Hebb's rule in its three forms", SOURCE, backend, dtype,
        [
            "w_ij += alpha f(a_i) g(p_j)      the general form",
            "w_ij += alpha a_i p_j            by the unit's own response",
            "W    += alpha t p^T              by a teacher",
        ],
    )  # fmt: skip
    p, t, alpha = np.array([[1.0, -2.0, 0.5]]), np.array([[1.0, -1.0]]), 0.1
    w = draw_normal("hebb weights", (2, 3))
    a = p @ w.T
    forms: tuple[tuple[str, dict[str, Any], npt.NDArray[np.float64]], ...] = (
        ("f(a) g(p)", {"supervised": False, "post": F.tanh, "pre": F.sign},
         np.tanh(a).T @ np.sign(p)),
        ("a p", {"supervised": False}, a.T @ p),
        ("t p^T", {}, t.T @ p),
    )  # fmt: skip
    for form, options, product in forms:
        model = Hebb(3, 2, **options)
        desk.place(model)
        model.load_state_dict({"weight": w})
        store(model, desk, p, t, lr=alpha)
        note.agree(
            "W", f"after W += alpha {form} - by hand", values(model.weight), w + alpha * product
        )
    grow_alone(note, desk)
    return note


def grow_alone(note: Explanation, desk: Desk) -> None:
    """Without a teacher the weights turn to the direction of largest variance, and grow."""
    x = draw_normal("hebb cloud", (200, 2)) @ np.array([[2.0, 1.0], [0.0, 0.5]])
    leading = np.linalg.eigh(x.T @ x)[1][:, -1]
    model = Hebb(2, 1, supervised=False)
    desk.place(model)
    model.load_state_dict({"weight": np.array([[-0.3, 0.4]])})
    for _ in range(30):
        model.zero_grad()
        store(model, desk, x, x[:, :1], lr=0.05 / len(x))
    w = values(model.weight)[0]
    note.at_least(
        "|cos(w, e1)|", "w += alpha a p: angle to the leading eigenvector of x x^T",
        abs(w @ leading) / np.linalg.norm(w), 0.999,
    )  # fmt: skip
    note.at_least(
        "|w|", "after 30 passes, from 0.5: it grows without bound", np.linalg.norm(w), 5.0
    )


def show(model: nn.Module, splits: Splits) -> Explanation:
    """Recall what was stored; then see what patterns that are not orthogonal do to each other."""
    desk = Desk.of(model)
    note = Explanation(
        "hebb", "Pairs stored by Hebb's rule, recalled by one product", SOURCE, desk.backend,
        desk.dtype,
        [
            "W = sum_q t_q p_q^T      W p_q = t_q (p_q . p_q) + sum_(k != q) t_k (p_k . p_q)",
            "orthonormal patterns: W p_q = t_q, exactly",
        ],
    )  # fmt: skip
    p, t = (np.asarray(a, np.float64) for a in (splits.train.x, splits.train.y))
    recalled = values(model(desk.tensor(p)))
    note.agree("W", "learned - sum_q t_q p_q^T", values(model.weight), t.T @ p)
    note.agree("W p - t", "recall of the stored pairs", recalled, t)

    crossed = draw_normal("hebb crossed", p.shape)
    crossed /= np.linalg.norm(crossed, axis=1, keepdims=True)
    other = Hebb(p.shape[1], t.shape[1])
    desk.place(other)
    store(other, desk, crossed, t)
    mixed = values(other(desk.tensor(crossed)))
    inner = crossed @ crossed.T
    crosstalk = (inner - np.diag(np.diag(inner))) @ t
    note.agree("W p - t", "of patterns not orthogonal - crosstalk", mixed - t, crosstalk)
    note.show("crosstalk", "its largest element", np.abs(crosstalk).max())
    note.drawings["recall"] = Images(
        "Patterns, what they recall, and what they recall when they are not orthogonal",
        {
            "pattern p": p.reshape(-1, 4, 4),
            "recalled W p": recalled.reshape(-1, 5, 3),
            "recalled from patterns that are not orthogonal": mixed.reshape(-1, 5, 3),
        },
    )
    return note


@system(
    "hebb",
    family="associative memory",
    year=1949,
    source=SOURCE,
    summary="eight pairs of patterns stored by W += t p^T and recalled exactly",
    data=digit_pairs,
    loss=half_squared_error,
    metrics=(),
    lr=1.0,
    batch_size=1,
    epochs=1,
    explain=explain,
    shows=show,
)
def build() -> Hebb:
    """Return a linear associator from 16 cells to the 15 cells of a digit, without weights yet."""
    return Hebb(16, 15)
