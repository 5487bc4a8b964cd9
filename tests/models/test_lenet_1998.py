"""`lenet5-1998`: the paper's numbers of parameters, its table, its codes, its cost, and digits."""

from __future__ import annotations

import math

import numpy as np
import pytest

import trine
from trine import models
from trine.models.lenet_1998 import (
    RUBBISH,
    SEEN_BY,
    Subsampling,
    TableConv,
    build,
    map_cost,
    pictures,
    squash,
)


def test_every_layer_has_the_papers_number_of_parameters() -> None:
    counts: dict[str, int] = {}
    for name, parameter in build().named_parameters():
        layer = name.split(".")[0]
        counts[layer] = counts.get(layer, 0) + parameter.numel()
    assert counts == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48_120, "f6": 10_164}
    assert models.get("lenet5-1998").parameters == 60_000


def test_the_table_is_the_papers() -> None:
    assert [len(seen) for seen in SEEN_BY] == [3] * 6 + [4] * 9 + [6]
    assert len(set(SEEN_BY)) == 16
    # Table I counted by rows: each map of S2 is seen by ten maps of C3.
    assert np.bincount(np.concatenate(SEEN_BY)).tolist() == [10] * 6
    row0 = "X...XXX..XXXX.XX"
    assert "".join("X" if 0 in seen else "." for seen in SEEN_BY) == row0


def test_a_map_depends_on_the_maps_of_its_row_alone(backend_name: str) -> None:
    layer = TableConv(SEEN_BY, 6)
    x = np.random.default_rng(0).normal(size=(1, 6, 7, 7)).astype(np.float32)
    before = layer(trine.tensor(x)).detach().numpy().copy()
    for changed in range(6):
        other = x.copy()
        other[:, changed] += 1.0
        moved = np.abs(layer(trine.tensor(other)).detach().numpy() - before).max(axis=(0, 2, 3))
        assert [bool(m > 0) for m in moved] == [changed in seen for seen in SEEN_BY]


def test_the_table_convolution_is_a_sum_over_its_kernels(backend_name: str) -> None:
    layer = TableConv(((1,), (0, 2)), 3)
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 5)).astype(np.float32)
    kernels = layer.weight.detach().numpy().reshape(3, 5, 5)
    bias = np.array([0.5, -1.0], dtype=np.float32)
    with trine.no_grad():
        layer.bias.copy_(trine.tensor(bias))
    expected = np.stack(
        [
            (x[:, 1] * kernels[0]).sum(axis=(1, 2)),
            (x[:, 0] * kernels[1] + x[:, 2] * kernels[2]).sum(axis=(1, 2)),
        ],
        axis=1,
    )
    found = layer(trine.tensor(x)).detach().numpy()[:, :, 0, 0]
    np.testing.assert_allclose(found, expected + bias, rtol=1e-5, atol=1e-5)


def test_weights_start_with_one_over_the_root_of_a_units_inputs() -> None:
    model = build()
    for layer, inputs in ((model.c1, 25), (model.c5, 400), (model.f6, 120)):
        weight = layer.weight.detach().numpy()
        assert weight.std() * inputs**0.5 == pytest.approx(1.0, abs=0.15)
        assert not layer.bias.detach().numpy().any()
    kernels = model.c3.weight.detach().numpy()
    inputs = np.repeat([25 * len(seen) for seen in SEEN_BY], [len(seen) for seen in SEEN_BY])
    for size in (75, 100, 150):
        assert kernels[inputs == size].std() * size**0.5 == pytest.approx(1.0, abs=0.15)


def test_subsampling_is_coefficient_times_sum_plus_bias(backend_name: str) -> None:
    layer = Subsampling(1)
    with trine.no_grad():
        layer.weight.fill_(0.5)
        layer.bias.fill_(-1.0)
    out = layer(trine.tensor(np.array([[[[1.0, 2.0], [3.0, 4.0]]]], dtype=np.float32)))
    assert out.item() == 4.0
    out.sum().backward()
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    assert (layer.weight.grad.item(), layer.bias.grad.item()) == (10.0, 1.0)


def test_squash_passes_through_one() -> None:
    out = squash(trine.tensor([1.0, -1.0, 100.0], backend="numpy")).numpy()
    np.testing.assert_allclose(out, [1.0, -1.0, 1.7159], atol=1e-4)


def test_codes_are_ten_different_pictures() -> None:
    codes = pictures()
    assert codes.shape == (10, 84)
    assert set(np.unique(codes)) == {-1.0, 1.0}
    distances = ((codes[:, None] - codes[None]) ** 2).sum(axis=2)
    assert distances[~np.eye(10, dtype=bool)].min() >= 4 * 4  # at least four cells apart


def test_codes_are_fixed_and_outputs_are_distances_from_them(backend_name: str) -> None:
    model = build()
    assert "codes" not in dict(model.named_parameters())
    seen = []
    model.f6.register_forward_hook(lambda module, args, out: seen.append(squash(out)))
    x = np.random.default_rng(2).random((3, 1, 28, 28)).astype(np.float32)
    scores = model(trine.tensor(x)).detach().numpy()
    states = seen[0].detach().numpy()
    expected = -((states[:, None] - pictures()[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_the_cost_is_equation_9() -> None:
    y = np.array([[3.0, 0.5, 2.0], [1.0, 4.0, 0.2]])
    target = np.array([1, 0])
    rest = np.log(math.exp(-RUBBISH) + np.exp(-y).sum(axis=1))
    expected = (y[np.arange(2), target] + rest).mean()
    with trine.use("numpy"):
        found = map_cost(trine.tensor(-y), trine.tensor(target))
    assert found.item() == pytest.approx(expected, rel=1e-12)
