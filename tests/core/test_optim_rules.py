"""Optimisers against their textbook rules, written out parameter by parameter in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import trine
from trine import nn, optim

Rule = Callable[[np.ndarray, np.ndarray, dict[str, Any], Any], np.ndarray]


def sgd(p: np.ndarray, g: np.ndarray, s: dict[str, Any], o: Any) -> np.ndarray:
    g = g + o["weight_decay"] * p
    if not o["momentum"]:
        return p - o["lr"] * g
    first = "v" not in s
    s["v"] = g if first else o["momentum"] * s["v"] + (1 - o["dampening"]) * g
    return p - o["lr"] * (g + o["momentum"] * s["v"] if o["nesterov"] else s["v"])


def adam(p: np.ndarray, g: np.ndarray, s: dict[str, Any], o: Any) -> np.ndarray:
    if o.get("decoupled"):
        p = p - o["lr"] * o["weight_decay"] * p
    else:
        g = g + o["weight_decay"] * p
    (b1, b2), t = o["betas"], s.get("t", 0) + 1
    m = b1 * s.get("m", 0) + (1 - b1) * g
    v = b2 * s.get("v", 0) + (1 - b2) * g**2
    s.update(m=m, v=v, t=t)
    return p - o["lr"] * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + o["eps"])


def adamw(p: np.ndarray, g: np.ndarray, s: dict[str, Any], o: Any) -> np.ndarray:
    return adam(p, g, s, {**o, "decoupled": True})


def rmsprop(p: np.ndarray, g: np.ndarray, s: dict[str, Any], o: Any) -> np.ndarray:
    g = g + o["weight_decay"] * p
    s["v"] = o["alpha"] * s.get("v", 0) + (1 - o["alpha"]) * g**2
    spread = s["v"]
    if o["centered"]:
        s["a"] = o["alpha"] * s.get("a", 0) + (1 - o["alpha"]) * g
        spread = spread - s["a"] ** 2
    step = g / (np.sqrt(spread) + o["eps"])
    s["b"] = o["momentum"] * s.get("b", 0) + step
    return p - o["lr"] * s["b"]


def adagrad(p: np.ndarray, g: np.ndarray, s: dict[str, Any], o: Any) -> np.ndarray:
    g = g + o["weight_decay"] * p
    s["sum"] = s.get("sum", o["initial_accumulator_value"]) + g**2
    rate = o["lr"] / (1 + s.get("t", 0) * o["lr_decay"])
    s["t"] = s.get("t", 0) + 1
    return p - rate * g / (np.sqrt(s["sum"]) + o["eps"])


CASES: list[tuple[type[optim.Optimizer], dict[str, Any], Rule]] = [
    (optim.SGD, {"lr": 0.1}, sgd),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1}, sgd),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, sgd),
    (optim.Adam, {"lr": 0.05, "weight_decay": 0.1}, adam),
    (optim.AdamW, {"lr": 0.05, "betas": (0.8, 0.9), "weight_decay": 0.1}, adamw),
    (optim.RMSprop, {}, rmsprop),
    (optim.RMSprop, {"momentum": 0.5, "centered": True, "weight_decay": 0.1}, rmsprop),
    (optim.Adagrad, {"lr": 0.1, "lr_decay": 0.5, "initial_accumulator_value": 0.1}, adagrad),
]
IDS = [f"{kind.__name__}-{'-'.join(options) or 'default'}" for kind, options, _ in CASES]
SHAPES = [(3, 4), (5,), (), (2, 1, 3), (17,)]


def start(dtype: str) -> list[nn.Parameter]:
    rng = np.random.default_rng(1)
    return [nn.Parameter(trine.tensor(np.asarray(rng.normal(size=s)), dtype)) for s in SHAPES]


def give(parameters: list[nn.Parameter], without: set[int], step: int) -> list[Any]:
    """Back-propagate known gradients into all parameters but some; return them."""
    rng = np.random.default_rng(10 + step)
    given: list[Any] = []
    total: Any = None
    for index, parameter in enumerate(parameters):
        gradient = np.asarray(rng.normal(size=parameter.shape))
        given.append(None if index in without else gradient)
        if index not in without:
            upstream = trine.tensor(gradient, parameter.dtype)
            part = (parameter * upstream).sum()
            total = part if total is None else total + part
    if total is not None:
        total.backward()
    return given


# Which parameters have no gradient in each step: runs that split, join and change their histories.
ABSENT: list[set[int]] = [set(), {1}, {1, 3}, set(), {0, 4}, set(range(5)), set()]


@pytest.mark.parametrize(("kind", "options", "rule"), CASES, ids=IDS)
def test_steps_follow_the_rule_for_every_parameter(
    backend_name: str, kind: Any, options: dict[str, Any], rule: Rule
) -> None:
    parameters = start("float64")
    optimizer = kind(parameters, **options)
    wanted = [p.detach().numpy().copy() for p in parameters]
    states: list[dict[str, Any]] = [{} for _ in parameters]
    for step, absent in enumerate(ABSENT):
        optimizer.zero_grad()
        gradients = give(parameters, absent, step)
        optimizer.step()
        for i, g in enumerate(gradients):
            if g is not None:
                wanted[i] = rule(wanted[i], g, states[i], optimizer.param_groups[0])
        for parameter, value in zip(parameters, wanted, strict=True):
            np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("kind", "options", "rule"), CASES, ids=IDS)
def test_float32_stays_float32(
    backend_name: str, kind: Any, options: dict[str, Any], rule: Rule
) -> None:
    parameters, twins = start("float32"), start("float64")
    first, second = kind(parameters, **options), kind(twins, **options)
    for step in range(3):
        for optimizer, tensors in ((first, parameters), (second, twins)):
            optimizer.zero_grad()
            give(tensors, set(), step)
            optimizer.step()
    for parameter, twin in zip(parameters, twins, strict=True):
        assert parameter.dtype == np.float32
        np.testing.assert_allclose(
            parameter.detach().numpy(), twin.detach().numpy(), rtol=2e-4, atol=1e-5
        )
    arrays = first.state_dict()["arrays"]
    assert {a.dtype.name for name, a in arrays.items() if "steps" not in name} <= {"float32"}


def test_unit_descent_walks_a_fixed_length(backend_name: str) -> None:
    parameters = start("float64")
    before = [p.detach().numpy().copy() for p in parameters]
    optimizer = optim.UnitDescent(parameters, lr=0.25)
    gradients = give(parameters, {2}, 0)
    optimizer.step()
    norm = np.sqrt(sum((g**2).sum() for g in gradients if g is not None))
    moves = [p.detach().numpy() - b for p, b in zip(parameters, before, strict=True)]
    np.testing.assert_allclose(np.sqrt(sum((m**2).sum() for m in moves)), 0.25, rtol=1e-12)
    np.testing.assert_allclose(moves[0], -0.25 * gradients[0] / norm, rtol=1e-12)
    assert np.all(moves[2] == 0)


def test_unit_descent_stays_where_the_gradient_is_zero(backend_name: str) -> None:
    parameter = nn.Parameter(trine.ones(3))
    optimizer = optim.UnitDescent([parameter])
    (parameter * 0).sum().backward()
    optimizer.step()
    assert parameter.tolist() == [1, 1, 1]


def test_groups_have_options_of_their_own(backend_name: str) -> None:
    a, b = nn.Parameter(trine.ones(3)), nn.Parameter(trine.ones(2))
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.25)
    optimizer.add_param_group({"params": [nn.Parameter(trine.ones(1))], "weight_decay": 0.1})
    (a.sum() + 2 * b.sum()).backward()
    optimizer.step()
    assert a.tolist() == [0.75] * 3
    assert b.tolist() == [0.0] * 2
    optimizer.param_groups[1]["lr"] = 0.125  # the way of PyTorch's users
    optimizer.step()
    assert a.tolist() == [0.5] * 3
    assert b.tolist() == [-0.25] * 2
    optimizer.set_lr(0.0)
    optimizer.step()
    assert a.tolist() == [0.5] * 3
    assert [group["lr"] for group in optimizer.param_groups] == [0, 0, 0]


def test_a_closure_computes_the_loss(backend_name: str) -> None:
    parameter = nn.Parameter(trine.ones(2))
    optimizer = optim.SGD([parameter], lr=0.5)

    def closure() -> trine.Tensor:
        optimizer.zero_grad()
        loss = (parameter * parameter).sum()
        loss.backward()
        return loss

    with trine.no_grad():
        assert optimizer.step(closure).item() == 2
    assert parameter.tolist() == [0, 0]


def test_the_scale_multiplies_one_step_and_a_bad_one_suppresses_it(backend_name: str) -> None:
    parameter = nn.Parameter(trine.ones(2))
    optimizer = optim.Adam([parameter], lr=0.1)
    backend = parameter.backend
    parameter.sum().backward()
    for bad in (np.nan, np.inf):
        optimizer.set_scale(backend.hyper(bad))
        optimizer.step()
        assert parameter.tolist() == [1, 1]
        state = optimizer.state_dict()["arrays"]
        assert state["0.float32.steps"].tolist() == [0]
        assert not state["0.float32.exp_avg"].any()
    plain = nn.Parameter(trine.ones(2))
    descent = optim.SGD([plain], lr=1.0)
    plain.sum().backward()
    descent.set_scale(backend.hyper(0.25))
    descent.step()
    assert plain.tolist() == [0.75, 0.75]
    descent.step()  # the scale is 1 again
    assert plain.tolist() == [-0.25, -0.25]


def parameter() -> nn.Parameter:
    return nn.Parameter(trine.ones(2))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: optim.SGD([]), ValueError, r"\[SGD\] expected at least one parameter, got none"),
        (lambda: optim.SGD(parameter()), TypeError, "expected an iterable of parameters"),
        (lambda: optim.SGD([trine.ones(2)]), TypeError, "expected parameters, got Tensor"),
        (lambda: optim.SGD([{"lr": 1}]), TypeError, "expected a group as a dict with 'params'"),
        (lambda: optim.SGD([{"params": [parameter()], "rl": 1}]), ValueError, "got rl"),
        (lambda: optim.SGD([{"params": []}]), ValueError, "expected parameters in a group"),
        (lambda: optim.SGD([parameter()], lr=-1), ValueError, "expected a learning rate >= 0"),
        (lambda: optim.SGD([parameter()], lr=np.nan), ValueError, "learning rate"),
        (lambda: optim.SGD([parameter()], nesterov=True), ValueError, "expected nesterov False"),
        (lambda: optim.SGD([parameter()], momentum=-1), ValueError, "expected momentum >= 0"),
        (lambda: optim.Adam([parameter()], betas=(1.0, 0.9)), ValueError, "expected betas"),
        (lambda: optim.RMSprop([parameter()], alpha=-1), ValueError, "expected alpha >= 0"),
        (lambda: optim.Adagrad([parameter()], lr_decay=-1), ValueError, "expected lr_decay >= 0"),
    ],
)
def test_wrong_options_are_refused(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


def test_one_parameter_in_two_groups_or_on_two_backends_is_refused() -> None:
    shared = parameter()
    with pytest.raises(ValueError, match="expected each parameter in one group"):
        optim.SGD([{"params": [shared]}, {"params": [shared]}])
    other = nn.Parameter(trine.ones(2, backend="numpy"))
    third = nn.Parameter(trine.ones(2, backend="numba"))
    with pytest.raises(trine.BackendError, match="expected all parameters on one backend"):
        optim.SGD([other, third])
    with pytest.raises(trine.BackendError, match="expected all parameters on one backend"):
        optim.SGD([{"params": [other]}, {"params": [third]}])


def test_repr_lists_the_groups() -> None:
    text = repr(optim.SGD([parameter()], lr=0.5))
    assert text.startswith("SGD (\nParameter Group 0\n    dampening: 0.0\n    lr: 0.5\n")
