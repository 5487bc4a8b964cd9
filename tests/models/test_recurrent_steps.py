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


def test_errors_need_a_backward_pass():
    trine.seed(0)
    with trine.use("numpy"):
        layer = Layer("gru")
        part = record(layer, trine.randn(STEPS, BATCH, INPUTS, dtype="float64")).parts[0]
    assert set(recurrent_steps(part, 0)) == {"r", "z", "m", "n", "h"}
