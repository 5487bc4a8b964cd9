"""Turns, pauses and dropped calls, on candidates that only count."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from trine.bench import pinning, timing
from trine.bench.guard import Usage
from trine.bench.results import BenchResult


class Fake:
    """A candidate that writes down when it was called."""

    def __init__(self, name, pool, log):
        self.name, self.pool, self.log = name, pool, log
        self.result = BenchResult("op", name, "", "float32", "tiny")

    def ready(self):
        return nullcontext()

    def call(self):
        self.log.append(self.name)


@pytest.fixture
def scripted(monkeypatch):
    """Replace the clock's watch: every round uses what a list says, in turn."""

    def script(spoiled):
        usages = iter(spoiled)

        class Watch:
            def stop(self):
                return Usage(1.0, 1.0, 0.9 if next(usages, False) else 0.0, 6)

        monkeypatch.setattr(timing, "Watch", Watch)

    return script


def test_candidates_take_turns_and_rest_between_pools(monkeypatch, scripted):
    scripted([])
    log = []
    monkeypatch.setattr(timing.time, "sleep", lambda s: log.append(s))
    a, b, c = Fake("a", "numba", log), Fake("b", "numba", log), Fake("c", "torch", log)
    timing.time_together([a, b, c], 1e-9)
    # Each round: a pause, then at least two calls of each, the first of them dropped.
    turn = [timing.PAUSE, "a", "a", "b", "b", timing.PAUSE, "c", "c"]
    assert log == [timing.PAUSES["blas"], *(turn * timing.ROUNDS)[1:]]
    assert len(a.result.times) == timing.ROUNDS
    assert a.result.faults == 6


def test_one_candidate_rests_once_and_after_blas_all_rest_longer(monkeypatch, scripted):
    scripted([])
    log = []
    monkeypatch.setattr(timing.time, "sleep", log.append)
    one = Fake("a", "numba", [])
    timing.time_together([one], 1e-9)
    assert log == [timing.PAUSES["blas"]]
    log.clear()
    timing.time_together([Fake("a", "blas", []), Fake("b", "numba", [])], 1e-9)
    assert log == [
        timing.PAUSES["blas"],
        *[timing.PAUSE, timing.PAUSES["blas"]] * (timing.ROUNDS - 1),
    ]
    assert len(one.result.rounds) == timing.ROUNDS


def test_spoiled_rounds_are_taken_again(scripted):
    scripted([True, False, True])
    one = Fake("a", "numba", [])
    timing.time_together([one], 1e-9)
    assert len(one.result.rounds) == timing.ROUNDS
    assert one.result.rejected == 2
    assert not one.result.disturbed


def test_on_a_busy_machine_all_rounds_count_and_the_row_says_so(scripted):
    scripted([True] * 100)
    one = Fake("a", "numba", [])
    timing.time_together([one], 1e-9)
    assert len(one.result.rounds) == timing.MOST
    assert one.result.disturbed


def test_a_pinned_process_is_not_started_again(monkeypatch):
    monkeypatch.setattr(pinning.os, "execve", lambda *a: pytest.fail("restarted"))
    for name in pinning.NAMES:
        monkeypatch.setenv(name, "1")
    assert pinning.is_pinned()
    pinning.restart()


def test_a_process_that_is_not_pinned_is_replaced_by_the_same_command(monkeypatch):
    for name in (*pinning.NAMES, pinning.STARTED):
        monkeypatch.delenv(name, raising=False)
    calls = []
    monkeypatch.setattr(pinning.sys, "platform", "linux")
    monkeypatch.setattr(pinning.os, "execve", lambda *a: calls.append(a))
    pinning.restart()
    ((program, arguments, environ),) = calls
    assert program == pinning.sys.executable
    assert arguments[1:] == pinning.sys.orig_argv[1:]
    assert pinning.is_pinned(environ)
    assert "OMP_WAIT_POLICY" not in environ  # each side waits as it does by default
    monkeypatch.setenv(pinning.STARTED, "1")
    pinning.restart()
    assert len(calls) == 1
