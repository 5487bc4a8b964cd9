"""Gates, states and errors of recurrent layers by time step, against what the tape computes."""

from __future__ import annotations

import numpy as np
import pytest

import trine
import trine.functional as F
from trine import models, nn
from trine.models.anatomy import record
from trine.models.formulas import backward_formulas, formula
from trine.models.lesson import lesson_of
from trine.models.lstm import marked_sequences, unroll
from trine.models.recurrent_steps import recurrent_steps
from trine.models.snapshots import quantities

STEPS, BATCH, INPUTS, UNITS = 6, 3, 2, 4
GATES = {
    "rnn": ("dz",),
    "gru": ("dz_r", "dz_z", "dz_n"),
    "lstm": ("dz_i", "dz_f", "dz_g", "dz_o"),
}


class Layer(nn.Module):
    """One recurrent op from given first states; its outputs and its last states make the result."""

    def __init__(self, op: str, *, bias: bool = True, **options) -> None:
        super().__init__()
        rows = len(GATES[op]) * UNITS
        self.op, self.options = op, options
        shapes = {"w_ih": (rows, INPUTS), "w_hh": (rows, UNITS)}
        shapes |= {"b_ih": (rows,), "b_hh": (rows,)} if bias else {}
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(0.5 * trine.randn(*shape, dtype="float64")))
        states = [trine.randn(BATCH, UNITS, dtype="float64") for _ in range(1 + (op == "lstm"))]
        self.first = tuple(states) if op == "lstm" else states[0]

    def forward(self, x):
        weights = [getattr(self, name, None) for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
        out, last = getattr(F, self.op)(x, self.first, *weights, **self.options)
        for n, state in enumerate(last if self.op == "lstm" else (last,)):
            out = out + (n + 2.0) * state
        return out


def squares(out, target):
    return ((out - target) ** 2).sum()


@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("rnn", {}),
        ("rnn", {"nonlinearity": "relu"}),
        ("gru", {}),
        ("lstm", {}),
        ("gru", {"bias": False}),
        ("lstm", {"reverse": True}),
        ("gru", {"lengths": [6, 2, 4]}),
        ("rnn", {"lengths": [3, 6, 1], "reverse": True}),
        ("lstm", {"lengths": [5, 1, 6], "reverse": True}),
    ],
)
def test_steps_are_the_fused_layers(op, options, backend_name):
    trine.seed(2)
    layer = Layer(op, **options)
    x = trine.randn(STEPS, BATCH, INPUTS, dtype="float64", requires_grad=True)
    target = trine.randn(STEPS, BATCH, UNITS, dtype="float64")
    squares(layer(x), target).backward()
    anatomy = record(layer, x, target, loss=squares)
    part = next(part for part in anatomy.parts if part.op == op)
    steps = [recurrent_steps(part, n) for n in range(BATCH)]
    w_ih = layer.w_ih.detach().numpy()
    total = 0.0
    for n, step in enumerate(steps):
        assert step["h"] == pytest.approx(part.output[:, n], rel=1e-9, abs=1e-12)
        dz = np.concatenate([step[name] for name in GATES[op]], axis=1)
        assert dz.any()
        assert dz @ w_ih == pytest.approx(
            x.grad.numpy()[:, n], rel=1e-9, abs=1e-12
        )  # dx_t, step by step
        total = total + dz.T @ x.detach().numpy()[:, n]
    assert total == pytest.approx(layer.w_ih.grad.numpy(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "gates", "shape"),
    [
        ("gru-memory", {"r1", "z1", "m1", "n1", "h1", "dh1", "dz_r1", "dz_z1", "dz_n1"}, (150, 1)),
        ("elman", {"z1", "h1", "dh1", "dz1"}, (12, 4)),
    ],
)
def test_registered_nets_show_every_time_step(name, gates, shape):
    anatomy = lesson_of(models.get(name), "numpy", "float64", 0)[0][1]
    part = anatomy.parts[0]
    found = {q.symbol: q for q in quantities(part, anatomy, 1) if q.steps}
    assert set(found) == gates
    for quantity in found.values():
        assert quantity.small
        assert quantity.value.shape == shape
    assert found["h1"].value == pytest.approx(part.output[:, 1, : shape[1]], rel=1e-9, abs=1e-12)


def test_formulas_have_the_layers_symbols():
    part = lesson_of(models.get("gru-memory"), "numpy", "float64", 0)[0][1].parts[0]
    assert formula(part).startswith("a1: r, z = s(W_ih1 a0_t + b_ih1 + W_hh1 h_(t-1) + b_hh1);  ")
    assert "m = W_hh1 h_(t-1) + b_hh1" in formula(part)
    assert "dC/da0_t = W_ih1^T (dz_r, dz_z, dz_n)" in backward_formulas(part)


def sequence(x, w, b):
    """Return h (T, H) and the last c by equations 4-1 to 4-6, gates stacked g, i, f, o."""
    h = c = np.zeros(len(b) // 4)
    out = []
    for x_t in x:
        g, i, f, o = np.split(w @ np.concatenate([x_t, h]) + b, 4)
        i, f, o = (1 / (1 + np.exp(-z)) for z in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        out.append(h)
    return np.stack(out), c


def test_the_lstms_equations_are_the_gradients_of_its_forward_pass():
    """Equations 4-7 to 4-12 against central differences of 4-1 to 4-6, written out once more."""
    rng = np.random.default_rng(3)
    given = {"dx": (5, 2), "dw": (12, 5), "db": (12,)}
    x, w, b = (rng.normal(size=shape) for shape in given.values())
    error, error_c = rng.normal(size=(5, 3)), rng.normal(size=3)

    def cost():
        h, c = sequence(x, w, b)
        return (h * error).sum() + c @ error_c

    found = unroll(x, w, b, error, error_c)
    h, c = sequence(x, w, b)
    assert found.h == pytest.approx(h, abs=1e-14)
    assert found.c[-1] == pytest.approx(c, abs=1e-14)
    for name, array in zip(given, (x, w, b), strict=True):
        expected = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            before = array[place]
            array[place] = before + 1e-5
            above = cost()
            array[place] = before - 1e-5
            expected[place] = (above - cost()) / 2e-5
            array[place] = before
        assert getattr(found, name) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_fused_lstm_is_its_equations(dtype, backend_name):
    note = models.explain("lstm", backend=backend_name, dtype=dtype)
    assert note.failures() == []
    compared = [row for row in note.rows if "equations" in row.formula or "same" in row.formula]
    assert [row.symbol for row in compared] == [
        f"max |{name}|" for name in ("h_t", "c_T", "dW", "db", "db_ih - db_hh", "dx_t")
    ]
    largest = {"float64": 1e-8, "float32": 1e-6}[dtype]
    assert max(row.value for row in compared) <= largest


def test_the_marks_of_a_sequence_decide_its_class():
    splits = marked_sequences(train=300, test=1)
    for symbols, label in zip(splits.train.x.argmax(2), splits.train.y, strict=True):
        first, second = symbols[symbols < 2]
        assert label == 2 * first + second
    assert np.bincount(splits.train.y, minlength=4).min() > 50


def test_errors_need_a_backward_pass():
    trine.seed(0)
    with trine.use("numpy"):
        layer = Layer("gru")
        part = record(layer, trine.randn(STEPS, BATCH, INPUTS, dtype="float64")).parts[0]
    assert set(recurrent_steps(part, 0)) == {"r", "z", "m", "n", "h"}
