"""A planted error of a thousandth: `trine compare` and `trine gradcheck` name where it sits."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re

import pytest
from typer.testing import CliRunner

from trine.backends import get_backend
from trine.cli.app import app
from trine.kernels import kernel, registry

OFF = 1.001


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


@pytest.fixture
def own_registry(monkeypatch):
    """A copy of the table of kernels, so that a planted one is gone with the test."""
    get_backend("numba")  # registers its kernels
    monkeypatch.setattr(registry, "_kernels", {op: list(k) for op, k in registry._kernels.items()})
    registry._touch()
    yield
    monkeypatch.undo()
    registry._touch()


def plant_kernel(op: str, output: str, **serves) -> None:
    """Register a kernel of numba that is the real one but for an output a thousandth too large.

    `serves` names arrays of a call by which one layer is told from the others, with their shapes.
    """
    real = registry.kernels(op, "numba")
    names = real[0].parameters

    def planted(*arguments):
        call = dict(zip(names, arguments, strict=True))
        chosen = next(k for k in real if k.supports is None or k.supports(**call))
        chosen.function(*[call[name] for name in chosen.parameters])
        call[output] *= call[output].dtype.type(OFF)

    planted.__signature__ = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    )
    kernel(
        op, backend="numba", name="planted", priority=1000, replayable=False,
        supports=lambda **call: all(call[name].shape == shape for name, shape in serves.items()),
    )(planted)  # fmt: skip


@pytest.mark.parametrize(
    ("weight", "layer"), [((6, 1, 5, 5), "0 (Conv2d)"), ((16, 6, 5, 5), "3 (Conv2d)")]
)
def test_compare_names_the_layer_of_a_wrong_kernel(own_registry, weight, layer):
    command = ("compare", "lenet5", "--backends", "numpy,numba")
    code, text = run(*command)
    assert code == 0, text
    assert "numpy and numba agree in all 23 layers and gradients" in text
    plant_kernel("conv2d", "out", weight=weight)
    code, text = run(*command)
    assert code == 1
    assert f"numpy and numba part at {layer}: " in text
    code, text = run(*command, "--json")
    assert code == 1
    assert json.loads(text.splitlines()[-1])["first"] == layer


def plant_rule(monkeypatch, module: str, op: str) -> None:
    """Make what an op's backward rule gives a thousandth too large."""
    place = importlib.import_module(f"trine.functional.{module}")
    right = getattr(place, op)

    def wrong(*arguments, **attrs):
        grads = right.backward(*arguments, **attrs)
        return tuple(None if grad is None else grad * OFF for grad in grads)

    monkeypatch.setattr(place, op, dataclasses.replace(right, backward=wrong))


@pytest.mark.parametrize(
    ("net", "module", "op", "layers"),
    [
        ("little-demon", "pool", "MAX_POOL2D", [("max_pool2d", "pool (MaxPool2d)")]),
        ("little-demon", "conv", "CONV2D", [("conv2d", "conv (Conv2d)")]),
        ("xor", "linear", "LINEAR", [("linear", "hidden (Linear)"), ("linear", "output (Linear)")]),
    ],
)
def test_gradcheck_names_a_wrong_backward_rule(monkeypatch, net, module, op, layers):
    code, text = run("gradcheck", net)
    assert code == 0, text
    assert "gradients are right" in text
    plant_rule(monkeypatch, module, op)
    code, text = run("gradcheck", net, "--json")
    assert code == 1
    report = json.loads(text.splitlines()[-1])
    assert [(w["op"], w["layer"]) for w in report["wrong"]] == layers
    assert re.search(r"Worst element: \w+\.(weight|bias) at ", report["report"])


def test_gradcheck_names_a_wrong_backward_kernel(own_registry):
    command = ("gradcheck", "xor", "--backend", "numba")
    code, text = run(*command)
    assert code == 0, text
    plant_kernel("linear_backward", "grad_weight", weight=(1, 2))
    code, text = run(*command)
    assert code == 1
    assert "The backward rule of linear is wrong, in output (Linear): " in text
    assert text.count("The backward rule of") == 1
