"""`lstm`: the long short-term memory step by step (source notes 003), and one that classifies.

The source stacks the gates as [g, i, f, o] over I_t = [x_t; h_(t-1)] with one bias; Trine keeps
PyTorch's order i, f, g, o with two weights and two biases. `from_source` and `to_source` convert:
the two biases always act as their sum, so the source's single bias becomes the first and zeros
the second, and the gradient of each of them equals that of the source's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn
from trine.data import Splits
from trine.models.desk import Desk, draw_normal, made_splits, values
from trine.models.explanation import Explanation
from trine.models.registry import system
from trine.random import integers, make_key, stream_id

SOURCE = "source notes 003, equations 4-1 to 4-12"
Maps = npt.NDArray[np.float64]
SOURCE_ORDER = "gifo"
PYTORCH_ORDER = "ifgo"


def _reorder(rows: Maps, old: str, new: str) -> Maps:
    """Return the four blocks of rows in another order of gates."""
    blocks = dict(zip(old, np.split(rows, 4), strict=True))
    return np.concatenate([blocks[gate] for gate in new])


def from_source(w: Maps, b: Maps, inputs: int) -> dict[str, Maps]:
    """Return PyTorch's four parameters of the source's W (4H, I + H) and b (4H,)."""
    w = _reorder(w, SOURCE_ORDER, PYTORCH_ORDER)
    return {
        "weight_ih_l0": w[:, :inputs],
        "weight_hh_l0": w[:, inputs:],
        "bias_ih_l0": _reorder(b, SOURCE_ORDER, PYTORCH_ORDER),
        "bias_hh_l0": np.zeros_like(b),
    }


def to_source(parameters: dict[str, Maps]) -> tuple[Maps, Maps]:
    """Return the source's W (4H, I + H) and b (4H,) of PyTorch's four parameters."""
    w = np.concatenate([parameters["weight_ih_l0"], parameters["weight_hh_l0"]], axis=1)
    b = parameters["bias_ih_l0"] + parameters["bias_hh_l0"]
    return _reorder(w, PYTORCH_ORDER, SOURCE_ORDER), _reorder(b, PYTORCH_ORDER, SOURCE_ORDER)


def logistic(z: Maps) -> Maps:
    """Return 1 / (1 + exp(-z))."""
    out: Maps = 1.0 / (1.0 + np.exp(-z))
    return out


@dataclass
class Step:
    """What one step of one sequence leaves behind for the way back."""

    stacked: Maps
    c_before: Maps
    g: Maps
    i: Maps
    f: Maps
    o: Maps
    c: Maps
    h: Maps


def step_forward(x: Maps, h: Maps, c: Maps, w: Maps, b: Maps) -> Step:
    """Return (4-1) to (4-6): z = W [x; h] + b; g, i, f, o; c' = f c + i g; h' = o tanh c'."""
    stacked = np.concatenate([x, h])
    zg, zi, zf, zo = np.split(w @ stacked + b, 4)
    g, i, f, o = np.tanh(zg), logistic(zi), logistic(zf), logistic(zo)
    c_new = f * c + i * g
    return Step(stacked, c, g, i, f, o, c_new, o * np.tanh(c_new))


def step_backward(step: Step, dh: Maps, dc: Maps, w: Maps) -> tuple[Maps, Maps, Maps]:
    """Return (4-7) to (4-12): dz (4H,), dI = W^T dz and dc of the step before.

    `dh` is the whole error of h_t; `dc` is what reaches c_t from step t + 1.
    """
    squashed = np.tanh(step.c)
    do = dh * squashed
    dc = dc + dh * step.o * (1.0 - squashed**2)
    di, dg, df = dc * step.g, dc * step.i, dc * step.c_before
    dz = np.concatenate(
        [
            dg * (1.0 - step.g**2),
            di * step.i * (1.0 - step.i),
            df * step.f * (1.0 - step.f),
            do * step.o * (1.0 - step.o),
        ]
    )
    return dz, w.T @ dz, dc * step.f


@dataclass
class Unrolled:
    """Outputs and gradients of a whole sequence by the equations."""

    h: Maps
    c: Maps
    dw: Maps
    db: Maps
    dx: Maps


def unroll(x: Maps, w: Maps, b: Maps, error: Maps, error_c: Maps) -> Unrolled:
    """Run x (T, I) from h_0 = c_0 = 0 and back; `error` (T, H) is dC/dh, `error_c` (H,) dC/dc_T."""
    hidden, inputs = b.size // 4, x.shape[1]
    h, c, steps = np.zeros(hidden), np.zeros(hidden), []
    for x_t in x:
        steps.append(step_forward(x_t, h, c, w, b))
        h, c = steps[-1].h, steps[-1].c
    dw, db, dx = np.zeros_like(w), np.zeros_like(b), np.zeros_like(x)
    dh, dc = np.zeros(hidden), error_c
    for t in range(len(x) - 1, -1, -1):
        dz, d_stacked, dc = step_backward(steps[t], error[t] + dh, dc, w)
        dx[t], dh = d_stacked[:inputs], d_stacked[inputs:]
        dw += np.outer(dz, steps[t].stacked)
        db += dz
    return Unrolled(np.stack([s.h for s in steps]), np.stack([s.c for s in steps]), dw, db, dx)


