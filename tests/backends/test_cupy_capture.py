"""Steps captured as CUDA graphs, through the emulator's stand-in for CuPy."""

from __future__ import annotations

import numpy as np
import pytest

import trine
import trine.functional as F
from trine.errors import CaptureError


def tensor(values, **options):
    return trine.tensor(np.asarray(values, np.float32), backend="cupy", **options)


def scaling():
    """A step that changes a parameter by its gradient, without products of matrices."""
    weight = tensor([1.0, 2.0, 3.0], requires_grad=True)

    def step(x):
        weight.grad = None
        loss = F.dropout((x * weight).tanh(), 0.5).sum()
        loss.backward()
        with trine.no_grad():
            weight.sub_(weight.grad * 0.1)
        return loss

    return weight, step


def inputs(count=7):
    rng = np.random.default_rng(0)
    return [tensor(rng.normal(size=3)) for _ in range(count)]


def test_a_graph_gives_the_bytes_of_the_step(cupy_backend):
    weight, step = scaling()
    plain = [step(x).item() for x in inputs()]
    drawn = trine.random.default_generator().state()
    trine.seed(0)
    other, step = scaling()
    captured = trine.capture(step)
    assert [captured(x).item() for x in inputs()] == plain
    assert captured.replays == 3
    assert other.tolist() == weight.tolist()
    assert trine.random.default_generator().state() == drawn


def test_a_replay_is_one_launch_and_copies_nothing_but_keys(cupy_backend, stand_in):
    _, step = scaling()
    captured = trine.capture(step)
    for x in inputs(5):
        captured(x)
    x = inputs(1)[0]
    counters, machine = cupy_backend.counters, stand_in._streams.machine
    counters.reset()
    launches = machine.launches
    captured(x)
    assert (counters.uploads, counters.downloads, counters.syncs) == (1, 0, 0)  # one dropout's key
    assert machine.launches == launches + 1


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (lambda y: y.sum().item(), "reads numbers"),
        (lambda y: y + trine.tensor([1.0, 2.0, 3.0], backend="cupy"), "from the host"),
        (lambda y: y.backend.synchronize(), "waits for the device"),
    ],
)
def test_what_cuda_refuses_ends_the_capture_and_the_step_is_done_once(cupy_backend, bad, why):
    weight, step = scaling()
    trine.seed(0)
    for x in inputs(3):
        step(x)
    trine.seed(0)
    other, step = scaling()

    def wrong(x):
        bad(x)
        return step(x)

    captured = trine.capture(wrong)
    for x in inputs(2):
        captured(x)
    with pytest.raises(CaptureError, match=why):
        captured(inputs(3)[2])
    assert other.tolist() == weight.tolist()


def test_an_error_of_the_step_passes_through_and_the_stream_is_free_again(cupy_backend):
    calls = []

    def failing(x):
        calls.append(1)
        if len(calls) == 3:
            raise KeyError("mine")
        return x * 2

    captured = trine.capture(failing)
    x = inputs(1)[0]
    captured(x)
    captured(x)
    with pytest.raises(KeyError, match="mine"):
        captured(x)
    assert captured(x).tolist() == (x * 2).tolist()
    assert captured(x).tolist() == (x * 2).tolist()
