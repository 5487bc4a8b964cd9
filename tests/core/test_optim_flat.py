"""Flat buffers: views, tying, freezing, moving, ownership, state."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

import trine
from trine import nn, optim
from trine.kernels import registry
from trine.nn import init


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def train(net: nn.Module, optimizer: optim.Optimizer, steps: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    weight = next(net.parameters())
    for _ in range(steps):
        x = trine.tensor(rng.normal(size=(4, 3)), weight.dtype, backend=weight.backend)
        optimizer.zero_grad()
        (net(x) ** 2).sum().backward()
        optimizer.step()


def values(net: nn.Module) -> list[np.ndarray]:
    return [p.detach().numpy().copy() for p in net.parameters()]


def count_updates(monkeypatch: pytest.MonkeyPatch, optimizer: optim.Optimizer) -> list[int]:
    sizes: list[int] = []
    update = optimizer._update

    def counted(backend: Any, run: Any, lr: Any, options: Any) -> None:
        sizes.append(run.last - run.first)
        update(backend, run, lr, options)

    monkeypatch.setattr(optimizer, "_update", counted)
    return sizes


def test_parameters_and_gradients_are_aligned_views_of_one_array(backend_name: str) -> None:
    net = model()
    before = values(net)
    optimizer = optim.Adam(net.parameters())
    (buffer,) = optimizer._groups[0].buffers
    train(net, optimizer, 1)
    for parameter, old in zip(net.parameters(), before, strict=True):
        assert np.shares_memory(parameter.data, buffer.data)
        assert np.shares_memory(parameter.grad.data, buffer.grad)
        assert parameter.data.ctypes.data % 64 == 0
        assert parameter.grad.data.ctypes.data % 64 == 0
        assert np.any(parameter.detach().numpy() != old)
    fresh = model()
    kept = values(fresh)
    optim.SGD(fresh.parameters())
    for a, b in zip(values(fresh), kept, strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_call_updates_everything(backend_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = model()
    optimizer = optim.SGD(net.parameters())
    sizes = count_updates(monkeypatch, optimizer)
    train(net, optimizer, 3)
    assert sizes == [4, 4, 4]


def test_frozen_parameters_split_the_call_and_stay(
    backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = model()
    optimizer = optim.Adam(net.parameters(), weight_decay=0.1)
    train(net, optimizer, 1)
    sizes = count_updates(monkeypatch, optimizer)
    net[0].bias.requires_grad_(False)
    before = values(net)
    train(net, optimizer, 1)
    assert sizes == [1, 2]
    after = values(net)
    np.testing.assert_array_equal(after[1], before[1])
    assert all(np.any(after[i] != before[i]) for i in (0, 2, 3))
    net[0].bias.requires_grad_(True)
    train(net, optimizer, 1)
    assert sizes == [1, 2, 1, 1, 2]  # the thawed one is a step behind
    assert optimizer.state_dict()["arrays"]["0.float32.steps"].tolist() == [3, 2, 3, 3]
    assert np.any(values(net)[1] != before[1])


def test_tied_parameters_are_stepped_once(backend_name: str) -> None:
    weight = nn.Parameter(trine.ones(2))
    optimizer = optim.SGD([weight, weight], lr=1.0)
    (weight + weight).sum().backward()
    optimizer.step()
    assert weight.tolist() == [-1, -1]
    assert optimizer.state_dict()["meta"]["groups"][0]["parameters"] == [["float32", [2]]]


def test_values_loaded_or_set_in_place_land_in_the_buffer(backend_name: str) -> None:
    net = model()
    optimizer = optim.SGD(net.parameters(), lr=0.5)
    net.load_state_dict({name: t.numpy() * 0 + 3 for name, t in net.state_dict().items()})
    init.ones_(net[0].bias)
    (buffer,) = optimizer._groups[0].buffers
    assert np.all(buffer.data[:15] == 3)
    assert np.all(buffer.data[buffer.offsets[1] : buffer.offsets[1] + 5] == 1)


def test_data_assigned_from_outside_is_taken_over(backend_name: str) -> None:
    weight = nn.Parameter(trine.ones(3))
    optimizer = optim.SGD([weight], lr=1.0)
    weight.data = trine.tensor([5.0, 6.0, 7.0]).data
    weight.sum().backward()
    optimizer.step()
    assert weight.tolist() == [4, 5, 6]
    assert np.shares_memory(weight.data, optimizer._groups[0].buffers[0].data)
    weight.data = trine.ones(2).data
    with pytest.raises(ValueError, match=r"expected parameter 0 of shape \(3,\), but its data"):
        optimizer.step()


def test_gradients_assigned_from_outside_are_used(backend_name: str) -> None:
    weight = nn.Parameter(trine.ones(3))
    optimizer = optim.SGD([weight], lr=1.0)
    weight.grad = trine.tensor([1.0, 2.0, 3.0])
    optimizer.step()
    assert weight.tolist() == [0, -1, -2]
    weight.grad = trine.ones(2)
    with pytest.raises(ValueError, match=r"expected the gradient of a parameter \(3,\)"):
        optimizer.step()


def test_gradients_add_up_until_zero_grad(backend_name: str) -> None:
    weight = nn.Parameter(trine.ones(2))
    optimizer = optim.SGD([weight], lr=1.0)
    for _ in range(3):
        weight.sum().backward()
    assert weight.grad.tolist() == [3, 3]
    optimizer.zero_grad()
    assert weight.grad is None
    weight.sum().backward()
    assert weight.grad.tolist() == [1, 1]
    optimizer.zero_grad(set_to_none=False)
    assert weight.grad.tolist() == [0, 0]
    optimizer.step()
    assert weight.tolist() == [1, 1]


def test_a_graph_from_before_the_step_is_refused(backend_name: str) -> None:
    weight = nn.Parameter(trine.ones(2))
    optimizer = optim.SGD([weight])
    loss = (weight * weight).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(trine.GraphError, match="changed in place"):
        loss.backward()


def test_the_older_of_two_optimisers_is_stopped(backend_name: str) -> None:
    net = model()
    older = optim.SGD(net.parameters())
    train(net, older, 1)
    newer = optim.Adam(net[2].parameters())
    for call in (older.step, older.zero_grad, older.grad_norm, older.state_dict):
        with pytest.raises(ValueError, match="a later optimiser took 2 of them over"):
            call()
    train(net, newer, 1)


def test_a_deep_copy_leaves_the_optimiser(backend_name: str) -> None:
    net = model()
    optimizer = optim.SGD(net.parameters(), lr=1.0)
    train(net, optimizer, 1)
    twin = copy.deepcopy(net)
    before = values(twin)
    train(net, optimizer, 1)
    for a, b in zip(values(twin), before, strict=True):
        np.testing.assert_array_equal(a, b)
    train(twin, optim.SGD(twin.parameters()), 1)
    train(net, optimizer, 1)  # still owns its own


@pytest.mark.parametrize("kind", [optim.Adam, optim.SGD])
def test_moving_the_model_takes_the_state_along(kind: Any) -> None:
    options = {"momentum": 0.9} if kind is optim.SGD else {}
    with trine.use("numpy"):
        trine.seed(0)
        stays, moves = model().double(), model().double()
    moves.load_state_dict(stays.state_dict())
    first = kind(stays.parameters(), lr=0.01, **options)
    second = kind(moves.parameters(), lr=0.01, **options)
    train(stays, first, 3)
    train(moves, second, 3)
    moves.to("numba")
    train(stays, first, 3, seed=1)
    train(moves, second, 3, seed=1)
    assert second.backend.name == "numba"
    for a, b in zip(values(stays), values(moves), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert np.shares_memory(next(moves.parameters()).data, second._groups[0].buffers[0].data)
    moves.to(dtype="float32")
    train(moves, second, 1)
    arrays = second.state_dict()["arrays"]
    assert arrays["0.float32.steps"].tolist() == [7, 7, 7, 7]


def test_a_move_between_backward_and_step_keeps_the_gradients() -> None:
    weight = nn.Parameter(trine.ones(3, backend="numpy"))
    net = nn.Module()
    net.weight = weight
    optimizer = optim.SGD([weight], lr=1.0)
    weight.sum().backward()
    net.to("numba", dtype="float64")
    weight.sum().backward()
    optimizer.step()
    assert weight.tolist() == [-1, -1, -1]
    assert weight.backend.name == "numba"
    assert weight.dtype == np.float64


def test_after_a_move_gradients_do_not_go_to_the_old_buffer() -> None:
    net = nn.Linear(2, 2, bias=False, backend="numpy")
    optimizer = optim.SGD(net.parameters())
    net.to("numba", dtype="float64")
    net(trine.ones(1, 2, dtype="float64", backend="numba")).sum().backward()
    assert net.weight.grad.dtype == np.float64
    assert not np.shares_memory(net.weight.grad.data, optimizer._groups[0].buffers[0].grad)


def test_a_model_on_two_backends_is_refused() -> None:
    net = model().to("numpy")
    optimizer = optim.SGD(net.parameters())
    net[0].to("numba")
    with pytest.raises(trine.BackendError, match="expected all parameters on one backend"):
        optimizer.step()


def test_mixed_dtypes_have_a_buffer_each(backend_name: str) -> None:
    a, b = nn.Parameter(trine.ones(3)), nn.Parameter(trine.ones(2, dtype="float64"))
    optimizer = optim.SGD([a, b], lr=1.0, momentum=0.9)
    a.sum().backward()
    b.sum().backward()
    np.testing.assert_allclose(trine.Tensor(optimizer.grad_norm(), a.backend).item(), 5**0.5)
    optimizer.step()
    assert a.tolist() + b.tolist() == [0] * 5
    names = set(optimizer.state_dict()["arrays"])
    assert {"0.float32.momentum_buffer", "0.float64.momentum_buffer"} <= names


def test_a_state_continues_byte_by_byte_through_json(backend_name: str) -> None:
    options: dict[str, Any] = {"lr": 0.01, "betas": (0.8, 0.95), "weight_decay": 0.01}
    trine.seed(1)
    net = model()
    optimizer = optim.Adam([{"params": net[0].parameters()}, {"params": net[2].parameters()}])
    optimizer.param_groups[1].update(options)
    net[2].bias.requires_grad_(False)
    train(net, optimizer, 2)
    net[2].bias.requires_grad_(True)
    train(net, optimizer, 2)
    saved = optimizer.state_dict()
    weights = {name: t.numpy().copy() for name, t in net.state_dict().items()}

    def go_on(net: nn.Sequential, optimizer: optim.Optimizer) -> None:
        for thawed in (False, True, True):
            net[2].bias.requires_grad_(thawed)
            train(net, optimizer, 1, seed=5)

    go_on(net, optimizer)
    meta = json.loads(json.dumps(saved["meta"]))

    twin = model()
    twin.load_state_dict(weights)
    other = optim.Adam([{"params": twin[0].parameters()}, {"params": twin[2].parameters()}])
    other.load_state_dict({"arrays": saved["arrays"], "meta": meta})
    assert other.param_groups[1]["betas"] == (0.8, 0.95)
    assert other.param_groups[1]["lr"] == 0.01
    go_on(twin, other)
    for a, b in zip(values(net), values(twin), strict=True):
        assert a.tobytes() == b.tobytes()
    theirs, ours = other.state_dict(), optimizer.state_dict()
    assert theirs["meta"] == ours["meta"]
    for name, array in ours["arrays"].items():
        assert theirs["arrays"][name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s["meta"].update(optimizer="SGD"), "expected a state with optimizer 'Adam'"),
        (lambda s: s["meta"].update(format=99), "expected a state with format 1, got 99"),
        (lambda s: s["meta"]["groups"].pop(), "expected the state of groups"),
        (lambda s: s["arrays"].pop("0.float32.exp_avg"), "missing: .'0.float32.exp_avg'."),
        (lambda s: s["arrays"].update(x=np.ones(1)), "extra: .'x'."),
        (
            lambda s: s["arrays"].update({"0.float32.steps": np.ones(3, np.int64)}),
            r"expected 0.float32.steps as int64 \(4,\), got int64 \(3,\)",
        ),
        (
            lambda s: s["arrays"].update({"0.float32.exp_avg": np.ones(80)}),
            "expected 0.float32.exp_avg as float32",
        ),
        (lambda s: s.clear(), "expected a state with format 1, got None"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_whole(spoil: Any, message: str) -> None:
    net = model()
    optimizer = optim.Adam(net.parameters())
    train(net, optimizer, 2)
    state = copy.deepcopy(optimizer.state_dict())
    train(net, optimizer, 1)
    before = copy.deepcopy(optimizer.state_dict())
    spoil(state)
    with pytest.raises(trine.CheckpointError, match=message):
        optimizer.load_state_dict(state)
    for name, array in optimizer.state_dict()["arrays"].items():
        np.testing.assert_array_equal(array, before["arrays"][name])


def test_the_norm_counts_every_gradient_once(backend_name: str) -> None:
    net = model()
    optimizer = optim.SGD([{"params": net[0].parameters()}, {"params": net[2].parameters()}])
    assert optimizer.grad_norm().tolist() == [0.0]
    train(net, optimizer, 1)
    net[0].bias.grad = None
    gradients = [p.grad.numpy() for p in net.parameters() if p.grad is not None]
    wanted = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients))
    norm = optimizer.grad_norm()
    assert norm.dtype == np.float64
    assert norm.shape == (1,)
    np.testing.assert_allclose(norm, [wanted], rtol=1e-12)


def test_numba_steps_run_kernels() -> None:
    ops = ["sgd_step", "adam_step", "rmsprop_step", "adagrad_step", "unit_step", "sum_squares"]
    assert all(registry.kernels(op, "numba") for op in ops)