def explain(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Compare the fused LSTM, forward and backward, with the equations step by step."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "lstm",
        "Long short-term memory, step by step",
        SOURCE,
        backend,
        dtype,
        [
            "i, f, o = s(W_x x_t + W_h h_(t-1) + b)     g = tanh(...)      h_0 = c_0 = 0",
            "c_t = f (.) c_(t-1) + i (.) g              h_t = o (.) tanh(c_t)",
            "do = dh (.) tanh(c)      dc += dh (.) o (.) (1 - tanh^2 c)",
            "di = dc (.) g    dg = dc (.) i    df = dc (.) c_(t-1)    dc_(t-1) = dc (.) f",
            "dg^ = dg (1 - g^2)    di^ = di i (1 - i), df^ and do^ alike",
            "dI_t = W^T dz_t    dW = sum_t dz_t I_t^T    db = sum_t dz_t    I_t = [x_t; h_(t-1)]",
        ],
    )
    steps, inputs, hidden = 6, 3, 4
    w = 0.5 * draw_normal("lstm w", (4 * hidden, inputs + hidden))
    b = 0.5 * draw_normal("lstm b", (4 * hidden,))
    x = draw_normal("lstm x", (steps, inputs))
    error, error_c = draw_normal("lstm error", (steps, hidden)), draw_normal("lstm c", (hidden,))
    expected = unroll(x, w, b, error, error_c)

    fused = nn.LSTM(inputs, hidden)
    desk.place(fused)
    fused.load_state_dict(from_source(w, b, inputs))
    sequence = desk.tensor(x[:, None, :], grad=True)
    out, (_, c_last) = fused(sequence)
    cost = (out * desk.tensor(error[:, None, :])).sum()
    cost = cost + (c_last * desk.tensor(error_c.reshape(1, 1, hidden))).sum()
    cost.backward()

    note.agree("h_t", "fused - equations, all steps", values(out)[:, 0], expected.h)
    note.agree("c_T", "fused - equations", values(c_last).ravel(), expected.c[-1])
    gradients = {name: values(p.grad) for name, p in fused.named_parameters()}
    both = {**gradients, "bias_hh_l0": np.zeros(4 * hidden)}
    dw, db = to_source(both)
    note.agree("dW", "fused, in the source's order - equations", dw, expected.dw)
    note.agree("db", "fused, in the source's order - equations", db, expected.db)
    note.agree(
        "db_ih - db_hh", "both biases have the same gradient", gradients["bias_ih_l0"],
        gradients["bias_hh_l0"],
    )  # fmt: skip
    note.agree("dx_t", "fused - equations, all steps", values(sequence.grad)[:, 0], expected.dx)
    back, bias = to_source(from_source(w, b, inputs))
    note.agree("W", "mapping to PyTorch's order and back", back, w, 0.0)
    note.agree("b", "mapping to PyTorch's order and back", bias, b, 0.0)
    note.matrices["h_t, one row a step"] = values(out)[:, 0]
    note.notes.append(
        "The source stacks [g, i, f, o] with one bias b; here the order is i, f, g, o, and b_ih"
        " holds b while b_hh is 0."
    )
    return note


class Classifier(nn.Module):
    """An LSTM over a sequence and a linear head on its last h; the softmax is in the loss."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        out, _ = self.lstm(x)
        return self.head(out[:, -1])


SYMBOLS = 6
LENGTH = 12


def marked_sequences(train: int = 1000, test: int = 400) -> Splits:
    """Make sequences (N, 12, 6) of one-hot symbols whose two marks decide one of four classes.

    Symbols 0 and 1 are marks, 2 to 5 fill the rest at random. A first mark stands at step 1 to 4,
    a second at step 6 to 9 (of 0 to 11); class 2 * first + second. The last symbols tell nothing,
    so the net has to remember both marks and their order.
    """
    n = train + test
    key = [make_key(0, stream_id("lstm marks"), draw) for draw in range(4)]
    symbols = integers(key[0], 2, SYMBOLS, (n, LENGTH))
    marks = integers(key[1], 0, 2, (n, 2))
    rows = np.arange(n)
    symbols[rows, integers(key[2], 1, 5, (n,))] = marks[:, 0]
    symbols[rows, integers(key[3], 6, 10, (n,))] = marks[:, 1]
    x = np.eye(SYMBOLS, dtype=np.float32)[symbols]
    y = (2 * marks[:, 0] + marks[:, 1]).astype(np.int64)
    about = "sequences of 12 symbols; the kinds of two marks among them make four classes"
    return made_splits("marked-sequences", x, y, train=train, num_classes=4, description=about)


@system(
    "lstm",
    family="recurrent",
    year=1997,
    source=SOURCE,
    summary="long short-term memory, equation by equation; classifies sequences by two marks",
    data=marked_sequences,
    loss=F.cross_entropy,
    optimizer="adam",
    lr=0.01,
    batch_size=50,
    epochs=10,
    expected={"test_accuracy": 0.95},
    explain=explain,
    report=True,
)
def build() -> Classifier:
    """Return an LSTM of 24 units with a softmax head over four classes."""
    return Classifier(SYMBOLS, 24, 4)
