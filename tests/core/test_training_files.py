"""Atomic files and checkpoints: what a crash, a full disk or a damaged file leaves."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trine import atomic
from trine.errors import CheckpointError
from trine.training import checkpoint, records

ARRAYS = {
    "model.w": np.arange(12, dtype=np.float32).reshape(3, 4),
    "model.scalar": np.array(2.5),
    "model.flags": np.array([True, False]),
    "model.none": np.empty((0, 3)),
    "optimizer.steps": np.array([7], np.int64),
}


class Crash(BaseException):
    """The process ends here."""


def names(folder):
    return sorted(f.name for f in folder.iterdir())


def break_call(monkeypatch, name, error, after=0):
    """Let os.NAME raise from its call number `after` on."""
    real = getattr(os, name)
    calls = []

    def broken(*args, **kwargs):
        calls.append(args)
        if len(calls) > after:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, broken)


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_crash_on_the_way_leaves_the_old_file(tmp_path, monkeypatch, call):
    file = tmp_path / "file"
    atomic.write_text(file, "old")
    break_call(monkeypatch, call, Crash())
    with pytest.raises(Crash):
        atomic.write_text(file, "new")
    monkeypatch.undo()
    assert file.read_text() == "old"
    assert names(tmp_path) == [".file.tmp", "file"]  # as after a kill
    atomic.write_text(file, "newer")
    assert file.read_text() == "newer"
    assert names(tmp_path) == ["file"]


def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    events = []
    for call in ("fsync", "replace"):
        real = getattr(os, call)
        monkeypatch.setattr(
            os, call, lambda *a, call=call, real=real: (events.append(call), real(*a))[1]
        )
    atomic.write_text(tmp_path / "file", "text")
    assert events == ["fsync", "replace", "fsync"]  # file, name, folder


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_says_so_and_leaves_the_old_file(tmp_path, monkeypatch, call):
    file = tmp_path / "file"
    atomic.write_text(file, "old")
    break_call(monkeypatch, call, FULL)
    with pytest.raises(OSError, match=r"\[write\] .*file, but the disk is full\. Free") as caught:
        atomic.write_text(file, "new")
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC
    assert file.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_while_appending(tmp_path, monkeypatch):
    break_call(monkeypatch, "fsync", FULL)
    with pytest.raises(OSError, match="the disk is full"):
        atomic.append(tmp_path / "file", "line\n")


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    error = atomic.failed(PermissionError(errno.EACCES, "Permission denied"), tmp_path)
    assert isinstance(error, PermissionError)
    assert "it may not be written to. Choose a folder of your own" in str(error)


# Checkpoints


def test_a_checkpoint_comes_back_exactly(tmp_path):
    facts = {"step": 3, "loss": 0.1, "nested": {"a": [1, None]}}
    arrays = {**ARRAYS, "model.f": np.asfortranarray(ARRAYS["model.w"]), "v": np.arange(6)[::-2]}
    checkpoint.save(tmp_path / "c.safetensors", arrays, facts)
    found, meta = checkpoint.load(tmp_path / "c.safetensors")
    assert meta == {"format": checkpoint.FORMAT, **facts}
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, strict=True, err_msg=name)


def test_equal_content_gives_equal_bytes_in_every_process(tmp_path):
    code = (
        "import sys, numpy as np; from pathlib import Path; from trine.training import checkpoint;"
        "checkpoint.save(Path(sys.argv[1]), {'a': np.ones(3), 'b': np.zeros(2)}, {'x': 1, 'y': 2})"
    )
    files = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for file in files:
        subprocess.run([sys.executable, "-c", code, file], check=True)
    assert len({file.read_bytes() for file in files}) == 1


def test_every_flipped_bit_is_noticed(tmp_path):
    file = tmp_path / "c.safetensors"
    checkpoint.save(file, ARRAYS, {"step": 3})
    content = file.read_bytes()
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match=re.escape(str(file))):
            checkpoint.load(file)


def test_every_truncation_is_noticed(tmp_path):
    file = tmp_path / "c.safetensors"
    checkpoint.save(file, ARRAYS, {"step": 3})
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            checkpoint.load(file)
    file.write_bytes(content)
    checkpoint.load(file)


def test_foreign_and_missing_files(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.ones(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="something else"):
        checkpoint.load(tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="cannot read"):
        checkpoint.load(tmp_path / "nothing.safetensors")
    assert checkpoint.load_latest(tmp_path) is None


def test_a_later_format_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "c.safetensors"
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    checkpoint.save(file, ARRAYS, {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"expected format 1, got 99 .*Upgrade"):
        checkpoint.load(file)


def save_run(folder, step):
    last, previous = folder / checkpoint.LAST, folder / checkpoint.PREVIOUS
    checkpoint.save(last, {"a": np.full(3, step)}, {"step": step}, keep_as=previous)


def test_the_previous_checkpoint_is_kept(tmp_path):
    for step in (1, 2, 3):
        save_run(tmp_path, step)
    assert checkpoint.load(tmp_path / checkpoint.LAST)[1]["step"] == 3
    assert checkpoint.load(tmp_path / checkpoint.PREVIOUS)[1]["step"] == 2
    assert names(tmp_path) == ["last.safetensors", "previous.safetensors"]


@pytest.mark.parametrize(("call", "after"), [("fsync", 0), ("replace", 0), ("replace", 1)])
@pytest.mark.parametrize("error", [Crash(), FULL])
def test_some_checkpoint_survives_every_interruption(tmp_path, monkeypatch, call, after, error):
    for step in (1, 2):
        save_run(tmp_path, step)
    break_call(monkeypatch, call, error, after)
    with pytest.raises((Crash, OSError)):
        save_run(tmp_path, 3)
    monkeypatch.undo()
    assert checkpoint.load_latest(tmp_path)[1]["step"] == 2
    save_run(tmp_path, 4)
    assert checkpoint.load_latest(tmp_path)[1]["step"] == 4


def test_a_full_disk_in_training_leaves_a_run_that_goes_on(tiny, tmp_path, monkeypatch):
    whole, hurt = tmp_path / "whole", tmp_path / "hurt"
    tiny.trainer(whole).fit(*tiny.loaders(), epochs=3)
    tiny.trainer(hurt).fit(*tiny.loaders(), epochs=1)
    before = (hurt / checkpoint.LAST).read_bytes()
    run = tiny.trainer(hurt)
    break_call(monkeypatch, "fsync", FULL, after=3)  # metrics are cut, appended; then ...
    with pytest.raises(OSError, match="the disk is full"):
        run.fit(*tiny.loaders(), epochs=3, resume="auto")
    monkeypatch.undo()
    assert (hurt / checkpoint.LAST).read_bytes() == before
    tiny.trainer(hurt).fit(*tiny.loaders(), epochs=3, resume="auto")
    for name in (checkpoint.LAST, checkpoint.BEST, records.METRICS):
        assert (whole / name).read_bytes() == (hurt / name).read_bytes()


def test_configuration_is_written_once(tiny, tmp_path):
    tiny.trainer(tmp_path, config={"model": "m"}).fit(*tiny.loaders(), epochs=1)
    config = Path(tmp_path / records.CONFIG)
    stamp = config.stat().st_mtime_ns, config.read_bytes()
    tiny.trainer(tmp_path, config={"model": "m"}).fit(*tiny.loaders(), epochs=2, resume="auto")
    assert stamp == (config.stat().st_mtime_ns, config.read_bytes())


def test_numbers_that_json_lacks_become_null(tmp_path):
    folder = records.RunFolder(tmp_path / "run")
    folder.begin({"lr": float("inf"), "path": Path("x")})
    folder.epoch({"loss": float("nan"), "step": 1}, {"seconds": 0.5})
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"loss": null, "step": 1}\n'
    assert folder.length == 26
