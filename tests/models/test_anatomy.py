"""The record of a model's ops: symbols, numbers put into formulas, windows, winners, gates."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

import trine
import trine.functional as F
from trine import models, nn
from trine.autograd import watching
from trine.models.anatomy import record
from trine.models.formulas import formula
from trine.models.lesson import lesson_of, moments
from trine.models.snapshots import as_csv, quantities, snapshot
from trine.models.worked import slope, window, winners, worked


@pytest.fixture
def net(backend_name):
    with trine.use(backend_name):
        trine.seed(4)
        model = nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2),
        )  # fmt: skip
        x = trine.randn(3, 2, 8, 8)
        target = trine.tensor([0, 1, 1])
        yield model, x, target, record(model, x, target, loss=F.cross_entropy, rate=0.1)


def test_symbols_follow_the_layers(net):
    symbols = [(p.op, p.symbol, [o.symbol for o in p.inputs]) for p in net[3].parts]
    assert symbols == [
        ("conv2d", "z1", ["a0", "W1", "b1"]),
        ("tanh", "a1", ["z1"]),
        ("max_pool2d", "p1", ["a1"]),
        ("linear", "z2", ["p1", "W2", "b2"]),
        ("relu", "a2", ["z2"]),
        ("linear", "z3", ["a2", "W3", "b3"]),
        ("cross_entropy", "C", ["z3", "t"]),
    ]
    assert net[3].parts[0].path == "0 (Conv2d)"


def test_numbers_are_the_models_own(net):
    model, x, target, anatomy = net
    out = model(x)
    cost = F.cross_entropy(out, target)
    assert anatomy.cost == pytest.approx(cost.item(), rel=1e-5)
    assert anatomy.output == pytest.approx(out.detach().numpy(), rel=1e-4, abs=1e-6)
    model.zero_grad()
    cost.backward()
    for path, parameter in model.named_parameters():
        # The model alone runs with its activations fused.
        assert anatomy.grads[path] == pytest.approx(parameter.grad.numpy(), rel=1e-4, abs=1e-6)
        new = anatomy.weights[path] - 0.1 * anatomy.grads[path]
        assert np.array_equal(anatomy.updated(path), new)


def test_errors_obey_the_equations(net):
    parts = {p.symbol: p for p in net[3].parts}
    grads = net[3].grads
    delta = parts["z2"].delta
    assert parts["a2"].delta * slope(parts["a2"]) == pytest.approx(delta, abs=1e-6)  # BP1, BP2
    rows = parts["p1"].output.reshape(3, 12)
    assert delta.T @ rows == pytest.approx(grads["4.weight"], abs=1e-6)  # BP3
    assert delta.sum(axis=0) == pytest.approx(grads["4.bias"], abs=1e-6)  # BP4


def test_windows_and_winners(net):
    parts = {p.symbol: p for p in net[3].parts}
    conv, pool = parts["z1"], parts["p1"]
    bias = conv.inputs[2].value
    for k, i, j in np.ndindex(*conv.output.shape[1:]):
        products = window(conv, 1, (k, i, j)) * conv.inputs[1].value[k]
        assert products.sum() + bias[k] == pytest.approx(conv.output[1, k, i, j], abs=1e-5)
    where = winners(pool, 1)
    for c, i, j in np.ndindex(*pool.output.shape[1:]):
        h, w = where[c, i, j]
        assert pool.inputs[0].value[1, c, h, w] == pool.output[1, c, i, j]
        assert (h // 2, w // 2) == (i, j)


def test_formulas_have_their_numbers(net):
    parts = {p.symbol: p for p in net[3].parts}
    assert formula(parts["z1"]) == (
        "z1[k,i,j] = sum over c,r,s of W1[k,c,r,s] a0[c,2 i-1+r,2 j-1+s] + b1[k]"
    )
    assert formula(parts["z3"]) == "z3 = W3 a2 + b3"
    line = worked(parts["z3"], 2)[0]
    left, right = line.removeprefix("z3[1] = ").split(" = ")
    value = sum(eval(term.replace("·", "*")) for term in left.split(" + "))
    assert value == pytest.approx(float(right), abs=1e-4)
    assert float(right) == pytest.approx(parts["z3"].output[2, 0], rel=1e-5)


def test_tables_and_steps_hold_the_same_numbers(net):
    anatomy = net[3]
    rows = list(csv.DictReader(io.StringIO(as_csv([(0, anatomy)], 1))))
    z3 = [float(r["value"]) for r in rows if r["quantity"] == "z3"]
    assert z3 == pytest.approx(anatomy.parts[-2].output[1].tolist())
    step = snapshot(anatomy, 1)
    assert step["q"]["z3"] == pytest.approx(z3, rel=1e-9)
    names = [q.symbol for q in quantities(anatomy.parts[3], anatomy, 1)]
    assert names == ["z2", "dC/dz2", "W2", "dC/dW2", "W2'", "b2", "dC/db2", "b2'"]


def test_functions_are_seen_as_well_as_layers():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.full = nn.Linear(3, 2)

        def forward(self, x):
            return (self.full(x).sigmoid() * 2.0).exp()

    anatomy = record(Mixed(), trine.ones(1, 3))
    assert [p.op for p in anatomy.parts] == ["linear", "sigmoid", "mul", "exp"]
    assert anatomy.cost is None
    assert anatomy.grads == {}


def test_watching_ends_with_its_block():
    seen = []
    w = trine.ones(2, requires_grad=True)
    with watching(lambda op, *_: seen.append(op.name)):
        (w * 2.0).sum()
    (w + 1.0).sum()
    assert seen == ["mul", "sum"]


@pytest.mark.parametrize("steps", [0, 1, 23, 24, 1000])
def test_a_lesson_looks_at_its_first_and_last_step(steps):
    looked = moments(steps)
    assert looked[0] == 0
    assert looked[-1] == steps
    assert len(looked) <= 25


@pytest.mark.parametrize("name", ["hand", "xor", "signal-flow", "single-neuron", "little-demon"])
def test_lessons_learn(name):
    found = lesson_of(models.get(name), "numpy", "float64", 30)
    assert found[-1][1].cost < found[0][1].cost
