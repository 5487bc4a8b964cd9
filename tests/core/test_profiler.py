"""The profile counts every op once, says what ran, and is gone when it is off."""

from __future__ import annotations

import json

import numpy as np
import pytest

import trine
import trine.functional as F
from trine import nn, optim
from trine.backends import dispatch, get_backend
from trine.backends.dispatch import FallbackWarning
from trine.kernels import kernel


def step(found):
    trine.seed(0)
    model = nn.Linear(4, 3)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    x, y = trine.randn(5, 4), trine.tensor([0, 1, 2, 0, 1])
    with found.phase("forward"):
        loss = F.cross_entropy(model(x), y)
    with found.phase("backward"):
        loss.backward()
    with found.phase("update"):
        optimizer.step()


def test_a_training_step_is_recorded_by_phase(backend_name):
    with trine.profile() as found:
        step(found)
    ops = [(e.phase, e.op) for e in found.events]
    assert ("forward", "linear") in ops
    assert ops.count(("forward", "cross_entropy")) == 1
    assert ("backward", "cross_entropy_backward") in ops
    assert ("update", "sgd_step") in ops
    backend = get_backend(backend_name)
    assert {e.backend for e in found.events} == {backend_name}
    by_op = {e.op: e for e in found.events}
    expected = "rows" if backend_name == "numba" else "reference"
    assert by_op["cross_entropy"].kernel == expected
    assert by_op["cross_entropy"].shapes == ("(5, 3)", "(5,)")
    assert by_op["cross_entropy"].out_bytes == 4 + 5 * 3 * 4
    assert [name for name, _, _ in found.phases] == ["forward", "backward", "update"]
    assert 0 <= found.outside < found.seconds
    assert sum(r.calls for r in found.rows()) == len(found.events)
    assert backend.counters is not None


def test_off_means_off():
    with trine.profile() as found:
        pass
    F.relu(trine.randn(3))
    assert found.events == []
    assert dispatch.observer is None


def test_it_ends_with_an_error():
    with pytest.raises(ZeroDivisionError), trine.profile():
        1 / 0  # noqa: B018
    assert dispatch.observer is None


def test_profiles_do_not_nest():
    with trine.profile(), pytest.raises(RuntimeError, match="expected no profile around"):
        trine.profile().__enter__()


def test_what_a_reference_calls_is_its_own_time():
    """define_op's references may call ops of the backend; they must not be counted twice."""
    backend = get_backend("numpy")
    x = np.ones((2, 3), np.float32)
    with trine.profile() as found:
        backend.softplus(x)
        backend.lstm(
            *(np.zeros(s, np.float32) for s in ((2, 1, 3), (1, 2), (1, 2), (8, 3), (8, 2)))
        )
    assert [e.op for e in found.events] == ["softplus", "lstm"]


def test_copies_and_fallbacks_are_counted():
    @kernel("relu", backend="numpy", name="profiled", supports=lambda x: x.ndim == 2)
    def profiled(x, out):
        np.maximum(x, 0, out=out)

    from trine.kernels import registry

    try:
        backend = get_backend("numpy")
        x = np.ones((4, 6), np.float32)
        with trine.profile() as found:
            backend.relu(x)
            backend.relu(x.T)
            with pytest.warns(FallbackWarning):
                backend.relu(x[0])
        assert [(e.kernel, e.copies, e.fallback) for e in found.events] == [
            ("profiled", 0, False), ("profiled", 1, False), ("reference", 0, True),
        ]  # fmt: skip
    finally:
        registry._kernels[("relu", "numpy")] = [
            k for k in registry._kernels[("relu", "numpy")] if k.name != "profiled"
        ]
        registry._touch()


def test_the_memory_of_the_pool_is_seen():
    with trine.use("numba"), trine.profile() as found:
        kept = F.max_pool2d(trine.randn(8, 8, 64, 64), 2)
    assert found.peak_bytes >= kept.numpy().nbytes


def test_the_trace_is_what_chrome_reads(tmp_path):
    with trine.profile() as found:
        step(found)
    path = tmp_path / "trace.json"
    found.write_trace(path)
    trace = json.loads(path.read_text())
    events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert len(events) == len(found.events) + 3
    for event in events:
        assert {"name", "cat", "pid", "tid", "ts", "dur"} <= set(event)
        assert event["dur"] >= 0
    phases = {e["name"]: e for e in events if e["cat"] == "phase"}
    update = phases["update"]
    inside = next(e for e in events if e["name"] == "sgd_step")
    assert update["ts"] <= inside["ts"]
    assert inside["ts"] + inside["dur"] <= update["ts"] + update["dur"] + 1
    assert {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "trine"}} in (
        trace["traceEvents"]
    )


def test_it_prints_a_table():
    with trine.profile() as found:
        step(found)
    text = str(found)
    assert "sgd_step" in text
    assert "outside of ops" in text
    assert json.dumps(found.as_dict())
