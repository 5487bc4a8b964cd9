"""Peers: the error without one; with one, every function of it against the float64 reference."""

from __future__ import annotations

import importlib.util

import pytest

from trine import bench
from trine.backends import cases
from trine.bench import harness, peers, shapes
from trine.bench.peers import Peer, PeerCall
from trine.errors import BackendError


def test_a_peer_that_is_not_installed_is_an_error_with_the_remedy(monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install torch"):
        peers.load("torch")


def test_an_unknown_peer_is_an_error():
    with pytest.raises(ValueError, match="Did you mean 'torch'"):
        peers.load("torhc")


def fake(call):
    def relu(x):
        return PeerCall(lambda: call(x), lambda result: [result])

    return Peer("fake", "1", {"relu": relu}, lambda count: None)


def test_a_right_peer_is_in_the_table_with_ratios(monkeypatch, quick):
    monkeypatch.setattr(harness, "load", lambda name: fake(lambda x: x.clip(0)))
    report = quick(vs=["fake"])
    sides = {r.side: r for r in report}
    assert report.peers == ["fake"]
    assert report.ratio(sides["fake"], "fake") == 1
    expected = sides["fake"].median / sides["trine"].median
    assert report.ratio(sides["trine"], "fake") == pytest.approx(expected)
    assert report.environment["packages"]["fake"] == "1"


def test_a_wrong_peer_gets_no_time(monkeypatch, quick):
    monkeypatch.setattr(harness, "load", lambda name: fake(lambda x: 0 * x))
    row = next(r for r in quick(vs=["fake"]) if r.side == "fake")
    assert row.times == []
    assert "output 0 of fake" in row.error


def test_a_peer_without_the_op_is_an_error(monkeypatch, quick):
    monkeypatch.setattr(harness, "load", lambda name: fake(lambda x: x))
    with pytest.raises(ValueError, match="expected ops that fake is compared on"):
        quick(["exp"], vs=["fake"])


@pytest.mark.parametrize("name", sorted(peers.NAMES))
def test_every_function_of_an_installed_peer_is_right(name, quick, machine):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"no {name}")
    peer = peers.load(name)
    known = {case.op for case in cases.all()}
    assert set(peer.functions) <= known
    wrong = []
    for dtype in ("float32", "float64"):
        report = bench.run(
            sorted(peer.functions), [], vs=[name], shapes=["tiny"], seconds=0.001, dtype=dtype,
            roofs=machine(),
        )  # fmt: skip
        wrong += [(r.op, dtype, r.error) for r in report if r.error]
    assert wrong == []


def test_named_shapes_are_frozen():
    """A name keeps its meaning: whoever changes a shape must change this line, and see why not."""
    layer = shapes.CONVOLUTIONS["resnet-64-56"]
    assert layer.label == "(16, 64, 56, 56) by (64, 3, 3), padding (1, 1)"
    assert shapes.CONVOLUTIONS["alexnet-1"].out_size == (55, 55)
    assert shapes.LSTMS["lstm-50"] == (50, 32, 64, 128)
    assert len(shapes.names()) == len(set(shapes.names())) == 17


@pytest.mark.parametrize("op", sorted(shapes.MAKERS))
def test_every_named_shape_makes_a_call_of_its_op(op):
    import numpy as np

    from trine.backends.op import OPS

    spec = OPS[op]
    found = shapes.samples(op, lambda name: True, 0, np.dtype("float32"))
    assert {s.label for s in found} == set(shapes.MAKERS[op][0])
    for sample in found:
        call = spec.bind(sample.args, sample.attrs)
        assert spec.outputs(**call)
        assert set(sample.attrs) <= set(spec.attributes)


def test_an_unknown_shape_is_an_error(quick):
    with pytest.raises(ValueError, match="Did you mean 'lenet-1'"):
        quick(shapes=["lenet1"])


def test_a_named_shape_is_timed(quick):
    report = quick(["linear"], shapes=["mlp-2"])
    assert [r.shape for r in report] == ["mlp-2"]
    assert all(r.rounds for r in report)
