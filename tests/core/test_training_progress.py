"""Progress: a bar on a terminal, one line in a notebook, plain lines in a log, and stdout left alone."""

from __future__ import annotations

import io
import sys
import time
import types

import pytest

from trine.training import progress, trainer
from trine.training.summary import Clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_plain_lines(tiny, capfd):
    tiny.trainer(progress="auto").fit(*tiny.loaders(), epochs=2)
    told = capfd.readouterr()
    assert told.out == ""
    lines = told.err.splitlines()
    assert [line[:9] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert "train loss " in lines[0]
    assert "test accuracy " in lines[0]
    assert "%" in lines[0]
    assert "\r" not in told.err
    assert "\x1b" not in told.err


def test_none_is_silent(tiny, capfd):
    tiny.trainer(progress="none").fit(*tiny.loaders(), epochs=1)
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")


def test_a_long_epoch_shows_lines_between(monkeypatch, capfd, tiny):
    monkeypatch.setattr(progress.Lines, "every", 0.0)
    tiny.trainer(progress="lines").fit(*tiny.loaders(), epochs=1)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 7 + 1
    assert lines[2].startswith("epoch 1/1  step 3/7  train loss ")
    assert lines[2].endswith(" samples/s")


def test_lines_keep_their_distance():
    lines = progress.Lines(io.StringIO())
    lines.start(1, 10)
    assert not lines.due()
    lines.every = 0.0
    assert lines.due()


def test_a_terminal_gets_a_bar(tiny, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(progress, "BAR_EVERY", 0.0)
    tiny.trainer(progress="auto").fit(*tiny.loaders(), epochs=2)
    text = stream.getvalue()
    assert "epoch 1/2  train loss" in text
    assert "14/14" in text
    assert "\x1b" in text


def test_a_notebook_gets_one_line_that_changes(tiny, monkeypatch):
    shown = []

    class Handle:
        def update(self, data, raw):
            shown.append(data["text/plain"])

    def display(data, raw, display_id):
        shown.append(data["text/plain"])
        return Handle()

    class ZMQInteractiveShell:
        pass

    module = types.ModuleType("IPython")
    module.get_ipython = ZMQInteractiveShell
    module.display = types.ModuleType("IPython.display")
    module.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", module.display)
    monkeypatch.setattr(progress.Notebook, "every", 0.0)
    assert isinstance(progress.make_progress("auto"), progress.Notebook)
    tiny.trainer(progress="auto").fit(*tiny.loaders(), epochs=1)
    assert len(shown) == 7
    assert shown[-1].startswith("█" * 30 + " epoch 1/1  step 7/7")


def test_an_unknown_kind(tiny):
    with pytest.raises(ValueError, match="Did you mean 'none'"):
        tiny.trainer(progress="nome").fit(*tiny.loaders(), epochs=1)


def test_compiling_is_announced_only_when_it_takes_long():
    notes = []

    class Ear(progress.Silent):
        def note(self, text):
            notes.append(text)

    quick = progress.CompileNote(Ear(), after=5.0)
    with quick:
        pass
    assert notes == []
    slow = progress.CompileNote(Ear(), after=0.01)
    with slow:
        deadline = time.monotonic() + 5
        while not notes and time.monotonic() < deadline:
            time.sleep(0.01)
    assert notes == ["compiling CPU kernels (once)..."]


class Compiler:
    """A backend that says how long it compiled."""

    precision = "fp32"

    def __init__(self, counters):
        self.counters = counters
        self.total = 1.0

    def compile_seconds(self):
        return self.total


def test_compile_time_is_counted_apart(tiny):
    backend = Compiler(tiny.trainer().backend.counters)
    clock = Clock(backend)
    with clock.training(100):
        time.sleep(0.2)
        backend.total += 0.19
    assert clock.samples_per_second() > 100 / 0.2  # the time of compiling is not in it
    assert clock.summary()["compile_seconds"] == pytest.approx(0.19)


def test_the_first_step_on_numba_is_watched(tiny, backend_name, monkeypatch):
    made = []

    class Note(progress.CompileNote):
        def __init__(self, shown):
            made.append([])
            self.calls = made[-1]

        def __enter__(self):
            self.calls.append("start")

        def __exit__(self, *exc):
            self.calls.append("done")

    monkeypatch.setattr(trainer, "CompileNote", Note)
    tiny.trainer().fit(*tiny.loaders(), epochs=2)
    assert made == ([["start", "done"]] if backend_name == "numba" else [])
