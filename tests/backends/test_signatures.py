"""Backends may not differ in what their methods are called with."""

from __future__ import annotations

import inspect

import pytest

from trine.backends import cupy_probe, get_backend
from trine.backends.base import Backend
from trine.backends.op import OPS


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_backends_keep_the_contract(name):
    cls = type(get_backend(name))
    allowed = {"compile_seconds"}
    for method, function in inspect.getmembers(cls, inspect.isfunction):
        if method.startswith("__"):
            continue
        base = getattr(Backend, method, None)
        if base is None:
            assert method in allowed or method.startswith("_"), f"{name} adds {method}"
        else:
            assert inspect.signature(function) == inspect.signature(base), method


def test_ops_are_documented_and_annotated():
    for name, spec in OPS.items():
        if spec.user:
            continue
        assert inspect.getdoc(spec.reference), name
        hints = inspect.signature(spec.reference)
        assert hints.return_annotation is not inspect.Signature.empty, name
        for attribute in spec.attributes.values():
            assert attribute.annotation is not inspect.Signature.empty, f"{name}.{attribute.name}"


def test_the_probe_never_throws(monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("driver exploded")

    monkeypatch.setattr(cupy_probe, "installed_distributions", broken)
    ok, reason, remedy = cupy_probe.probe()
    assert not ok
    assert "driver exploded" in reason
    assert remedy


def test_two_cupy_wheels_are_named(monkeypatch):
    monkeypatch.setattr(
        cupy_probe,
        "installed_distributions",
        lambda: {"cupy-cuda12x": "14.2.0", "cupy-cuda13x": "14.2.0"},
    )
    ok, reason, remedy = cupy_probe.probe()
    assert not ok
    assert "cupy-cuda12x cupy-cuda13x" in reason
    assert remedy.startswith("pip uninstall -y cupy-cuda12x cupy-cuda13x")
