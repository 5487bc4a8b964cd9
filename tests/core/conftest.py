"""Shared here: a gradient check that shares no code with the product, and a tiny training run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import trine
from trine import Tensor

CheckGradients = Callable[..., None]


@pytest.fixture
def check_gradients() -> CheckGradients:
    """Return check(f, *inputs): compares backward of f with central differences in float64."""
    return _check


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """Return the module training_run.py beside this file."""
    file = Path(__file__).with_name("training_run.py")
    spec = importlib.util.spec_from_file_location("training_run", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _check(f: Callable[..., Tensor], *inputs: Tensor, step: float = 1e-6) -> None:
    """Compare backward with central differences, element by element."""
    for x in inputs:
        assert x.dtype == np.float64
        x.requires_grad_()
        x.grad = None
    out = f(*inputs)
    upstream = np.random.default_rng(7).normal(size=out.shape)
    out.backward(trine.tensor(upstream, "float64"))

    def value() -> float:
        with trine.no_grad():
            return float((f(*inputs).numpy() * upstream).sum())

    for number, x in enumerate(inputs):
        assert x.grad is not None, f"input {number} got no gradient"
        numeric = np.empty(x.shape)
        for place in np.ndindex(*x.shape):
            kept = x.data[place]
            x.data[place] = kept + step
            above = value()
            x.data[place] = kept - step
            below = value()
            x.data[place] = kept
            numeric[place] = (above - below) / (2 * step)
        np.testing.assert_allclose(
            x.grad.numpy(), numeric, rtol=1e-6, atol=1e-7, err_msg=f"gradient of input {number}"
        )
